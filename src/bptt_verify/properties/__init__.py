"""What holds for a right backward pass besides equal gradients.

Each property runs the subject at other arrays and compares what comes back with itself: bit for
bit, or within the sum of the tolerances that the oracle gives at each of the places. So a property
can see what subject and twin have wrong in common. A pair leaves one out by naming it in `without`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Any

from bptt_verify.compare import Comparison
from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Answer
from bptt_verify.pair import Pair
from bptt_verify.properties import batch, calls, linear, sequence, symmetry
from bptt_verify.properties.trial import Found, NothingSaid, Property, Request, Trial, worst

__all__ = ["PROPERTIES", "Ask", "Property", "Trial", "check", "of"]

TIES = "ties"
"""Not a property, but left out in the same way: values on a grid, where kinks and ties are met."""

PROPERTIES: dict[str, Property] = {
    p.name: p for theme in (linear, sequence, batch, symmetry, calls) for p in theme.PROPERTIES
}


def of(pair: Pair) -> dict[str, Property]:
    """The properties that apply to the pair and are not switched off.

    Raises `ValueError` for a name in `pair.without` that no property has.
    """
    unknown = set(pair.without) - {*PROPERTIES, TIES}
    if unknown:
        raise ValueError(
            f"pair {pair.name!r}: without: expected names among {', '.join([*PROPERTIES, TIES])}; "
            f"got {', '.join(sorted(map(repr, unknown)))}"
        )
    return {n: p for n, p in PROPERTIES.items() if n not in pair.without and p.applies(pair)}


Ask = Callable[[Sequence[tuple[Case, Drawn]]], Sequence[Answer]]
"""How the oracle is asked, about many points at once."""


def check(asked: Sequence[tuple[Trial, Collection[str]]], ask: Ask) -> list[dict[str, Comparison]]:
    """How far each of these properties holds in each case, as far as they apply to the pair.

    Those about which the case says nothing are left out.

    Raises `ValueError` as `of` does, and for a twin that
    cannot be differentiated forward or an `untied` that raises.
    """
    work = [
        [
            _Work(name, prop.check(trial))
            for name, prop in of(trial.pair).items()
            if name in names and not trial.answer.out_of_range
        ]
        for trial, names in asked
    ]
    waiting = [one for each in work for one in each]
    while waiting:
        for one in waiting:
            one.go_on()
        waiting = [one for one in waiting if one.points]
        answers = iter(ask([point for one in waiting for point in one.points]) if waiting else ())
        for one in waiting:
            one.answers = list(islice(answers, len(one.points)))
    return [
        {one.name: found for one in each if (found := worst(one.found)) is not None}
        for each in work
    ]


class _Work:
    """A property at work in one case."""

    def __init__(self, name: str, at_work: Found) -> None:
        self.name = name
        self.found: list[tuple[str, Comparison]] = []
        self.points: list[tuple[Case, Drawn]] = []
        """What it has asked about; nothing once it is done."""
        self.answers: list[Answer] | None = None
        self._at_work = at_work

    def go_on(self) -> None:
        """Up to the next request, or to the end."""
        sent: Any = self.answers
        self.points = []
        try:
            while not isinstance(said := self._at_work.send(sent), Request):
                self.found.append(said)
                sent = None
        except StopIteration:
            return
        except NothingSaid:
            self.found = []
            return
        self.points = said.points
