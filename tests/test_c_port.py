"""The port of the LSTM to C: it compiles without a warning, passes, and a wrong one is caught."""

import math
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from bptt_verify import cli
from bptt_verify.pairs import REGISTRY
from bptt_verify.vectors import check, write
from bptt_verify.vectors.files import packed, read_tensors

SOURCES = Path(__file__).parents[1] / "examples" / "c"
FILE = "lstm-float32.safetensors"
FAULTS = {
    "forget-derivative": {"delta", "dx", "dh0", "dc0", "dU", "dW", "db"},
    "tanh-derivative": {"delta", "dx", "dh0", "dc0", "dU", "dW", "db"},
    "dropped-carry": {"delta", "dx", "dh0", "dc0", "dU", "dW", "db"},
    "transposed": {"delta", "dx", "dh0", "dc0", "dU", "dW", "db"},
    "state-after": {"dW"},
    "bias-assigned": {"db"},
}


def run(*command):
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both programs, built by the Makefile, which turns warnings into errors."""
    assert shutil.which("gcc"), "this test needs gcc"
    assert shutil.which("make"), "this test needs make"
    folder = tmp_path_factory.mktemp("build")
    for path in (*SOURCES.glob("*.[ch]"), SOURCES / "Makefile"):
        shutil.copy(path, folder)
    ended = run("make", "-C", folder, "lstm", "lstm-sanitized")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    for flag in ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2"):
        assert ended.stdout.count(f" {flag} ") == 2
    return folder


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """A set of vectors, which no test changes."""
    folder = tmp_path_factory.mktemp("vectors") / "golden"
    write(folder, [REGISTRY["lstm"]], ["float32"], random=3)
    return folder


def failed_rows(report):
    return {row.name for row in report.rows if row.verdict == "fail"}


def test_the_port_passes_and_so_does_what_it_writes(built, golden, tmp_path):
    output = tmp_path / "mine.safetensors"
    ended = run(built / "lstm", golden, "--out", output)
    assert (ended.returncode, ended.stderr) == (0, "")
    (report,) = check(golden, output).reports
    assert report.ok
    assert f"PASS  {report.cases} cases" in ended.stdout
    rows = dict(re.findall(r"^(\w+) +(\S+)  pass$", ended.stdout, re.MULTILINE))
    quantities = [row for row in report.rows if row.name in REGISTRY["lstm"].quantities()]
    assert list(rows) == [row.name for row in quantities]
    for row in quantities:  # in the same units, to the digits printed
        assert f"{row.error:.4g}" == rows[row.name]
        assert 0 < row.error < 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_the_port_itself_and_by_the_check(built, golden, tmp_path, fault):
    output = tmp_path / "mine.safetensors"
    ended = run(built / "lstm", golden, "--fault", fault, "--out", output)
    assert (ended.returncode, ended.stderr) == (1, "")
    named = set(re.findall(r"^(\w+) .* FAIL  worst in \S+, entry \d+$", ended.stdout, re.MULTILINE))
    (report,) = check(golden, output).reports
    assert named == failed_rows(report) == FAULTS[fault]
    with pytest.raises(SystemExit) as checked:
        cli.main(["vectors", "check", str(golden), str(output)])
    assert checked.value.code == 1


def test_the_sanitizers_have_nothing_to_say(built, golden, tmp_path):
    output = tmp_path / "mine.safetensors"
    plain = run(built / "lstm", golden)
    ended = run(built / "lstm-sanitized", golden, "--out", output)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == plain.stdout
    assert run(built / "lstm-sanitized", golden, "--fault", "transposed").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "lstm: usage: lstm SET [--out FILE] [--fault NAME]\n"),
        (["SET", "SET"], "lstm: usage: lstm SET [--out FILE] [--fault NAME]\n"),
        (["SET", "--fault"], "lstm: usage: lstm SET [--out FILE] [--fault NAME]\n"),
        (["SET", "--fault", "none"], "lstm: --fault: expected forget-derivative, "),
        (["SET", "--out", "/no/where"], "lstm: /no/where: cannot be written\n"),
        (["/nowhere"], f"lstm: /nowhere/{FILE}: cannot be opened\n"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(built, golden, arguments, message):
    words = [str(golden) if word == "SET" else word for word in arguments]
    ended = run(built / "lstm-sanitized", *words)
    assert ended.returncode == 2
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1


# --- damaged and hostile files, read by the program whose every access is watched


def with_header(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def tensor(dtype="F32", shape="[1]", offsets="[0,4]", name="x"):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def one(**fields):
    return with_header(f"{{{tensor(**fields)}}}".encode(), b"1234")


HUGE = 2**63
HOSTILE = {
    b"": "too short",
    b"1234567": "too short",
    struct.pack("<Q", 100): "shorter than its header says",
    struct.pack("<Q", HUGE) + b"{}": "shorter than its header says",
    struct.pack("<Q", 2**64 - 8) + b"{}": "shorter than its header says",
    with_header(b""): "not the JSON",
    with_header(b"[]"): "not the JSON",
    with_header(b"{}"): "is of another format than 1",
    with_header(b"{}", b"rest"): "bytes that belong to no tensor",
    with_header(b"{} {}"): "more in the header",
    with_header(b'{"'): "ends within a name",
    with_header(b'{"a'): "ends within a name",
    with_header(b'{"a\\'): "a character that is not read here",
    with_header(b'{"a\\u0041":1}'): "a character that is not read here",
    with_header(b'{"a\0":1}'): "a character that is not read here",
    with_header(b'{"a":' + b"[" * 100_000): "not the JSON",
    with_header(b'{"a":{}}'): "not the JSON",
    with_header(b'{"a":{"dtype":"F32","dtype":"F32"}}'): "not described as it should be",
    with_header(b'{"a":{"dtype":"F32","shape":[1]}}'): "lacks its dtype, shape or place",
    with_header(b'{"__metadata__":{"bptt-vectors":"2"}}'): "is of another format than 1",
    with_header(b'{"__metadata__":{"bptt-vectors":"1"}}'): "has no case of lstm/float32/",
    with_header(b'{"__metadata__":{"bptt-vectors":1}}'): "not the JSON",
    with_header(b'{"__metadata__":{"a":"'): "ends within a name",
    one(dtype="F4"): "a dtype that is not read here",
    one(dtype="F" * 100): "not described as it should be",
    one(shape="[2]"): "more or fewer bytes than its shape says",
    one(shape="[-1]"): "lacks a whole number",
    one(shape="[1.0]"): "not the JSON",
    one(shape=f"[{HUGE},{HUGE}]"): "a tensor is too large",
    one(shape=f"[{HUGE * 2}]"): "a number in the header is too large",
    one(shape=f"[0,{HUGE},{HUGE}]"): "",
    one(shape="[1,1,1,1,1,1,1,1,1]"): "a list in the header is too long",
    one(offsets="[4,0]"): "lacks its dtype, shape or place",
    one(offsets="[4,8]"): "is truncated, or its tensors overlap or leave gaps",
    one(offsets="[0]"): "not described as it should be",
    one(offsets="[0,4,8]"): "a list in the header is too long",
    one(offsets=f"[{HUGE},{HUGE + 4}]"): "is truncated, or its tensors overlap or leave gaps",
    with_header(f"{{{tensor()},{tensor(offsets='[4,8]')}}}".encode(), b"12345678"): "of one name",
    with_header(f"{{{tensor()},{tensor(name='y')}}}".encode(), b"1234"): "tensors overlap",
}


def refused(built, folder, content):
    """The one line of complaint about a file."""
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_bytes(content)
    ended = run(built / "lstm-sanitized", folder)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert ended.stderr.startswith("lstm: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_one_line_and_exit_2(built, tmp_path, content):
    assert HOSTILE[content] in refused(built, tmp_path / "set", content)


def test_a_folder_in_place_of_the_file(built, tmp_path):
    (tmp_path / FILE).mkdir()
    ended = run(built / "lstm-sanitized", tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_truncated_anywhere_is_one_line_and_exit_2(built, golden, tmp_path):
    content = (golden / FILE).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    last = len(content[:header].rstrip()) - 1  # spaces may follow
    for length in (3, 8, 9, header // 2, last, header, header + 1, len(content) - 1):
        said = refused(built, tmp_path / "set", content[:length])
        assert ("is truncated" in said) == (length >= header)
        # and where the header owns to its new length
        if 8 < length < header:
            refused(built, tmp_path / "set", with_header(content[8:length], content[header:]))


def test_bytes_changed_at_random_never_do_harm(built, golden, tmp_path):
    content = (golden / FILE).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    rng = random.Random(0)
    (tmp_path / "set").mkdir()
    for _ in range(40):
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(header)] = rng.choice(b'"\\{}[],:0179xU ')
        (tmp_path / "set" / FILE).write_bytes(changed)
        ended = run(built / "lstm-sanitized", tmp_path / "set")
        assert ended.returncode in (0, 1, 2)
        assert ended.stderr.count("\n") == (ended.returncode == 2), ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input/x", None, None),
        ("input/W", None, "no such tensor in the set"),
        ("expected/dW", None, "no such tensor in the set"),
        ("band/db", None, "no such tensor in the set"),
        ("input/W", lambda a: a[:-1], "another shape than expected"),
        ("input/h0", lambda a: a[:, :-1], "another shape than expected"),
        ("input/x", lambda a: a[0], "are not as expected"),
        ("input/U", lambda a: a.astype("f8"), "another dtype or another number of axes"),
        ("option/forget_offset", lambda a: a[None], "another dtype or another number of axes"),
    ],
)
def test_a_set_that_lacks_something_is_refused(built, golden, tmp_path, name, value, message):
    arrays = read_tensors(golden / FILE)
    full = f"lstm/float32/square-sizes/{name}"
    changed = arrays.pop(full)
    if value:
        arrays[full] = value(changed)
    if message:
        assert message in refused(built, tmp_path / "set", packed(arrays))
    else:  # the case is not there at all, and the count says so
        cases = sum(k.endswith("/input/x") for k in arrays)
        (tmp_path / FILE).write_bytes(packed(arrays))
        assert f"PASS  {cases} cases" in run(built / "lstm-sanitized", tmp_path).stdout


@pytest.mark.parametrize(
    ("name", "number", "code", "said"),
    [
        ("input/x", math.nan, 1, "^db +inf  FAIL  worst in square-sizes, entry 0$"),
        ("band/db", 0.0, 1, "^db +inf  FAIL  worst in square-sizes, entry 2$"),
        ("expected/db", 1e9, 1, "^db +[0-9.e+]+  FAIL  worst in square-sizes, entry 2$"),
        ("expected/db", math.nan, 2, "^lstm: .*expected/db: expected finite values, and bands"),
        ("band/db", math.nan, 2, "^lstm: .*expected/db: expected finite values, and bands"),
        ("band/db", math.inf, 2, "^lstm: .*expected/db: expected finite values, and bands"),
        ("band/db", -1.0, 2, "^lstm: .*expected/db: expected finite values, and bands"),
    ],
)
def test_numbers_are_judged_as_documented(built, golden, tmp_path, name, number, code, said):
    arrays = {k: a.copy() for k, a in read_tensors(golden / FILE).items()}
    arrays[f"lstm/float32/square-sizes/{name}"].flat[2] = number
    (tmp_path / FILE).write_bytes(packed(arrays))
    ended = run(built / "lstm-sanitized", tmp_path)
    assert ended.returncode == code
    assert re.search(said, ended.stderr if code == 2 else ended.stdout, re.MULTILINE)


def test_every_equation_of_the_layer_stands_above_its_line():
    numbers = set(re.findall(r"/\* \((\d+)\)", (SOURCES / "lstm.c").read_text("utf-8")))
    assert numbers == {str(n) for n in (*range(1, 7), *range(8, 15), 17)}
