"""Judging cases: run subject and twin, compare row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt_verify import draw, local, properties, subject
from bptt_verify.batch import Batches, Ceiling
from bptt_verify.compare import Comparison, compare, compare_padded, worse
from bptt_verify.draw import Case, Drawn
from bptt_verify.interpreter import MixedError
from bptt_verify.oracle import Answer, Answers, Oracle
from bptt_verify.pair import Pair
from bptt_verify.subject import Ran, Run
from bptt_verify.tolerance import multiplier

Rows = dict[str, Comparison]
"""What was found in a case, by the row of the report that says it."""

XLA = "twin run by XLA"
STEPS = "each step by itself"


FINE = Comparison(0.0, "")
"""No error at all."""

TWICE = 256
"""Cases in which the subject is called twice; after so many, in one of eight."""

MOST_OVER_TIME = 3
"""After so many cases that passed the time limit no more are run."""

MANY = 2048
"""From so many cases on, a few samples come first: most cases pass by them, and are no news."""

CONFIRMED = 2048
"""Of so many cases that pass side by side, one is judged by itself as well."""


REMEMBERED = 4
"""Cases whose answers are kept for whoever asks next."""


class Failed(NamedTuple):
    """A case that disagrees, and the first row in which it does."""

    case: Case
    row: str
    problem: str


def first_failed(case: Case, found: Rows) -> Failed | None:
    """The first row of a judged case that disagrees: a cause before its effects."""
    wrong = {name: c.problem for name, c in found.items() if not c.ok}
    for name in (subject.AGAIN, *wrong):  # what is not the same twice may be wrong in any way
        if name in wrong:
            return Failed(case, name, wrong[name])
    return None


class Judge:
    """One pair in one dtype.

    Args:
        pair: subject and twin.
        dtype: the dtype under test.
        run: how the subject is run.
        oracle: the twin of the pair, where it has been traced before.
    """

    def __init__(
        self,
        pair: Pair,
        dtype: np.dtype[Any],
        run: Run = subject.run,
        oracle: Oracle | None = None,
    ) -> None:
        self.pair = pair
        self.dtype = dtype
        self.run = run
        self.oracle = oracle or Oracle(pair, multiplier(dtype))
        self.batches = Batches(self.oracle, dtype)
        self.properties = properties.of(pair)
        self._passed: dict[str, int] = {}
        self._worst: Rows = {}
        self._ran = 0
        self._late = 0
        self._known: dict[str, Answer] = {}

    def all(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Rows | None]]:
        """`one` for many cases, in an order that suits."""
        for chosen, ceiling in self.batches.together(cases):
            thrifty = self._ran >= MANY
            drawn = [self.drawn(case) for case in chosen]
            ran = map(self._run_next, chosen, drawn)
            here = [
                (case, d, r) for case, d, r in zip(chosen, drawn, ran, strict=True) if r is not None
            ]
            if here:
                yield from self._together(here, ceiling, thrifty=thrifty)

    def _together(
        self, here: Sequence[tuple[Case, Drawn, Ran]], ceiling: Ceiling, *, thrifty: bool
    ) -> Iterator[tuple[Case, Rows | None]]:
        """Cases side by side, of which the subject has run.

        Thrifty: a few samples do for a case of which they say nothing new.
        """
        cases, drawn, ran = zip(*here, strict=True)
        sizes = [case.sizes for case in cases]
        try:
            answers = self.oracle.answers(cases, drawn, self.dtype, ceiling, thrifty=thrifty)
        except MixedError:  # they have to be evaluated one by one
            for case, d, r in here:
                yield case, self._verdict(self.oracle.answer(case, d, self.dtype), r)
            return
        doubtful = []
        judged = self.side_by_side(answers, ran, sizes, ceiling)
        for k, ((case, d, r), found) in enumerate(zip(here, judged, strict=True)):
            if thrifty and (found is None or self._is_news(found)):
                doubtful.append(here[k])
                continue
            if found is None:
                found = self._verdict(answers.of(k, self.oracle.shapes, case.sizes), r)
            if self._to_be_confirmed(case, found):
                found = self._verdict(self.oracle.answer(case, d, self.dtype), r)
            for name, c in (found or {}).items():
                self._worst[name] = worse(self._worst.get(name, c), c)
            yield case, found
        if doubtful:
            yield from self._together(doubtful, ceiling, thrifty=False)

    def _is_news(self, found: Rows) -> bool:
        """Whether the case could change what is known: by a larger error, or a sharp band."""
        known = self._worst
        return any(
            name not in known
            or c.error > known[name].error
            or (c.sharp and not known[name].sharp)
            or (known[name].exact and not c.exact)
            for name, c in found.items()
        )

    def _run_next(self, case: Case, drawn: Drawn) -> Ran | None:
        """The subject; None once it passed its time limit too often."""
        if self._late >= MOST_OVER_TIME:
            return None
        self._ran += 1
        again = self._ran <= TWICE or self._ran % 8 == 0
        ran = self.run(self.pair, case, drawn, self.dtype, again=again)
        self._late += subject.TIME in ran.problems
        return ran

    def side_by_side(
        self,
        answers: Answers,
        ran: Sequence[Ran],
        sizes: Sequence[Mapping[str, int]],
        ceiling: Mapping[str, int],
    ) -> list[Rows | None]:
        """What was found in each of these cases; None for one that does not pass so."""
        passed = ~(answers.out_of_range | answers.undecided & unbounded(answers))
        passed &= [not one.problems for one in ran]
        found = [_calls(one) for one in ran]
        for name in self.compared():
            got = [one.arrays.get(name) for one in ran]
            rows = compare_padded(
                got, answers.quantities[name], self.oracle.shapes[name], sizes, ceiling, self.dtype
            )
            for k, row in enumerate(rows):
                if row is None:
                    passed[k] = False
                else:
                    found[k][name] = row
        return [rows if fine else None for rows, fine in zip(found, passed.tolist(), strict=True)]

    def _to_be_confirmed(self, case: Case, found: Rows | None) -> bool:
        """Whether to ask the oracle again, without padding.

        Every row that fails does so in a case by itself; of the cases that pass the first of each
        options are judged by themselves, and some more; so is what would be given up.
        """
        if found is None:
            return True
        if wrong := _wrong(found):
            return not wrong <= _wrong(self._worst)
        before = self._passed.get(kind := str(case.options), 0)
        self._passed[kind] = before + 1
        return before % CONFIRMED == 0

    def one(self, case: Case, names: Collection[str] = ()) -> Rows | None:
        """Compare everything in one case, and check these properties.

        None when no verdict is possible there.
        """
        drawn = self.drawn(case)
        answer = self._answer(case, drawn)
        found = self._verdict(answer, self.run(self.pair, case, drawn, self.dtype))
        if found is None or _wrong(found) or not names:
            return found
        (held,) = self.check([(case, names)])
        return {**found, **held}

    def _answer(self, case: Case, drawn: Drawn) -> Answer:
        """The oracle's answer without padding; of the last few cases it is remembered."""
        if (key := str(case)) not in self._known:
            latest = list(self._known.items())[1 - REMEMBERED :]
            self._known = {**dict(latest), key: self.oracle.answer(case, drawn, self.dtype)}
        return self._known[key]

    def _verdict(self, answer: Answer, ran: Ran) -> Rows | None:
        """What the subject returned against the answer; None when no verdict is possible."""
        if answer.out_of_range:
            return None
        if answer.undecided and any(np.isinf(e.sigma).any() for e in answer.quantities.values()):
            return None  # no band at all
        found = self._held(answer, ran)
        wrong = [found[name] for name in _wrong(found)]
        if ran.problems or not wrong:
            return found
        if all(c.undefined or (c.excusable and answer.undecided) for c in wrong):
            return None
        return found

    def check(self, asked: Sequence[tuple[Case, Collection[str]]]) -> list[Rows]:
        """These properties in each of these cases, those about which it says something."""
        everywhere = self._properties(asked, self.batches.answers)
        alone = partial(self._answers, self.dtype)
        for k, (one, found) in enumerate(zip(asked, everywhere, strict=True)):
            if _wrong(found):  # what fails does so without padding
                (everywhere[k],) = self._properties([one], alone)
            shared = self._of_the_twin(one[0], _wrong(everywhere[k]))
            # how sharp the bands are is a question of the quantities' own rows
            everywhere[k] = {
                name: shared.get(name, c._replace(sharp=True)) for name, c in everywhere[k].items()
            }
        return everywhere

    def _answers(self, dtype: np.dtype[Any], points: Sequence[tuple[Case, Drawn]]) -> list[Answer]:
        return [self.oracle.answer(case, drawn, dtype) for case, drawn in points]

    def _properties(
        self, asked: Sequence[tuple[Case, Collection[str]]], ask: properties.Ask
    ) -> list[Rows]:
        points = [(case, self.drawn(case)) for case, _ in asked]
        trials = [
            properties.Trial(self.pair, *point, self.dtype, self.oracle, self.run, answer)
            for point, answer in zip(points, ask(points), strict=True)
        ]
        names = [[n for n in self.properties if n in chosen] for _, chosen in asked]
        return properties.check(list(zip(trials, names, strict=True)), ask)

    def _of_the_twin(self, case: Case, names: Collection[str]) -> Rows:
        """Those of these properties that the twin itself does not have, in float64."""
        if not names:
            return {}
        double = np.dtype(np.float64)

        def twin(
            pair: Pair, case: Case, drawn: Drawn, dtype: np.dtype[Any], *, again: bool = True
        ) -> Ran:
            answer = self.oracle.answer(case, drawn, double)
            return Ran({name: value for name, (value, _) in answer.quantities.items()}, {})

        ask = partial(self._answers, double)
        drawn = draw.realise(self.pair, case, double)
        (answer,) = ask([(case, drawn)])
        trial = properties.Trial(self.pair, case, drawn, double, self.oracle, twin, answer)
        (found,) = properties.check([(trial, names)], ask)
        return {
            name: Comparison(
                0.0,
                "",
                doubt="the twin is not so either: if it need not be, "
                f"Pair(..., without={{{name!r}}})",
            )
            for name in _wrong(found)
        }

    def steps(self, case: Case) -> Rows:
        """Each step by itself, at the subject's own states and δ; nothing for a pair without."""
        drawn = self.drawn(case)
        answer = self._answer(case, drawn)
        if not self.pair.taps or answer.undecided or answer.out_of_range:
            return {}
        ran = self.run(self.pair, case, drawn, self.dtype)
        found = local.check(self.oracle, case, drawn, ran.arrays, self.dtype)
        compared = (alone.comparison for alone in found.values())
        worst = max(compared, key=lambda c: c.error, default=None)
        return {STEPS: worst._replace(sharp=True)} if worst else {}

    def twin_by_xla(self, case: Case) -> Rows:
        """The twin as XLA runs it against the twin as its jaxpr reads, in float64.

        Nothing where the two may honestly differ: at a kink, or beyond float64.
        """
        double = np.dtype(np.float64)
        drawn = draw.realise(self.pair, case, double)
        read = self.oracle.answer(case, drawn, double)
        if read.undecided or read.out_of_range:
            return {}
        run = self.oracle.run_by_xla(case, drawn)
        found = [compare(run[name], wanted, double) for name, wanted in read.quantities.items()]
        worst = max(found, key=lambda c: c.error)
        # the case is the subject's, the band is not in question
        return {XLA: worst._replace(sharp=True)}

    def drawn(self, case: Case) -> Drawn:
        """The arrays of a case."""
        return draw.realise(self.pair, case, self.dtype)

    def compared(self) -> list[str]:
        """The quantities on which the twin has an opinion."""
        return [name for name in self.pair.quantities() if name not in self.oracle.unread_taps]

    def _held(self, answer: Answer, ran: Ran) -> Rows:
        """What the subject returned against what the twin says, row by row."""
        found = {
            name: compare(ran.arrays[name], answer.quantities[name], self.dtype)
            for name in self.compared()
            if name in ran.arrays
        }
        return {**found, **_calls(ran), **_problems(ran)}


def unbounded(answers: Answers) -> NDArray[np.bool_]:
    """The cases in which some entry has no band at all."""
    return np.logical_or.reduce(
        [
            np.isinf(sigma).reshape(len(sigma), -1).any(axis=1)
            for _, sigma in answers.quantities.values()
        ]
    )


def _wrong(found: Rows) -> set[str]:
    return {name for name, c in found.items() if not c.ok}


def _calls(ran: Ran) -> Rows:
    """What calling the subject shows where there is no problem; nothing if it did not return."""
    if set(ran.problems) & {"forward", "backward", subject.TIME, subject.ALIVE}:
        return {}
    return {subject.UNCHANGED: FINE} | ({subject.AGAIN: FINE} if ran.again else {})


def _problems(ran: Ran) -> Rows:
    return {row: Comparison(np.inf, text) for row, text in ran.problems.items()}
