"""Backward passes as different people write them, each with one mistake: caught, gone once mended.

A file says what its mistake is in `FIX` (the wrong text and the right one), `STEP` (the quantity
where it starts), `TERM` (words of a good diagnosis) and `LINE` (of the twin, whose derivative is
the wrong one).
"""

import runpy
from pathlib import Path

import pytest

from bptt_verify import verify
from bptt_verify.load import load

CASES = 40

USERS = sorted((Path(__file__).parent / "users").glob("*.py"))
every_user = pytest.mark.parametrize("path", USERS, ids=lambda path: path.stem)


def code(path):
    """What the user wrote, without the part that says what is wrong with it."""
    written, found, _ = path.read_text(encoding="utf-8").partition("\nFIX = ")
    assert found
    return written


def failing(report):
    return {row.name for row in report.rows if row.verdict == "fail"}


@every_user
def test_the_mistake_is_caught_where_it_starts(path):
    (pair,) = load(str(path))
    report = verify(pair, cases=CASES)
    assert report.verdict == "fail"
    assert runpy.run_path(str(path))["STEP"] in failing(report)
    assert not {*pair.outputs, *pair.probes} & failing(report)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_user
def test_it_is_the_only_mistake(path, dtype, tmp_path):
    wrong, right = runpy.run_path(str(path))["FIX"]
    assert code(path).count(wrong) == 1
    mended = tmp_path / path.name
    mended.write_text(code(path).replace(wrong, right), encoding="utf-8")
    (pair,) = load(str(mended))
    report = verify(pair, cases=CASES, dtype=dtype)
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]


@every_user
def test_the_line_is_in_the_file(path):
    assert runpy.run_path(str(path))["LINE"] in code(path)


def test_there_are_users():
    assert len(USERS) >= 10
