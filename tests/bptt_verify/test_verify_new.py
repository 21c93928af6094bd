"""`bptt new`: what it writes passes as it is and tells a slip, and what is there stays."""

import json
import shlex
import subprocess
import sys

import pytest

from bptt_verify import verify
from bptt_verify.load import load

STARTS = ("numpy", "torch", "jax")
every_start = pytest.mark.parametrize("start", STARTS)


@pytest.fixture
def written(bptt, tmp_path):
    """A file from each start."""

    def write(start):
        assert bptt("new", "my_cell.py", "--from", start)[0] == 0
        return tmp_path / "my_cell.py"

    return write


@every_start
def test_what_it_writes_passes_by_the_command_it_names(bptt, start):
    code, out, err = bptt("new", "my_cell.py", "--from", start)
    assert (code, err) == (0, "")
    *_, last = out.splitlines()
    program, *words = shlex.split(last.removeprefix("next: "))
    assert (program, words[:2]) == ("bptt", ["verify", "my_cell.py"])
    code, out, err = bptt(*words)
    assert code == 0, out + err


def test_what_it_wrote_is_told_to_programs(bptt, tmp_path):
    code, out, _ = bptt("new", "my_cell.py", "--from", "jax", "--json", "new.json")
    said = json.loads((tmp_path / "new.json").read_text("utf-8"))
    assert said == {"command": "new", "file": "my_cell.py", "next": said["next"]}
    assert code == 0
    assert out.endswith(f"next: {said['next']}\n")


@every_start
def test_it_is_a_script_that_says_its_verdict(written, start):
    path = written(start)
    ended = subprocess.run(
        [sys.executable, "-W", "error", path], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "pass\n", "")


LOOP = [
    ("carried = delta[t] @ W", "carried = delta[t] @ W.T"),
    ("1 - states[t] ** 2", "1 - states[t]"),
]
SCAN = [("delta_t @ W, delta_t", "delta_t @ W.T, delta_t"), ("1 - s_t**2", "1 - s_t")]
SUMS = [("states[:-1]])", "states[1:]])", "dW"), ("delta.sum(", "delta.mean(", "db")]
# right, wrong, what is wrong first: dx where nobody sees δ
SLIPS = {
    "numpy": [*((*slip, "delta") for slip in LOOP), *SUMS],
    "torch": [*((*slip, "dx") for slip in LOOP), *SUMS],
    "jax": [*((*slip, "dx") for slip in SCAN), *SUMS],
}


@pytest.mark.parametrize(
    ("start", "right", "wrong", "row"),
    [(start, *slip) for start in STARTS for slip in SLIPS[start]],
)
def test_a_slip_in_it_is_told(written, start, right, wrong, row):
    path = written(start)
    text = path.read_text("utf-8")
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    (pair,) = load(str(path))
    report = verify(pair, cases=4)
    assert (report.verdict, report.first_failure.row) == ("fail", row)


@every_start
def test_it_is_laid_out_and_linted(written, start):
    path = written(start)
    for command in (["format", "--check"], ["check", "--select", "B,E,F,I,NPY,RET,SIM,UP,W"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("file", "name"),
    [("my-cell.py", "my_cell"), ("inner/Cell2.py", "Cell2"), ("./细胞.py", "细胞")],
)
@every_start
def test_the_pair_has_the_name_of_the_file(bptt, tmp_path, file, name, start):
    (tmp_path / "inner").mkdir()
    assert bptt("new", file, "--from", start)[0] == 0
    (pair,) = load(file)
    assert pair.name == name
    assert {p.name for p in (tmp_path / file).parent.iterdir()} <= {"inner", (tmp_path / file).name}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("there.py", "cannot write there.py: it is there already"),
        ("folder.py", "cannot write folder.py: it is there already"),
        ("dangling.py", "cannot write dangling.py: it is there already"),
        ("no/where.py", "cannot write no/where.py: there is no folder no"),
        ("there.py/cell.py", "cannot write there.py/cell.py: there is no folder there.py"),
        ("cell.txt", "that ends in .py, got 'cell.txt'"),
        ("cell", "that ends in .py, got 'cell'"),
        (".py", "that ends in .py, got '.py'"),
        ("my cell.py", "expected a name of letters, digits, _ and - that ends in .py, got 'my c"),
        ('a"b.py', "expected a name of letters, digits"),
        ("a.py:b.py", "expected a name of letters, digits"),
        ("torch.py", "expected another name than torch.py: the module torch is meant"),
        ("random.py", "expected another name than random.py: the module random is meant"),
        ("x" * 300 + ".py", "File name too long"),
    ],
)
def test_what_it_cannot_write_is_one_line_and_nothing_has_changed(bptt, tmp_path, file, message):
    (tmp_path / "there.py").write_text("mine\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "dangling.py").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = bptt("new", file)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.py").read_text() == "mine\n"


def test_a_full_disk_leaves_nothing(bptt, tmp_path, monkeypatch):
    def full(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bptt_verify.cli.new.Path.write_text", full)
    code, _, err = bptt("new", "my_cell.py")
    assert (code, err) == (2, "bptt: cannot write my_cell.py: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_where_pytorch_is_not_it_says_how_to_get_it(bptt, monkeypatch):
    monkeypatch.setattr("bptt_verify.cli.new.find_spec", lambda name: None)
    assert 'pip install "manual-bptt[peers]"' in bptt("new", "my_cell.py", "--from", "torch")[1]
