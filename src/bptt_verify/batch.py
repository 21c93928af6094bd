"""Many cases at once: those of one kind are padded to a ceiling shape and evaluated side by side.

Reading the jaxpr costs the same for one case as for thirty, and tracing is paid once for a ceiling.
What is padded costs as much as what is not: of many cases, small ones and large ones stand apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from bptt_verify.draw import LARGEST, Case, Drawn, entries, realise
from bptt_verify.oracle import Answer, Oracle
from bptt_verify.primitives import SAMPLES
from bptt_verify.tolerance import multiplier

SIDE_BY_SIDE = 256
"""Cases evaluated together, up to half more or fewer: twice as many save nothing more."""

MOST = 250_000_000
"""Numbers in all arrays of the cases of a batch: 2 GB."""

FEW = 192
"""Fewer cases are not set apart: with half as many, what a batch costs once is too much."""

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
            trials = []
            for case in self._trials():
                drawn = realise(self.oracle.pair, case, self.dtype)
                trials.append((case, drawn, self.oracle.answer(case, drawn, self.dtype)))
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

    def answer(self, case: Case, drawn: Drawn, dtype: np.dtype[Any]) -> Answer:
        """The oracle's answer for one case, padded: so many shapes share one trace."""
        answers = self.oracle.answers([case], [drawn], dtype, self._ceiling(case))
        return answers.of(0, self.oracle.shapes, case.sizes)

    def _ceiling(self, case: Case) -> Ceiling:
        """A multiple of the largest size drawn, in letters whose padding changes nothing."""
        return {
            k: math.ceil(n / LARGEST) * LARGEST if k in self.neutral else n
            for k, n in case.sizes.items()
        }

    def _trials(self) -> list[Case]:
        pair = self.oracle.pair
        every = list(product(*pair.options.values()))
        found = []
        for i in range(max(TRIALS, len(every))):
            chosen = i % len(every)
            rng = np.random.default_rng(chosen)  # the same sizes again: they have been traced
            found.append(
                Case(
                    sizes={letter: int(rng.integers(1, 6)) for letter in pair.letters()},
                    options=dict(zip(pair.options, every[chosen], strict=True)),
                    fills=dict.fromkeys(
                        [*pair.floats, *(f"d{k}" for k in pair.outputs)], "normal:0"
                    ),
                    seed=i,
                )
            )
        return found

    def confirms(self, case: Case, drawn: Drawn, padded: Answer) -> bool:
        """Whether the oracle says the same without padding, as far as both know."""
        return self._agree(self.oracle.answer(case, drawn, self.dtype), padded)

    def _unchanged(self, letters: set[str], case: Case, drawn: Drawn, plain: Answer) -> bool:
        ceiling = {k: n + 2 if k in letters else n for k, n in case.sizes.items()}
        padded = self.oracle.answers([case], [drawn], self.dtype, ceiling)
        return self._agree(plain, padded.of(0, self.oracle.shapes, case.sizes))

    def _agree(self, plain: Answer, padded: Answer) -> bool:
        if (plain.undecided, plain.out_of_range) != (padded.undecided, padded.out_of_range):
            return False
        m = multiplier(self.dtype)
        with np.errstate(invalid="ignore"):
            return all(
                bool((np.abs(a.value - b.value) <= m * (a.sigma + b.sigma)).all())
                for a, b in zip(plain.quantities.values(), padded.quantities.values(), strict=True)
            )


def _shares(cases: list[Case], each: int) -> list[list[Case]]:
    """These cases, of so many numbers each, in equal parts."""
    parts = max(1, round(len(cases) / SIDE_BY_SIDE), math.ceil(len(cases) * each / MOST))
    borders = [len(cases) * k // parts for k in range(parts + 1)]
    return [cases[a:b] for a, b in pairwise(borders)]
