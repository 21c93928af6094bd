"""The main job: draw cases, run subject and twin, compare, shrink, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from shlex import quote
from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import Flaky
from numpy.typing import DTypeLike

from bptt_verify import draw, local, subject
from bptt_verify.batch import Batches
from bptt_verify.compare import Comparison, compare, errors
from bptt_verify.definition import majority
from bptt_verify.draw import Case
from bptt_verify.localise import diagnose
from bptt_verify.oracle import Answer, Oracle
from bptt_verify.pair import Pair
from bptt_verify.report import Failure, Report, Row, Verdict, versions
from bptt_verify.tolerance import DTYPES, multiplier

XLA = "twin run by XLA"
STEPS = "each step by itself"

LONG = 64
"""Steps of the one long case, which is held against the twin step by step."""

AT_ONCE = 2048
"""Cases drawn before they are judged together."""

MOST_GIVEN_UP = 0.2
"""When more than this part of the cases had to be given up, nothing is said to pass."""


def verify(
    pair: Pair,
    cases: int = 200,
    seed: int = 0,
    dtype: DTypeLike = "float64",
    *,
    case: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Hold a pair's subject against its twin on random cases.

    Args:
        pair: what to verify.
        cases: how many cases to draw, at least 1.
        seed: the same seed draws the same cases.
        dtype: the dtype under test, float32 or float64.
        case: one case, as a failure prints it, in place of random ones.
        progress: called with the number of cases done so far.

    Raises `TypeError` or `ValueError` for a wrong argument, for a `case` that does not fit the
    pair, and for a twin that raises or returns what the pair does not declare. Whatever the
    subject does ends up in the report.
    """
    kind = _check(pair, cases, seed, dtype)
    oracle = Oracle(pair, multiplier(kind))
    tally = Tally(pair, progress)
    start = time.perf_counter()

    if case is None:
        batches, waiting = Batches(oracle, kind), list[Case]()

        def judge_waiting() -> None:
            for c, found in zip(waiting, judge_all(batches, waiting), strict=True):
                tally.add(c, found)
            waiting.clear()

        def wait(c: Case) -> None:
            waiting.append(c)
            if len(waiting) == AT_ONCE:
                judge_waiting()

        _draw(pair, cases, seed, wait, (Phase.generate,))
        judge_waiting()
    else:
        alone = draw.parse(pair, case)
        tally.add(alone, judge(oracle, alone, kind))
    failed = tally.failed
    if failed is None and tally.largest is not None and case is None:
        for chosen in (tally.largest, long_case(pair, tally.largest)):
            tally.record(_one_by_one(oracle, chosen, kind))
    for chosen in filter(None, (tally.largest, failed and failed.case)):
        if by_xla := _twin_by_xla(oracle, chosen):
            tally.record({XLA: by_xla})
    if failed is not None and case is None:
        failed = _shrink(oracle, failed, cases, seed, kind)
    return Report(
        pair=pair.name,
        dtype=str(kind),
        seed=seed,
        cases=tally.judged,
        redrawn=tally.redrawn,
        seconds=time.perf_counter() - start,
        rows=tally.rows(oracle.unread_taps),
        failed_at=tally.failed_at,
        first_failure=_failure(oracle, kind, failed) if failed else None,
        versions=versions(),
    )


class Failed(NamedTuple):
    """A case that disagrees, and the first row in which it does."""

    case: Case
    row: str
    problem: str


def judge_all(batches: Batches, cases: Sequence[Case]) -> list[dict[str, Comparison] | None]:
    """`judge` for many cases, padded to one shape; what does not pass so is judged alone."""
    oracle, dtype = batches.oracle, batches.dtype
    drawn = [draw.realise(oracle.pair, case, dtype) for case in cases]
    found = []
    for case, arrays, answer in zip(cases, drawn, batches.answers(cases, drawn), strict=True):
        one = None
        if answer is not None and not answer.undecided and not answer.out_of_range:
            one = _held(oracle, answer, subject.run(oracle.pair, case, arrays), dtype)
        passed = one is not None and all(c.ok for c in one.values())
        found.append(one if passed else judge(oracle, case, dtype))
    return found


