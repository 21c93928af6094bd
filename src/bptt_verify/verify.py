"""The main job: draw cases, judge them, shrink the first failure, look at it closer, report."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from bptt_verify import draw, subject
from bptt_verify import isolate as isolated
from bptt_verify.compare import errors
from bptt_verify.definition import Around, Entry, vote
from bptt_verify.draw import Case
from bptt_verify.guard import LIMIT, LONGEST, Guard
from bptt_verify.judge import STEPS, XLA, Failed, Judge
from bptt_verify.localise import diagnose
from bptt_verify.oracle import Oracle
from bptt_verify.pair import Pair
from bptt_verify.primitives import SAMPLES
from bptt_verify.report import Failure, Report, versions
from bptt_verify.tally import Tally
from bptt_verify.tolerance import DTYPES, MULTIPLIER

AT_ONCE = 32768
"""Cases drawn before they are judged together."""

EACH_PROPERTY = 3
"""Cases in which each property is checked, if so many say something about it."""

AT_A_TIME = 3
"""Properties checked in one case: they take turns, so that each meets different cases."""

LONG = 64
"""Steps of the one long case, which is held against the twin step by step."""

SHRINKING = 60.0
"""Seconds after which the smallest case found so far has to do."""


def verify(
    pair: Pair,
    cases: int = 200,
    seed: int = 0,
    dtype: DTypeLike = "float64",
    *,
    case: str | None = None,
    progress: Callable[[int], None] | None = None,
    limit: float = LIMIT,
    isolate: bool = False,
    explain: bool = True,
) -> Report:
    """Hold a pair's subject against its twin on random cases.

    Args:
        pair: what to verify.
        cases: how many cases to draw, at least 1.
        seed: the same seed draws the same cases.
        dtype: the dtype under test: float64, float32, float16 or bfloat16.
        case: one case, as a failure prints it, in place of random ones.
        progress: called with the number of cases done so far.
        limit: seconds that one call of the subject, forward and backward, may take.
        isolate: run the subject in a process of its own, so that a crash, or code that cannot be
            interrupted, ends in the report too. Some 16 ms a case.
        explain: shrink the first failure and look at it closer; without, only say what failed.

    Raises `TypeError` or `ValueError` for a wrong argument, for a `case` that does not fit the
    pair, and for a twin that raises or returns what the pair does not declare. Whatever the
    subject does ends up in the report; without `isolate`, only as long as it returns to Python.
    """
    _check_pair(pair)
    (report,) = verify_each(
        pair,
        [dtype],
        cases,
        seed,
        case=case,
        progress=progress,
        limit=limit,
        isolate=isolate,
        explain=explain,
    )
    return report


def verify_each(
    pair: Pair, dtypes: Sequence[DTypeLike], cases: int, seed: int, **options: Any
) -> list[Report]:
    """`verify` in one dtype after another, of which all but the first find the twin traced."""
    oracle = Oracle(pair, MULTIPLIER)
    return [_verify(oracle, cases, seed, dtype, **options) for dtype in dtypes]


def _verify(
    oracle: Oracle,
    cases: int,
    seed: int,
    dtype: DTypeLike,
    *,
    case: str | None = None,
    progress: Callable[[int], None] | None = None,
    limit: float = LIMIT,
    isolate: bool = False,
    explain: bool = True,
) -> Report:
    pair = oracle.pair
    kind = _check(cases, seed, dtype, limit, isolate)
    start = time.perf_counter()
    long = _long_case(pair) if cases > 1 and case is None else None
    with _guarded(limit, isolate) as guard:
        run = partial(isolated.run if isolate else subject.run, guard=guard)
        judge, tally = Judge(pair, kind, run, oracle), Tally(pair, progress)
        if case is None:
            _judge_random(judge, tally, cases - (long is not None), seed)
            if tally.failed is None:
                _judge_closer(judge, tally, long)
        else:
            chosen = draw.parse(pair, case)
            _check_memory(pair, chosen)
            tally.add(chosen, judge.one(chosen, judge.properties))
            if tally.failed is None:
                tally.record(chosen, judge.steps(chosen))
        for chosen in filter(None, (tally.largest, tally.failed and tally.failed.case)):
            tally.record(chosen, judge.twin_by_xla(chosen))
        failed = tally.failed
        shrinkable = explain and case is None
        if failed is not None and shrinkable and failed.row not in (subject.TIME, STEPS, XLA):
            failed = _shrink(judge, failed)
        around = None if isolate else guard.alone
        failure = _failure(judge, failed, around, explain, limit) if failed else None
    rows = tally.rows(judge.oracle.unread_taps)
    return Report(
        pair=pair.name,
        dtype=str(kind),
        seed=seed,
        cases=tally.judged,
        redrawn=tally.redrawn,
        seconds=time.perf_counter() - start,
        rows=rows,
        silent=tuple(name for name in judge.properties if name not in {row.name for row in rows}),
        failed_at=tally.failed_at,
        first_failure=failure,
        versions=versions(),
        spread=tally.spread,
    )


def _judge_random(judge: Judge, tally: Tally, cases: int, seed: int) -> None:
    """Draw so many cases and judge them, many at once."""
    drawn = draw.several(judge.pair, cases, seed)
    turns = [name for _ in range(EACH_PROPERTY) for name in judge.properties]
    while not tally.over_time and (waiting := list(islice(drawn, AT_ONCE))):
        passed = []
        for case, found in judge.all(waiting):
            tally.add(case, found)
            if found is not None and all(c.ok for c in found.values()):
                passed.append((case, tally.seen))
        random.Random(seed).shuffle(passed)  # those judged side by side are alike
        while turns and passed and not tally.over_time:
            dealt = []
            while turns and passed:
                now = list(dict.fromkeys(turns))[:AT_A_TIME]
                for name in now:
                    turns.remove(name)
                dealt.append((passed.pop(), now))
            said = judge.check([(case, now) for (case, _), now in dealt])
            for ((case, at), now), rows in zip(dealt, said, strict=True):
                # those about which the case says nothing come again
                turns += [name for name in now if name not in rows]
                tally.record(case, rows, at)


def _long_case(pair: Pair) -> Case | None:
    """A plain case of many steps, and else small; None for a pair without an axis of time."""
    if pair.time not in pair.letters():
        return None
    plain = draw.parse(pair, "")
    return replace(plain, sizes={k: LONG if k == pair.time else 3 for k in plain.sizes})


def _judge_closer(judge: Judge, tally: Tally, long: Case | None) -> None:
    """When all is well: a long case as well; it and the largest one, each step by itself."""
    largest = tally.largest
    if long is not None:
        tally.add(long, judge.one(long))
    for case in filter(None, (largest, long)):
        tally.record(case, judge.steps(case))


def _shrink(judge: Judge, failed: Failed) -> Failed:
    """A plainer case in which the same row fails: until no step makes it plainer, or time is up."""
    end = time.monotonic() + SHRINKING
    plainer = draw.plainer(judge.pair, failed.case)
    while time.monotonic() < end and (case := next(plainer, None)):
        found = judge.one(case, (failed.row,)) or {}
        if failed.row in found and not found[failed.row].ok:
            failed = Failed(case, failed.row, found[failed.row].problem)
            plainer = draw.plainer(judge.pair, case)
    return failed


def _failure(
    judge: Judge, failed: Failed, around: Around | None, explain: bool, limit: float
) -> Failure:
    """What can be said of the case: where it goes wrong, and who is wrong."""
    isolate = around is None
    pair, dtype, case = judge.pair, judge.dtype, str(failed.case)
    if pair.origin:
        again = f"bptt verify {quote(pair.origin)} --dtype {dtype} --case {quote(case)}"
        again += " --isolate" * isolate + f" --limit {limit:g}" * (limit != LIMIT)
    else:
        alone = ", isolate=True" * isolate + f", limit={limit:g}" * (limit != LIMIT)
        again = f"verify(pair, dtype={str(dtype)!r}, case={case!r}{alone})"
    diagnosis, alone, votes = None, "", ""
    if explain and failed.row in pair.quantities():
        diagnosis = diagnose(judge, failed)
        alone, votes = _votes(judge, failed, around)
    return Failure(failed.row, failed.problem, case, again, diagnosis, alone, votes)


def _votes(judge: Judge, failed: Failed, around: Around | None) -> tuple[str, str]:
    """Who stands alone at the worst entry of the row."""
    drawn, quantity = judge.drawn(failed.case), failed.row
    ran = judge.run(judge.pair, failed.case, drawn, judge.dtype)
    got = ran.arrays.get(quantity)
    expected = judge.oracle.answer(failed.case, drawn, judge.dtype).quantities[quantity]
    if not isinstance(got, np.ndarray | np.generic) or got.shape != expected.value.shape:
        return "", ""
    error = errors(np.asarray(got), expected, judge.dtype)
    at = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    entry = Entry(judge.oracle, failed.case, drawn, quantity, at)
    found = vote(entry, judge.dtype, float(np.asarray(got)[at]), around=around)
    return found.who, found.text


@contextmanager
def _guarded(limit: float, isolate: bool) -> Iterator[Guard]:
    # the subject may draw from the global ones or seed them: NumPy's legacy state is meant
    numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with Guard(limit, watch=not isolate) as guard, np.errstate(all="ignore"):
            yield guard
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])  # noqa: NPY002


COPIES = 3
"""Arrays on the way, for each that comes in or out: measured, one of 3000 x 3000."""


def _check_memory(pair: Pair, case: Case) -> None:
    """Refuse a case whose arrays, in float64 and with their samples, this machine cannot hold."""
    needed = COPIES * 8 * (SAMPLES + 1) * draw.entries(pair, case.sizes)
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"case: expected arrays that fit in memory, of {there / 1e9:.0f} GB; "
            f"got some that need {needed / 1e9:.3g} GB"
        )


def _check_pair(pair: Pair) -> None:
    if not isinstance(pair, Pair):
        raise TypeError(f"pair: expected a Pair, got {type(pair).__name__}")


def _check(cases: int, seed: int, dtype: DTypeLike, limit: float, isolate: bool) -> np.dtype[Any]:
    for name, value, low in (("cases", cases, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if value < low:
            raise ValueError(f"{name}: expected at least {low}, got {value}")
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"limit: expected a number, got {type(limit).__name__}")
    if not 0 < limit <= LONGEST:
        raise ValueError(f"limit: expected seconds, above 0 and at most {LONGEST:g}, got {limit}")
    if isolate and not hasattr(os, "fork"):
        raise ValueError("isolate: expected a system that can fork, got one that cannot")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or str(kind) not in DTYPES:
        raise ValueError(f"dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    return kind
