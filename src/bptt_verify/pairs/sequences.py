"""What is made of cells, beside its twin: sequences of different lengths."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import jax_ref.ragged
import manual_bptt.ragged
from bptt_verify.pair import Index, Pair
from bptt_verify.pairs.cells import Cell

Arrays = dict[str, Any]


def ragged_pair(cell: Cell, layer: ModuleType = manual_bptt.ragged) -> Pair:
    """The cell on sequences of lengths from 1 to T, whose padding is NaN for the subject."""
    one = cell.pair()
    starts = [f"{state}0" for state in cell.states]

    def outputs(states: Any, last: Any) -> Arrays:
        found = dict(zip(cell.states, states, strict=True))
        return found | {f"{k}_last": a for k, a in zip(cell.states, last, strict=True)}

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        params = cell.by_hand.Params(**{k: i[k] for k in cell.weights})
        lengths = i["lengths"] + 1
        x = i["x"].copy()
        x[np.arange(len(x))[:, None] >= lengths] = np.nan
        start = [i[k] for k in starts]
        states, last, kept = layer.forward(cell.by_hand, params, x, lengths, *start, **given)
        return outputs(states, last), (params, kept)

    def backward(kept: Any, d: Arrays) -> Arrays:
        each, last = [d[k] for k in cell.states], [d[f"{k}_last"] for k in cell.states]
        grads = layer.backward(cell.by_hand, *kept, each, last)
        return {k: getattr(grads, k) for k in (*cell.weights, "x", *starts, *cell.taps)}

    def twin(i: Arrays, **given: Any) -> Arrays:
        params = SimpleNamespace(**{k: i.get(k) for k in cell.by_hand.Params._fields})
        start, taps = [i[k] for k in starts], {k: i[k] for k in cell.taps}
        lengths = i["lengths"] + 1
        return outputs(
            *jax_ref.ragged.forward(cell.twin, params, i["x"], lengths, *start, **given, **taps)
        )

    return Pair(
        name=f"{cell.name}-ragged",
        inputs={**one.inputs, "lengths": Index("B", below="T")},
        outputs=one.outputs,
        taps=one.taps,
        options=one.options,
        forward=forward,
        backward=backward,
        twin=twin,
        optional=one.optional,
        equations={k: e for k, e in one.equations.items() if not k.startswith("d")},
    )
