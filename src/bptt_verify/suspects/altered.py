"""The twin of one case with any of many changes, traced and evaluated for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from bptt_verify.draw import Case, Drawn, entries
from bptt_verify.interpreter import inner
from bptt_verify.oracle import Answer, Oracle, Twin
from bptt_verify.surgery import (
    Change,
    OnOperands,
    Site,
    Values,
    evaluate,
    evaluate_one,
    nested,
    sites,
)
from bptt_verify.suspects.suspect import Suspect

MOST = 64
"""Changes that are traced together: each evaluation computes what every one of them needs."""

EQUATIONS = 320
"""Whose derivatives are made anew for them."""

NUMBERS = 2**20
"""In all arrays of the cases that are evaluated side by side."""

WHICH = "the number of the change"
"""What a twin with one of several changes is told besides its inputs."""


class Altered:
    """The twin of a case, to be changed."""

    def __init__(self, oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]) -> None:
        self.closed = oracle.forward_jaxpr(case, drawn)
        self.sites = dict(sites(self.closed.jaxpr))
        self._oracle, self._case, self._drawn, self._dtype = oracle, case, drawn, dtype
        self._results = sorted([*oracle.pair.outputs, *oracle.pair.probes])

    def twin(self, made: Callable[[Sequence[Any]], Values]) -> Twin:
        """A twin from a function of its inputs, in the order of their names."""

        def named(inputs: dict[str, Any]) -> dict[str, Any]:
            return dict(zip(self._results, made(jax.tree.leaves(inputs)), strict=True))

        return named

    def changed(self, change: Change) -> Twin:
        """The twin with this change."""
        return self.twin(lambda arguments: evaluate(self.closed, arguments, change))

    def answer(self, twin: Twin) -> Answer:
        """What such a twin says."""
        return self._oracle.answer(self._case, self._drawn, self._dtype, twin=twin)

    def together(self, several: Sequence[tuple[str, Change]], kind: str) -> Iterator[Suspect]:
        """These changes, of which many are traced and evaluated side by side once one is asked."""
        changes = [change for _, change in several]
        most = min(MOST, NUMBERS // entries(self._oracle.pair, self._case.sizes))
        mine: dict[int, Callable[[], Answer]] = {}
        for batch in batches(changes, self.sites, most):
            answers = cache(partial(self._answers, [changes[k] for k in batch]))
            mine |= {k: partial(self._one, answers, at, changes[k]) for at, k in enumerate(batch)}
        for k, (text, _) in enumerate(several):
            yield Suspect(text, mine[k], kind)

    def _answers(self, changes: Sequence[Change]) -> list[Answer | None]:
        """The answer of each; None for one that has to be tried by itself."""
        n, case = len(changes), self._case

        def twin(inputs: dict[str, Any]) -> dict[str, Any]:
            which = inputs.pop(WHICH)
            return self.twin(lambda x: evaluate_one(self.closed, x, changes, which))(inputs)

        try:
            answers = self._oracle.answers(
                [case] * n,
                [self._drawn] * n,
                self._dtype,
                case.sizes,
                twin=twin,
                extra={WHICH: np.arange(n)},
            )
        except Exception:  # one of them cannot be traced so: the others need not suffer
            if n == 1:
                return [None]
            halves = changes[: n // 2], changes[n // 2 :]
            return [found for half in halves for found in self._answers(half)]
        return [answers.of(k, self._oracle.shapes, case.sizes) for k in range(n)]

    def _one(self, answers: Callable[[], list[Answer | None]], at: int, change: Change) -> Answer:
        return answers()[at] or self.answer(self.changed(change))


def batches(changes: Sequence[Change], at: Mapping[Site, Any], most: int) -> list[list[int]]:
    """Changes that are worth being made together, by their numbers: each in the first that it fits.

    No more than `most`, nor more than EQUATIONS anew, and none inside of what another one changes.
    """
    found: list[list[int]] = []
    equations: list[int] = []
    sites: list[set[Site]] = []
    for k, change in enumerate(changes):
        more = 1
        if not isinstance(change.apply, OnOperands):
            more = sum(_equations(at[site]) for site in {*change.sites})
        for i, batch in enumerate(found):
            fits = len(batch) < most and equations[i] + more <= EQUATIONS
            if fits and not nested(change.sites, sites[i]):
                break
        else:
            i = len(found)
            found.append([])
            equations.append(0)
            sites.append(set())
        found[i].append(k)
        equations[i] += more
        sites[i].update(change.sites)
    return found


def _equations(eqn: Any) -> int:
    """How many there are, those of the body of a scan included."""
    return 1 + sum(_equations(within) for called in inner(eqn) for within in called.jaxpr.eqns)
