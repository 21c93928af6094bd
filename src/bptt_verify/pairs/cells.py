"""Any recurrent cell beside its twin: what all of them have in common.

A cell by hand is a module with

    Params(**weights)
    forward(params, x, *start, **options) -> states, cache
    backward(params, cache, dstates, dlast) -> Grads of weights, x and start, and the taps

and its twin one with

    forward(params, x, *start, **options, **taps) -> states

where states are one array (T, B, N), or a tuple of several, and a start is "state" + "0". The
equations are those of the docstring of the module by hand, the lines "(number) formula".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import jax.numpy as jnp

from bptt_verify.pair import Equation, Pair

Arrays = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell by hand and its twin: an entry of the registry.

    Args:
        name: what the report calls it.
        by_hand: the module with the hand-written forward and backward.
        twin: the module with the same forward in JAX.
        weights: shape by letter of each field of `Params`; one that is left out is None.
        states: shape by letter of each state of a sequence, such as `{"h": "H"}`; the output first.
        taps: shape by letter of each intermediate cotangent of a step, such as `{"delta": "4H"}`.
        shown: for each equation, by its number, the quantities that show it, "dU db".
        options: for each keyword of both forwards, the values to draw from.
        positive: initial states that have to be above 0: 1/2 + y² for a y that is drawn.
    """

    name: str
    by_hand: ModuleType
    twin: ModuleType
    weights: Mapping[str, str]
    states: Mapping[str, str]
    taps: Mapping[str, str]
    shown: Mapping[int, str]
    options: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    positive: Sequence[str] = ()

    def pair(self, layer: ModuleType | None = None) -> Pair:
        """The cell on sequences, with cotangents for all states and all last states.

        With `layer`, a changed copy of the module by hand takes its place.
        """
        pair = _pair(self, layer or self.by_hand)
        for name in self.positive:
            pair = _positive(pair, name)
        return pair


def _pair(cell: Cell, by_hand: ModuleType) -> Pair:
    weights, states, taps = cell.weights, cell.states, cell.taps
    starts = [f"{state}0" for state in states]

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        params = by_hand.Params(**{k: i[k] for k in weights})
        found, kept = by_hand.forward(params, i["x"], *(i[k] for k in starts), **given)
        return _outputs(found), (params, kept)

    def _outputs(found: Any) -> Arrays:
        all_steps = dict(zip(states, _tuple(found), strict=True))
        return {**all_steps, **{f"{k}_last": a[-1] for k, a in all_steps.items()}}

    def backward(kept: Any, d: Arrays) -> Arrays:
        each, last = [d[k] for k in states], [d[f"{k}_last"] for k in states]
        if len(states) > 1:
            each, last = by_hand.States(*each), by_hand.States(*last)
        else:
            (each,), (last,) = each, last
        grads = by_hand.backward(*kept, each, last)
        return {k: getattr(grads, k) for k in (*weights, "x", *starts, *taps)}

    def run(i: Arrays, **given: Any) -> Any:
        params = SimpleNamespace(**{k: i.get(k) for k in by_hand.Params._fields})
        return _tuple(cell.twin.forward(params, i["x"], *(i[k] for k in starts), **given))

    def twin_forward(i: Arrays, **given: Any) -> Arrays:
        return _outputs(run(i, **given, **{k: i[k] for k in taps}))

    def untied(i: Arrays, **given: Any) -> Arrays:
        """Step by step, with the weights of that step."""
        T, B, _ = i["x"].shape
        H = i[starts[-1]].shape[-1]
        zeros = {k: jnp.zeros((1, B, _times(shape) * H)) for k, shape in taps.items()}
        now, found = {k: i[k] for k in starts}, []
        for t in range(T):
            step = {k: i[k][t] for k in weights}
            out = run({**step, **now, "x": i["x"][t : t + 1]}, **given, **zeros)
            now = {k: a[-1] for k, a in zip(starts, out, strict=True)}
            found.append(out)
        return _outputs(tuple(jnp.concatenate(a) for a in zip(*found, strict=True)))

    all_states = {k: f"T B {shape}" for k, shape in states.items()}
    last_states = {f"{k}_last": f"B {shape}" for k, shape in states.items()}
    numbered = _equations(cell.name, cell.by_hand.__doc__ or "")
    shown = {name: numbered[n] for n, names in cell.shown.items() for name in names.split()}
    return Pair(
        name=cell.name,
        inputs={
            "x": "T B D",
            **{f"{k}0": f"B {shape}" for k, shape in states.items()},
            **weights,
        },
        outputs={**all_states, **last_states},
        taps={k: f"T B {shape}" for k, shape in taps.items()},
        states={f"{k}0": k for k in states},
        options=cell.options,
        forward=forward,
        backward=backward,
        twin=twin_forward,
        untied=untied,
        optional={*all_states, *last_states},
        equations=shown,
    )


def _positive(pair: Pair, name: str) -> Pair:
    """The pair with 1/2 + y² for an initial state, and y drawn in its place."""

    def started(i: Arrays) -> Arrays:
        return {**i, name: i[name].dtype.type(0.5) + i[name] * i[name]}

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        found, kept = pair.forward(started(i), **given)
        return found, (kept, i[name])

    def backward(kept: Any, d: Arrays) -> Arrays:
        assert pair.backward is not None
        grads = pair.backward(kept[0], d)
        return {**grads, name: grads[name] * (2 * kept[1])}

    def twin(i: Arrays, **given: Any) -> Arrays:
        found: Arrays = pair.twin({**i, name: 0.5 + i[name] * i[name]}, **given)
        return found

    # y is no state that a step could start from
    return replace(pair, forward=forward, backward=backward, twin=twin, untied=None, states={})


def _tuple(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _times(shape: str) -> int:
    return int(shape[:-1] or 1)


@cache
def _equations(name: str, docstring: str) -> dict[int, Equation]:
    """The numbered lines of a docstring; what is indented deeper belongs to the line above."""
    found = re.findall(r"^    \((\d+)\) +(.+(?:\n {9,}.+)*)", docstring, re.MULTILINE)
    return {int(n): Equation(int(n), 0, " ".join(text.split()), name) for n, text in found}
