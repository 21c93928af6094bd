"""Many cases at once: those of one kind are padded to a ceiling shape and evaluated side by side.

Reading the jaxpr costs the same for one case as for thirty, and tracing is paid once for a ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from bptt_verify.draw import LARGEST, Case, Drawn, realise
from bptt_verify.interpreter import MixedError
from bptt_verify.oracle import Answer, Answers, Oracle
from bptt_verify.tolerance import multiplier

SIDE_BY_SIDE = 128
"""Cases evaluated together: twice as many save nothing more."""

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
                (case, realise(self.oracle.pair, case, self.dtype)) for case in self._trials()
            ]
            found = {
                letter
                for letter in self.oracle.pair.letters()
                if all(self._unchanged({letter}, *trial) for trial in trials)
            }
            together = all(self._unchanged(found, *trial) for trial in trials)
            self.oracle.neutral = found if together else set()
        return self.oracle.neutral

    def together(
        self, cases: Sequence[Case], drawn: Sequence[Drawn]
    ) -> Iterator[tuple[list[int], Ceiling, Answers | None]]:
        """Which cases stand side by side, at which sizes, and the answers.

        None for cases that have to be evaluated one by one.
        """
        kinds: dict[str, list[int]] = {}
        for k, case in enumerate(cases):
            short = all(case.fills[name] in ("grid", "zeros") for name in self.oracle.pair.floats)
            kind = f"{self._ceiling(case)} {case.options} {short}"
            kinds.setdefault(kind, []).append(k)
        for alike in kinds.values():
            for start in range(0, len(alike), SIDE_BY_SIDE):
                chosen = alike[start : start + SIDE_BY_SIDE]
                ceiling = self._ceiling(cases[chosen[0]])
                here, arrays = [cases[k] for k in chosen], [drawn[k] for k in chosen]
                try:
                    yield chosen, ceiling, self.oracle.answers(here, arrays, self.dtype, ceiling)
                except MixedError:
                    yield chosen, ceiling, None

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
        plain = self.oracle.answer(case, drawn, self.dtype)
        if (plain.undecided, plain.out_of_range) != (padded.undecided, padded.out_of_range):
            return False
        m = multiplier(self.dtype)
        with np.errstate(invalid="ignore"):
            return all(
                bool((np.abs(a.value - b.value) <= m * (a.sigma + b.sigma)).all())
                for a, b in zip(plain.quantities.values(), padded.quantities.values(), strict=True)
            )

    def _unchanged(self, letters: set[str], case: Case, drawn: Drawn) -> bool:
        ceiling = {k: n + 2 if k in letters else n for k, n in case.sizes.items()}
        padded = self.oracle.answers([case], [drawn], self.dtype, ceiling)
        return self.confirms(case, drawn, padded.of(0, self.oracle.shapes, case.sizes))