def judge(oracle: Oracle, case: Case, dtype: np.dtype[Any]) -> dict[str, Comparison] | None:
    """Compare everything in one case; None when no verdict is possible there."""
    drawn = draw.realise(oracle.pair, case, dtype)
    answer = oracle.answer(case, drawn, dtype)
    if answer.out_of_range:
        return None
    ran = subject.run(oracle.pair, case, drawn)
    found = _held(oracle, answer, ran, dtype)
    wrong = [c for c in found.values() if not c.ok]
    if answer.undecided and wrong and not ran.problems and all(c.excusable for c in wrong):
        return None
    return found


def _held(
    oracle: Oracle, answer: Answer, ran: subject.Ran, dtype: np.dtype[Any]
) -> dict[str, Comparison]:
    """What the subject returned against what the twin says, row by row."""
    found = {
        name: compare(ran.arrays[name], answer.quantities[name], dtype)
        for name in oracle.pair.quantities()
        if name in ran.arrays and name not in oracle.unread_taps
    }
    found[subject.UNCHANGED] = found[subject.AGAIN] = Comparison(0.0, "")
    return found | {row: Comparison(np.inf, text) for row, text in ran.problems.items()}


def long_case(pair: Pair, like: Case) -> Case:
    """A case of many steps, and else small."""
    sizes = {letter: LONG if letter == pair.time else 3 for letter in like.sizes}
    return replace(like, sizes=sizes, fills=dict.fromkeys(like.fills, "normal:0"))


def _one_by_one(oracle: Oracle, case: Case, dtype: np.dtype[Any]) -> dict[str, Comparison]:
    """The case, each step by itself at the subject's own states and δ; nothing without taps."""
    drawn = draw.realise(oracle.pair, case, dtype)
    if not oracle.pair.taps or oracle.answer(case, drawn, dtype).undecided:
        return {}
    ran = subject.run(oracle.pair, case, drawn)
    found = local.check(oracle, case, drawn, ran.arrays, dtype)
    worst = max(found.values(), key=lambda c: c.error, default=None)
    return {STEPS: worst._replace(sharp=True)} if worst else {}


def _twin_by_xla(oracle: Oracle, case: Case) -> Comparison | None:
    """The twin as XLA runs it against the twin as its jaxpr reads, in float64.

    None where the two may honestly differ: at a kink, or beyond float64.
    """
    double = np.dtype(np.float64)
    drawn = draw.realise(oracle.pair, case, double)
    read = oracle.answer(case, drawn, double, flushes=True)
    if read.undecided or read.out_of_range:
        return None
    run = oracle.run_by_xla(case, drawn)
    found = [compare(run[name], wanted, double) for name, wanted in read.quantities.items()]
    worst = max(found, key=lambda c: c.error)
    return worst._replace(sharp=True)  # the case is the subject's, the band is not in question


class Tally:
    """The worst of each row over the cases so far, and the first failure."""

    def __init__(self, pair: Pair, progress: Callable[[int], None] | None = None) -> None:
        self.pair = pair
        self.progress = progress
        self.judged = 0
        self.redrawn = 0
        self.largest: Case | None = None
        self.failed: Failed | None = None
        self.failed_at: int | None = None
        self._worst: dict[str, Comparison] = {}
        self._cases: dict[str, int] = {}

    def add(self, case: Case, found: dict[str, Comparison] | None) -> None:
        """Count one case."""
        if found is None:
            self.redrawn += 1
        else:
            self.judged += 1
            self.largest = max(self.largest or case, case, key=lambda c: prod(c.sizes.values()))
            self.record(found)
            if self.failed is None:
                self.failed = first_failed(case, found)
                self.failed_at = self.judged + self.redrawn if self.failed else None
        if self.progress:
            self.progress(self.judged + self.redrawn)

    def record(self, found: dict[str, Comparison]) -> None:
        """Keep the worst comparison of each row; it is sharp once any was, exact while all are."""
        for name, new in found.items():
            old = self._worst.get(name, new)
            worst = new if new.error > old.error else old
            sharp, exact = old.sharp or new.sharp, old.exact and new.exact
            self._worst[name] = worst._replace(sharp=sharp, exact=exact)
            self._cases[name] = self._cases.get(name, 0) + 1

    def rows(self, unread_taps: set[str]) -> tuple[Row, ...]:
        """A row for each quantity of the pair, then for each property."""
        names = list(dict.fromkeys([*self.pair.quantities(), *self._worst]))
        return tuple(self._row(name, name in unread_taps) for name in names)

    def _row(self, name: str, unread: bool) -> Row:
        found = self._worst.get(name)
        verdict: Verdict
        if found is None:
            verdict = "inconclusive"
            note = f"the twin does not read inputs[{name!r}]" if unread else "never compared"
        elif not found.ok:
            verdict, note = "fail", found.problem
        elif not (found.sharp or found.exact):
            verdict, note = "inconclusive", "every band was wider than 1 % of its entry"
        else:
            verdict, note = "pass", ""
        if verdict == "pass" and self.redrawn > MOST_GIVEN_UP * (self.redrawn + self.judged):
            verdict = "inconclusive"
            note = f"{self.redrawn} of {self.redrawn + self.judged} cases were given up"
        error = found.error if found else 0.0
        return Row(
            name, self.pair.equations.get(name), error, self._cases.get(name, 0), verdict, note
        )


