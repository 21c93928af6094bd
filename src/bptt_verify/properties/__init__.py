"""What holds for a right backward pass besides equal gradients.

Each property runs the subject at other arrays and compares what comes back with itself: bit for
bit, or within the sum of the tolerances that the oracle gives at each of the places. So a property
can see what subject and twin have wrong in common. A pair leaves one out by naming it in `without`.
"""

from __future__ import annotations

from collections.abc import Collection

from bptt_verify.compare import Comparison
from bptt_verify.pair import Pair
from bptt_verify.properties import batch, calls, linear, sequence, symmetry
from bptt_verify.properties.trial import NothingSaid, Property, Trial, worst

__all__ = ["PROPERTIES", "Property", "Trial", "check", "of"]

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


def check(trial: Trial, names: Collection[str] | None = None) -> dict[str, Comparison]:
    """How far each property of the pair holds in this case.

    Those about which the case says nothing are left out. With `names`, only those properties.

    Raises `ValueError` as `of` does, and for a twin that
    cannot be differentiated forward or an `untied` that raises.
    """
    found: dict[str, Comparison] = {}
    if trial.answer.out_of_range:
        return found
    for name, prop in of(trial.pair).items():
        if names is None or name in names:
            try:
                comparison = worst(prop.check(trial))
            except NothingSaid:
                continue
            if comparison is not None:
                found[name] = comparison
    return found
