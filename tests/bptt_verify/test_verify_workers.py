"""A run divided among processes: nothing is lost, whatever becomes of a share."""

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from bptt_verify import cli, verify
from bptt_verify.children import deaf
from bptt_verify.pairs import REGISTRY
from bptt_verify.workers import merged, verify_in_processes, verify_side_by_side
from dense import PAIR, backward

WRONG = replace(PAIR, backward=lambda c, d: {**backward(c, d), "w": -backward(c, d)["w"]})
FILE = """
import sys
sys.path.insert(0, {folder!r})
from dataclasses import replace
from multiprocessing import parent_process
from dense import PAIR, backward

def sometimes(cache, d):
    if parent_process() is not None:
        {what}
    return backward(cache, d)

pair = replace(PAIR, backward=sometimes)
"""


def written(tmp_path, what):
    from pathlib import Path

    path = tmp_path / "mine.py"
    path.write_text(FILE.format(folder=str(Path(__file__).parent), what=what), encoding="utf-8")
    return path


def test_the_worst_of_each_row_and_all_cases_are_kept():
    one, two = verify(PAIR, 20, 0), verify(PAIR, 30, 1)
    both = merged([one, two], 0)
    assert both.cases == 50
    assert both.ok
    for row in both.rows:
        of = [r for report in (one, two) for r in report.rows if r.name == row.name]
        assert row.error == max(r.error for r in of)
        assert row.cases == sum(r.cases for r in of)


def test_one_share_that_fails_is_enough():
    both = merged([verify(PAIR, 10), verify(WRONG, 10, explain=False)], 0)
    assert both.verdict == "fail"
    assert both.first_failure.row == "dw"


def test_shares_that_had_to_give_up_too_much_do_not_pass_together():
    good = verify(PAIR, 10)
    bad = replace(
        good,
        cases=1,
        redrawn=30,
        rows=tuple(replace(r, verdict="inconclusive", note="given up") for r in good.rows),
    )
    assert merged([good, bad, bad], 0).verdict == "inconclusive"


def test_a_property_in_doubt_in_one_share_is_in_doubt_in_all():
    good = verify(PAIR, 20)
    doubted = tuple(
        replace(r, verdict="inconclusive", note="the twin is not so") if r.name == "strides" else r
        for r in good.rows
    )
    assert "strides" in {row.name for row in good.rows}
    for shares in ([good, replace(good, rows=doubted)], [replace(good, rows=doubted), good]):
        assert merged(shares, 0).verdict == "inconclusive"


def test_a_built_in_pair_passes_in_two_processes():
    pair = replace(REGISTRY["update"], origin="update")
    report = verify_in_processes(pair, 21, 0, "float64", 2)
    assert report.ok
    assert report.cases == 21


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("d = {'y': -d['y']}", 1, "FAIL"),  # wrong in the workers only: it stands
        ("import ctypes; ctypes.string_at(0)", 2, "a worker died; try --isolate"),
    ],
)
def test_what_happens_in_a_worker_counts(what, code, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", str(written(tmp_path, what)), *["--cases", "8", "--workers", "2"]])
    assert ended.value.code == code
    assert says in "".join(capsys.readouterr())


def test_pairs_side_by_side_give_the_reports_they_give_alone():
    pairs = [replace(REGISTRY[name], origin=name) for name in ("update", "readout")]
    done = []
    found = verify_side_by_side(pairs, ["float32", "float64"], 5, 3, 2, progress=done.append)
    assert done == [2, 4]
    alone = [verify(pair, 5, 3, kind) for pair in pairs for kind in ("float32", "float64")]
    assert [replace(r, seconds=0) for r in found] == [replace(r, seconds=0) for r in alone]


@pytest.mark.usefixtures("hearing")
def test_ctrl_c_as_workers_start_is_heard_by_this_process_alone():
    theirs = []

    def start(team):
        with deaf():
            theirs.append(team.submit(signal.raise_signal, signal.SIGINT))
            os.kill(os.getpid(), signal.SIGINT)  # the idle thread gets it
            time.sleep(0.1)
            theirs.append(None)

    threading.Thread(target=threading.Event().wait, daemon=True).start()

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as team:
        with pytest.raises(KeyboardInterrupt):
            start(team)
        assert len(theirs) == 2
        theirs[0].result()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