def first_failed(case: Case, found: dict[str, Comparison]) -> Failed | None:
    """The first row of a judged case that disagrees."""
    wrong = ((name, c.problem) for name, c in found.items() if not c.ok)
    return next((Failed(case, *w) for w in wrong), None)


class _DisagreementError(Exception):
    """Tells Hypothesis that a case fails."""


def _draw(
    pair: Pair, cases: int, seed: int, check: Callable[[Case], None], phases: tuple[Phase, ...]
) -> None:
    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        phases=phases,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(draw.cases(pair))
    def run(case: Case) -> None:
        check(case)

    run()


def _shrink(oracle: Oracle, failed: Failed, cases: int, seed: int, dtype: np.dtype[Any]) -> Failed:
    """The smallest case in which the same row fails. Hypothesis draws it again and shrinks."""
    smallest = failed

    def check(case: Case) -> None:
        nonlocal smallest
        found = judge(oracle, case, dtype) or {}
        if failed.row in found and not found[failed.row].ok:
            smallest = first_failed(case, found) or failed
            raise _DisagreementError

    # Hypothesis ends with the smallest failing case; or, for a subject that does not fail the
    # same way again, with Flaky, and then the last failure has to do
    with suppress(_DisagreementError, Flaky):
        _draw(oracle.pair, cases, seed, check, (Phase.generate, Phase.shrink))
    again = True
    while again:
        again = False
        for case in draw.plainer(smallest.case):
            with suppress(_DisagreementError):
                check(case)
                continue
            again = True
            break
    return smallest


def _failure(oracle: Oracle, dtype: np.dtype[Any], failed: Failed) -> Failure:
    """What can be said of the case: where it goes wrong, and who is wrong."""
    pair, case = oracle.pair, str(failed.case)
    if pair.origin:
        again = f"bptt verify {quote(pair.origin)} --dtype {dtype} --case {quote(case)}"
    else:
        again = f"verify(pair, dtype={str(dtype)!r}, case={case!r})"
    diagnosis, alone, votes = None, "", ""
    if failed.row in pair.quantities():
        diagnosis = diagnose(oracle, failed.case, dtype)
        alone, votes = _votes(oracle, dtype, failed)
    return Failure(failed.row, failed.problem, case, again, diagnosis, alone, votes)


def _votes(oracle: Oracle, dtype: np.dtype[Any], failed: Failed) -> tuple[str, str]:
    """Who stands alone at the worst entry of the row."""
    drawn = draw.realise(oracle.pair, failed.case, dtype)
    answer = oracle.answer(failed.case, drawn, dtype)
    got = subject.run(oracle.pair, failed.case, drawn).arrays.get(failed.row)
    expected = answer.quantities[failed.row]
    if not isinstance(got, np.ndarray | np.generic) or got.shape != expected.value.shape:
        return "", ""
    error = errors(np.asarray(got), expected, dtype)
    at = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    found = majority(oracle, failed.case, drawn, dtype, failed.row, at)
    return found.who, found.text


def _check(pair: Pair, cases: int, seed: int, dtype: DTypeLike) -> np.dtype[Any]:
    if not isinstance(pair, Pair):
        raise TypeError(f"pair: expected a Pair, got {type(pair).__name__}")
    for name, value, low in (("cases", cases, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if value < low:
            raise ValueError(f"{name}: expected at least {low}, got {value}")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or str(kind) not in DTYPES:
        raise ValueError(f"dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    return kind
