import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bptt_verify.cli.gradients import MARKS
from bptt_verify.pairs import ARTICLE

USERS = Path(__file__).with_name("users_pair.py")


def test_every_equation_is_a_row_and_passes(bptt, monkeypatch):
    # without a target; all pairs would be the README's first command once more
    monkeypatch.setattr("bptt_verify.cli.verify.REGISTRY", ARTICLE)
    code, out, _ = bptt("verify", "--cases", 3)
    assert code == 0
    for number in range(1, 14):
        assert f"({number})" in out
    for step in range(1, 8):
        assert f"step {step}:" in out
    assert "PASS" in out
    assert "numpy 2" in out


def test_json_is_written_whole(bptt, tmp_path):
    code, _, _ = bptt("verify", "rnn", "--cases", 3, "--json", "report.json")
    assert code == 0
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["verdict"] == "pass"
    assert [r["dtype"] for r in data["reports"]] == ["float32", "float64"]
    equations = [row["equation"] for row in data["reports"][0]["rows"]]
    assert {e["number"] for e in equations if e} == {1, 2, 8, 9, 10, 11, 12}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_users_file_fails_with_its_case_and_the_case_fails_again(bptt):
    code, out, _ = bptt("verify", USERS, "--cases", 30, "--dtype", "float64")
    assert code == 1
    assert "FAIL" in out
    (again,) = [line for line in out.splitlines() if line.strip().startswith("again ")]
    command = again.split("bptt ", 1)[1]
    assert f"{USERS}:wrong" in command
    code, out, _ = bptt(*shlex.split(command))
    assert code == 1


def test_one_pair_of_a_file(bptt):
    assert bptt("verify", f"{USERS}:right", "--cases", 5)[0] == 0
    assert bptt("verify", f"{USERS}:wrong", "--cases", 5)[0] == 1


def test_a_file_may_use_dataclasses_annotations_and_late_imports(bptt, tmp_path):
    (tmp_path / "helper.py").write_text("def same(x):\n    return x * 1.5\n")
    (tmp_path / "late.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from bptt_verify import Pair\n"
        "@dataclass\n"
        "class Kept:\n"
        "    k: int\n"
        "def forward(i):\n"
        "    from helper import same\n"
        "    return {'y': same(i['x'])}, None\n"
        "pair = Pair(name='late', inputs={'x': 'D'}, outputs={'y': 'D'},\n"
        "            forward=forward, twin=lambda i: {'y': i['x'] * 1.5})\n"
    )
    assert bptt("verify", "late.py", "--cases", 5, "--json", "r.json")[0] == 0
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_defect_of_ours_is_no_verdict(bptt, monkeypatch):
    monkeypatch.setattr("bptt_verify.render.table", lambda *_: 1 / 0)
    code, _, err = bptt("verify", "update", "--cases", 2)
    assert code == 70
    assert "ZeroDivisionError" in err


