"""Backward passes as different people write them, each with one mistake: caught, gone once mended.

A file says what its mistake is in `FIX` (the wrong text and the right one), `STEP` (the quantity
where it starts), `TERM` (words of a good diagnosis) and `LINE` (of the twin, whose derivative is
the wrong one, if it is a line).
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
def test_the_report_names_where_it_starts_and_why(path):
    (pair,) = load(str(path))
    said = runpy.run_path(str(path))
    report = verify(pair, cases=CASES)
    assert report.verdict == "fail"
    assert said["STEP"] in failing(report)
    assert not {*pair.outputs, *pair.probes} & failing(report)
    first = report.first_failure
    assert first.alone in ("subject", "undecided")
    starts = {fault.name for fault in first.diagnosis.faults if fault.by_itself is not False}
    assert said["STEP"] in starts
    if pair.taps:  # then effects are told from causes
        assert len(starts) <= 2
    (likely, *_) = first.diagnosis.likely
    assert said["TERM"] in likely
    assert said["LINE"] in likely


@every_user
def test_it_is_the_only_mistake(path, tmp_path):
    wrong, right = runpy.run_path(str(path))["FIX"]
    assert code(path).count(wrong) == 1
    mended = tmp_path / path.name
    mended.write_text(code(path).replace(wrong, right), encoding="utf-8")
    (pair,) = load(str(mended))
    report = verify(pair, cases=CASES, dtype="float32")
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]


@every_user
def test_the_line_is_in_the_file(path):
    assert runpy.run_path(str(path))["LINE"] in code(path)


def test_there_are_users():
    assert len(USERS) >= 10
