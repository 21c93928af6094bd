"""A failing case becomes a test file that fails until the mistake is mended."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bptt_verify import cli, regression, verify
from bptt_verify.load import load
from bptt_verify.pairs import REGISTRY

USERS = Path(__file__).with_name("users_pair.py").read_text(encoding="utf-8")


@pytest.fixture
def cells(tmp_path):
    """A user's project: cells.py with one right pair and one wrong, and a folder for tests."""
    (tmp_path / "tests").mkdir()
    path = tmp_path / "cells.py"
    path.write_text(USERS, encoding="utf-8")
    return path


@pytest.fixture
def report():
    """A report of a failure in a built-in pair, with a message as odd as a subject can make it."""

    def odd(cache, cotangents):
        raise ValueError('"""\n\0\udc80\x0c # δ')

    return verify(replace(REGISTRY["rnn"], backward=odd), cases=2, dtype="float32")


def bptt(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(a) for a in arguments])
    return ended.value.code


def pytest_on(folder):
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_test_fails_before_the_fix_and_passes_after(cells, capsys, monkeypatch):
    monkeypatch.chdir(cells.parent)
    assert bptt("verify", "cells.py", "--cases", 9, "--regression", "tests") == 1
    written = [line for line in capsys.readouterr().out.splitlines() if "regression test" in line]
    names = [f"test_regression_wrong_dx_{dtype}.py" for dtype in ("float32", "float64")]
    assert written == [f"regression test: {Path('tests', name)}" for name in names]
    assert sorted(os.listdir("tests")) == names

    before = pytest_on("tests")
    assert "2 failed" in before.stdout
    assert "AssertionError: wrong: fail" in before.stdout
    mended = USERS.replace("backward=forgets_tanh", "backward=backward")
    assert mended != USERS
    cells.write_text(mended, encoding="utf-8")
    after = pytest_on("tests")
    assert (after.returncode, after.stderr) == (0, "")
    assert "2 passed" in after.stdout


def test_it_says_what_was_found(cells):
    (wrong,) = load(f"{cells}:wrong")
    report = verify(wrong, cases=3)
    path = regression.write(cells.parent / "tests", report, wrong.origin)
    text = path.read_text(encoding="utf-8")
    assert report.first_failure.problem in text
    assert shlex.join([report.first_failure.case]) in text
    assert "#   all that fail  dx, dw\n" in text
    assert "  numpy 2" in text
    assert "parent / '../cells.py'" in text
    assert str(cells.parent) not in text.replace(shlex.quote(wrong.origin), "")


def test_a_file_of_other_contents_is_never_overwritten(report, tmp_path):
    first = regression.write(tmp_path, report, "rnn")
    assert first.name == "test_regression_rnn_backward_float32.py"
    assert regression.write(tmp_path, report, "rnn") == first
    first.write_text("# mine now\n")
    second = regression.write(tmp_path, report, "rnn")
    assert second.name == "test_regression_rnn_backward_float32_2.py"
    assert regression.write(tmp_path, report, "rnn") == second
    with pytest.raises(FileExistsError, match="exists and says something else"):
        regression.write(first, report, "rnn")
    assert first.read_text() == "# mine now\n"
    third = regression.write(tmp_path / "test_third.py", report, "rnn")
    assert third.read_text(encoding="utf-8") == second.read_text(encoding="utf-8")
    assert len(os.listdir(tmp_path)) == 3


def test_a_built_in_pair_that_is_right_again_passes(report, tmp_path):
    regression.write(tmp_path, report, "rnn")
    after = pytest_on(tmp_path)
    assert "1 passed" in after.stdout, after.stdout + after.stderr


def test_what_cannot_be_written_is_one_clear_error(report, tmp_path):
    passed = verify(REGISTRY["update"], cases=3)
    with pytest.raises(ValueError, match="report: expected one with a first failure, got a pass"):
        regression.write(tmp_path, passed, "update")
    with pytest.raises(ValueError, match=r"target: expected file.py:name or one of rnn, .*'lstn'"):
        regression.write(tmp_path, report, "lstn")
    with pytest.raises(ValueError, match=r"path: expected a folder or a name ending in .py"):
        regression.write(tmp_path / "test.txt", report, "rnn")
    with pytest.raises(OSError, match="No such file"):
        regression.write(tmp_path / "no" / "where.py", report, "rnn")
    assert os.listdir(tmp_path) == []