def test_inconclusive_is_exit_3(bptt, tmp_path):
    (tmp_path / "blind.py").write_text(
        "from bptt_verify import Pair\n"
        "f = lambda i: {'y': (i['x'] + 1e20) - 1e20}\n"
        "pair = Pair(name='blind', inputs={'x': 'D'}, outputs={'y': 'D'},\n"
        "            forward=lambda i: (f(i), None), twin=f)\n"
    )
    code, out, _ = bptt("verify", "blind.py", "--cases", 5)
    assert code == 3
    assert "INCONCLUSIVE" in out
    assert "  y: every band was wider than 1 % of its entry\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "lstn"], "expected a pair (rnn, rnn-index"),
        (["verify", "nowhere.py"], "nowhere.py: no such file"),
        (["verify", f"{USERS}:middling"], "no Pair 'middling'; it defines right, wrong"),
        (["verify", __file__], "defines no Pair"),
        (["verify", "broken.py"], "broken.py: SyntaxError"),
        (["verify", "exits.py"], "exits.py: SystemExit: 0"),
        (["verify", "twin.py"], "twin: raised ZeroDivisionError: division by zero (twin.py:3)"),
        (["verify", "leaves.py"], "twin: raised SystemExit: 4 (leaves.py:4)"),
        (["verify", "stops.py"], "stops.py: ZeroDivisionError: division by zero (stops.py:3)"),
        (["verify", "rnn", "--cases", "0"], "--cases: expected at least 1, got 0"),
        (["verify", "rnn", "--cases", "many"], "expected a whole number, got 'many'"),
        (["verify", "rnn", "--cases", "1.5"], "expected a whole number, got '1.5'"),
        (["verify", "rnn", "--case", "T=2 T=3"], "case: T: expected one value, got a second"),
        (["verify", "rnn", "--case", "T=0"], "T: expected a whole number, at least 1, got '0'"),
        (["verify", "rnn", "--case", "T='1"], "case: No closing quotation"),
        (["verify", "rnn", "--seed", "-1"], "--seed: expected at least 0, got -1"),
        (["verify", "rnn", "--dtype", "int8"], "int8"),
        (["verify", "rnn", "--regression", __file__], "cannot write in"),
        (["verify", "rnn", "--json", "x" * 300], "File name too long"),
        (["verify", "rnn", "--json", "/dev/null"], "cannot write /dev/null: it is there, and no"),
        (["verify", "rnn", "--json", "/"], "cannot write /: expected the name of a file"),
        (["verify", "rnn", "--json", ".."], "cannot write ..: it is a folder"),
        (["verify", "rnn", "--json", "mine.py"], "cannot write mine.py: expected a name that does"),
        (
            ["verify", "rnn", "--case", "T=9999999999 H=9"],
            "case: expected arrays that fit in memory",
        ),
        (["verify", "rnn", "--workers", "0"], "--workers: expected 1 to"),
        (["verify", "rnn", "--workers", "100000"], "--workers: expected 1 to"),
        (["verify", "rnn", "--case", "Q=1"], "case: expected one of T, B"),
        (["verify", "rnn", "--case", "T=1", "--json", "no/where.json"], "cannot write no/where"),
        (["verify", "--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
        (["gradients", "--plot", "x.gif"], "--plot: expected a name ending in .svg or .png"),
        (["gradients", "--steps", "0"], "--steps: expected at least 1, got 0"),
        (["gradients", "--scale", "nan"], "--scale: expected a finite number"),
        (["gradients", "--plot", "no/where.png"], "cannot write no/where.png"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(bptt, tmp_path, arguments, message):
    (tmp_path / "broken.py").write_text("def\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "twin.py").write_text(
        "from bptt_verify import Pair\n"
        "pair = Pair(name='t', inputs={'x': 'D'}, outputs={'y': 'D'},\n"
        "            forward=lambda i: ({'y': i['x']}, None), twin=lambda i: 1 / 0)\n"
    )
    (tmp_path / "leaves.py").write_text(
        "import sys\nfrom bptt_verify import Pair\n"
        "pair = Pair(name='t', inputs={'x': 'D'}, outputs={'y': 'D'}, forward=abs,\n"
        "            twin=lambda i: sys.exit(4))\n"
    )
    (tmp_path / "stops.py").write_text("from bptt_verify import Pair\n\n1 / 0\n")
    code, _, err = bptt(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "command",
    [
        *([], ["verify"], ["mutants"], ["train"], ["gradients"]),
        *(["vectors", "write"], ["vectors", "check"]),
    ],
)
def test_help_has_an_example(bptt, command):
    code, out, _ = bptt(*command, "--help")
    assert code == 0
    assert "Usage: bptt" in out
    assert not command or f"bptt {' '.join(command)} " in out.split("Example")[1]


def test_gradients_are_drawn(bptt, tmp_path):
    code, out, _ = bptt("gradients", "--steps", 30, "--plot", "g.svg", "--json", "g.json")
    chart = {mark for line in out.splitlines() if "│" in line for mark in line}
    assert chart >= {*MARKS.values()}  # each is seen somewhere
    assert code == 0
    assert "sigmoid" in out
    assert "‖δ_1‖" in out
    assert (tmp_path / "g.svg").read_text(encoding="utf-8").startswith("<?xml")
    norms = json.loads((tmp_path / "g.json").read_text())
    assert norms["sigmoid"][0] < 1e-6 * norms["sigmoid"][-1]
    assert bptt("gradients", "--steps", 30, "--plot", "g.png")[0] == 0
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.json", "g.png", "g.svg"]


def test_an_exploding_error_is_shown_as_such(bptt, tmp_path):
    code, out, _ = bptt("gradients", "--steps", 3000, "--scale", 3, "--json", "g.json")
    assert code == 0
    assert "‖δ_1‖ = inf" in out
    json.loads((tmp_path / "g.json").read_text(), parse_constant=pytest.fail)


def test_a_bare_interpreter_runs_the_installed_command():
    ended = subprocess.run(
        ["bptt", "verify", "update", "--cases", "2"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.strip()) == (0, "")
    assert "(13)" in ended.stdout


linux = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")


def nobody(reader):
    """A file descriptor to which nothing can be written."""
    if reader == "full":
        return os.open("/dev/full", os.O_WRONLY)
    read, out = os.pipe()
    os.close(read)
    return out


def started(*arguments, stdout, stderr=subprocess.PIPE, **environment):
    return subprocess.run(
        ["bptt", *map(str, arguments)],
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_what_the_terminal_cannot_show_is_a_question_mark():
    ended = started(
        "verify", f"{USERS}:wrong", "--cases", 5, stdout=subprocess.PIPE, PYTHONIOENCODING="ascii"
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "again " in ended.stdout
    assert "?" in ended.stdout


def test_what_the_user_wants_of_such_letters_is_done():
    ended = started(
        *("gradients", "--steps", 5),
        stdout=subprocess.PIPE,
        PYTHONIOENCODING="ascii:backslashreplace",
    )
    assert "\\u03b4_t" in ended.stdout


@linux
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["gradients", "--steps", 5], 74),
        (["--help"], 74),
        (["verify", "nosuch"], 2),
        (["verify", "--nonsense"], 2),
    ],
)
@pytest.mark.parametrize("reader", ["gone", "full"])
def test_with_nobody_to_read_errors_either_the_exit_code_says_all(arguments, code, reader):
    out = nobody(reader)
    ended = started(*arguments, stdout=out, stderr=out)
    os.close(out)
    assert ended.returncode == code


def test_what_cannot_be_written_does_not_take_the_report_along(bptt, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bptt_verify.cli.console.json.dumps", full)
    code, out, err = bptt("verify", "update", "--cases", 2, "--json", "report.json")
    assert code == 2
    assert "PASS" in out
    assert "cannot write report.json: No space left" in err


@linux
@pytest.mark.parametrize("reader", ["gone", "full"])
def test_nobody_to_print_to_is_no_verdict_but_files_are_written(tmp_path, reader):
    out = nobody(reader)
    ended = started(
        *("verify", f"{USERS}:wrong", "--cases", 5, "--json", tmp_path / "report.json"),
        *("--regression", tmp_path),
        stdout=out,
    )
    os.close(out)
    assert ended.returncode == 74
    assert re.fullmatch(r"bptt: cannot print: [A-Z][a-z ]+\n", ended.stderr)
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "fail"
    assert list(tmp_path.glob("test_*.py"))


def test_the_name_of_a_pair_is_no_markup(tmp_path):
    (tmp_path / "named.py").write_text(
        "from bptt_verify import Pair\n"
        "pair = Pair(name='t[/x]', inputs={'x': 'D'}, outputs={'y': 'D'}, options={'[/o]': [1]},\n"
        "            forward=lambda i, **_: ({'y': i['x']}, i['x']),\n"
        "            backward=lambda x, d: {'x': x},\n"
        "            twin=lambda i, **_: {'y': i['x']})\n"
    )
    target = tmp_path / "named.py"
    ended = started(  # as on a terminal, where there is a bar too
        "verify", target, "--cases", 2, stdout=subprocess.PIPE, FORCE_COLOR="1", NO_COLOR="1"
    )
    assert ended.returncode == 1, ended.stderr
    assert "t[/x]" in ended.stdout
    assert "[/o]=1" in ended.stdout
