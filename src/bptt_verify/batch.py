"""Many cases at once: those of one kind are padded to a ceiling shape and evaluated side by side.

Reading the jaxpr costs the same for one case as for thirty, and tracing is paid once for a ceiling.
What is padded costs as much as what is not: of many cases, small ones and large ones stand apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any, TypeVar

import numpy as np

from bptt_verify.draw import LARGEST, Case, Drawn, entries, realise
from bptt_verify.interpreter import MixedError
from bptt_verify.oracle import Answer, Oracle
from bptt_verify.primitives import SAMPLES
from bptt_verify.tolerance import multiplier

SIDE_BY_SIDE = 256
"""Cases evaluated together, up to half more or fewer: twice as many save nothing more."""

MOST = 250_000_000
"""Numbers in all arrays of the cases of a batch: 2 GB."""

FEW = 192
"""Fewer cases are not set apart: with half as many, what a batch costs once is too much."""

T = TypeVar("T")

Ceiling = dict[str, int]
"""Sizes to which all cases are padded."""

TRIALS = 3
"""Cases on which a letter has to prove that its padding changes nothing; one at least for each
combination of options."""


class Batches:
    """The twin's answers for cases of random shapes.

    Args:
        oracle: the twin of the pair.
        dtype: the dtype under test.
    """

    def __init__(self, oracle: Oracle, dtype: np.dtype[Any]) -> None:
        self.oracle = oracle
        self.dtype = dtype

    @property
    def neutral(self) -> set[str]:
        """The letters whose padding changes nothing, one by one and together, found by trial."""
        if self.oracle.neutral is None:
            trials = [
                (points, self._together(points, points[0][0].sizes)) for points in self._trials()
            ]
            found = {
                letter
                for letter in self.oracle.pair.letters()
                if all(self._unchanged({letter}, *trial) for trial in trials)
            }
            together = all(self._unchanged(found, *trial) for trial in trials)
            self.oracle.neutral = found if together else set()
        return self.oracle.neutral

    def together(self, cases: Sequence[Case]) -> Iterator[tuple[list[Case], Ceiling]]:
        """All cases, so many side by side, and the sizes they are padded to."""
        kinds: dict[str, list[Case]] = {}
        for case in cases:
            short = all(case.fills[name] in ("grid", "zeros") for name in self.oracle.pair.floats)
            kind = f"{self._ceiling(case)} {case.options} {short}"
            kinds.setdefault(kind, []).append(case)
        for alike in kinds.values():
            for ceiling, apart in self._apart(alike, self._ceiling(alike[0]), {}):
                numbers = self._entries(ceiling) * (SAMPLES + 1)
                yield from ((chosen, ceiling) for chosen in _shares(apart, numbers))

    def _apart(
        self, cases: list[Case], ceiling: Ceiling, above: Ceiling
    ) -> Iterator[tuple[Ceiling, list[Case]]]:
        """These cases in groups, each with a ceiling as low as pays.

        All their sizes are above `above`, 0 in a letter that it lacks. As long as both parts have
        enough cases, they part at the middle of the letter that saves most.
        """
        saved = 0
        for letter in sorted(self.neutral):
            low = above.get(letter, 0)
            middle = (low + ceiling[letter]) // 2
            smaller = [case for case in cases if case.sizes[letter] <= middle]
            if middle == low or not FEW <= len(smaller) <= len(cases) - FEW:
                continue
            lower = {**ceiling, letter: middle}
            less = len(smaller) * (self._entries(ceiling) - self._entries(lower))
            if less > saved:
                saved, best = less, (letter, middle, lower, smaller)
        if not saved:
            yield ceiling, cases
            return
        letter, middle, lower, smaller = best
        larger = [case for case in cases if case.sizes[letter] > middle]
        yield from self._apart(smaller, lower, above)
        yield from self._apart(larger, ceiling, {**above, letter: middle})

    def _entries(self, sizes: Ceiling) -> int:
        return entries(self.oracle.pair, sizes)

    def answers(self, points: Sequence[tuple[Case, Drawn]]) -> list[Answer]:
        """The oracle's answers, padded and side by side: so many shapes share one trace."""
        kinds: dict[str, list[int]] = {}
        for k, (case, drawn) in enumerate(points):
            kind = f"{self._ceiling(case)} {case.options} {self.oracle.short(drawn)}"
            kinds.setdefault(kind, []).append(k)
        found: dict[int, Answer] = {}
        for alike in kinds.values():
            ceiling = self._ceiling(points[alike[0]][0])
            for some in _shares(alike, self._entries(ceiling) * (SAMPLES + 1)):
                together = self._together([points[k] for k in some], ceiling)
                found |= zip(some, together, strict=True)
        return [found[k] for k in range(len(points))]

    def _together(
        self, points: Sequence[tuple[Case, Drawn]], ceiling: Mapping[str, int]
    ) -> list[Answer]:
        cases, drawn = zip(*points, strict=True)
        try:
            answers = self.oracle.answers(cases, drawn, self.dtype, ceiling)
        except MixedError:  # they have to be evaluated one by one
            return [one for point in points for one in self._together([point], ceiling)]
        return [answers.of(k, self.oracle.shapes, case.sizes) for k, case in enumerate(cases)]

    def _ceiling(self, case: Case) -> Ceiling:
        """A multiple of the largest size drawn, in letters whose padding changes nothing."""
        return {
            k: math.ceil(n / LARGEST) * LARGEST if k in self.neutral else n
            for k, n in case.sizes.items()
        }

    def _trials(self) -> Iterator[list[tuple[Case, Drawn]]]:
        """For each combination of options some points, all of the same sizes."""
        pair = self.oracle.pair
        every = list(product(*pair.options.values()))
        for chosen, values in enumerate(every):
            rng = np.random.default_rng(chosen)
            sizes = {letter: int(rng.integers(1, 6)) for letter in pair.letters()}
            filled = [*pair.floats, *(f"d{k}" for k in pair.outputs)]
            cases = [
                Case(
                    sizes=sizes,
                    options=dict(zip(pair.options, values, strict=True)),
                    fills=dict.fromkeys(filled, "normal:0"),
                    seed=seed,
                )
                for seed in range(chosen, max(TRIALS, len(every)), len(every))
            ]
            yield [(case, realise(pair, case, self.dtype)) for case in cases]

    def _unchanged(
        self, letters: set[str], points: list[tuple[Case, Drawn]], plain: list[Answer]
    ) -> bool:
        """Whether padding in these letters changes nothing at these points."""
        ceiling = {k: n + 2 if k in letters else n for k, n in points[0][0].sizes.items()}
        return all(map(self._agree, plain, self._together(points, ceiling)))

    def _agree(self, plain: Answer, padded: Answer) -> bool:
        """Whether the oracle says the same with padding and without, as far as both know."""
        if (plain.undecided, plain.out_of_range) != (padded.undecided, padded.out_of_range):
            return False
        m = multiplier(self.dtype)
        with np.errstate(invalid="ignore"):
            return all(
                bool((np.abs(a.value - b.value) <= m * (a.sigma + b.sigma)).all())
                for a, b in zip(plain.quantities.values(), padded.quantities.values(), strict=True)
            )


def _shares(cases: list[T], each: int) -> list[list[T]]:
    """These cases, of so many numbers each, in equal parts."""
    parts = max(1, round(len(cases) / SIDE_BY_SIDE), math.ceil(len(cases) * each / MOST))
    borders = [len(cases) * k // parts for k in range(parts + 1)]
    return [cases[a:b] for a, b in pairwise(borders)]
