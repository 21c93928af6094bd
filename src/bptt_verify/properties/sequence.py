"""What the order of time says about a backward pass."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bptt_verify.pair import Pair
from bptt_verify.properties.trial import (
    Arrays,
    Band,
    Found,
    Property,
    Trial,
    agree,
    axis,
    counts,
    exact,
    in_float64,
    input_shapes,
    take,
    without_taps,
)


def _reaches_out(pair: Pair) -> bool:
    out = [*pair.outputs.values(), *pair.probes.values()]
    return counts(pair, pair.time) and any(axis(shape, pair.time) is not None for shape in out)


def _causality(t: Trial) -> Found:
    pair, time = t.pair, str(t.pair.time)
    steps = t.several(time)
    k = int(t.rng().integers(1, steps))
    early, late = np.arange(k), np.arange(k, steps)
    shapes = pair.shapes()

    # other inputs after step k
    inputs, fresh = dict(t.drawn.inputs), t.fresh().inputs
    for name, shape in input_shapes(pair).items():
        if (at := axis(shape, time)) is not None:
            kept, new = take(inputs[name], shape, time, early), take(fresh[name], shape, time, late)
            inputs[name] = np.concatenate([kept, new], at)
    got = t.run(inputs, t.drawn.cotangents)
    for name in t.forwards:
        if axis(shapes[name], time) is not None:
            before, after = (take(a[name], shapes[name], time, early) for a in (t.ran, got))
            yield name, agree(exact(after), exact(before))

    # cotangents up to step k only
    cotangents = {name: np.zeros_like(d) for name, d in t.drawn.cotangents.items()}
    for name, d in t.drawn.cotangents.items():
        if (at := axis(pair.outputs[name], time)) is not None:
            kept = take(d, pair.outputs[name], time, early)
            nothing = take(cotangents[name], pair.outputs[name], time, late)
            cotangents[name] = np.concatenate([kept, nothing], at)
    if any(d.any() for d in cotangents.values()):
        got = t.run(t.drawn.inputs, cotangents)
        for name, shape in pair.differentiable.items():
            if axis(shape, time) is not None:
                after = take(got[f"d{name}"], shape, time, late)
                yield f"d{name}", agree(exact(after), exact(np.zeros_like(after)))


def _hands_over(pair: Pair) -> bool:
    if not pair.states or not counts(pair, pair.time):
        return False
    # what has no time axis is taken for a last state; anything else may be a sum over all steps
    last = {pair.floats[state] for state in pair.states}
    timeless = {shape for shape in pair.outputs.values() if axis(shape, pair.time) is None}
    return timeless <= last and set(pair.states.values()) <= set(pair.outputs)


def _split_and_join(t: Trial) -> Found:
    pair, time = t.pair, str(t.pair.time)
    steps = t.several(time)
    k = int(t.rng().integers(1, steps))
    # the state crosses forward …
    inputs, cotangents = t.taken(time, np.arange(k))
    before = t.run(inputs, cotangents, {time: k})
    inputs2, cotangents2 = t.taken(time, np.arange(k, steps))
    inputs2.update({state: before[after][-1] for state, after in pair.states.items()})
    second = yield from t.bands(inputs2, cotangents2, {time: steps - k})
    # … and its gradient back
    for name, d in cotangents.items():
        timeless = axis(pair.outputs[name], time) is None
        cotangents[name] = np.zeros_like(d) if timeless else d.copy()
    for state, after in pair.states.items() if pair.backward else ():
        cotangents[after][-1] += second[f"d{state}"].value.astype(t.dtype)
    first = yield from t.bands(inputs, cotangents, {time: k})

    shapes = pair.shapes()
    for name in [*t.forwards, *t.gradients]:
        at = axis(shapes[name], time)
        if at is not None:
            joined = _concatenate(first[name], second[name], at)
        elif name in pair.outputs:
            joined = second[name]
        elif name in (f"d{state}" for state in pair.states):
            joined = first[name]
        elif name in (f"d{other}" for other in pair.differentiable):
            joined = first[name] + second[name]
        else:
            continue  # a probe or tap of no known step
        yield name, agree(t.base[name], joined)


def _concatenate(a: Band, b: Band, at: int) -> Band:
    return Band(
        np.concatenate([a.value, b.value], at), np.concatenate([a.tolerance, b.tolerance], at)
    )


def _is_untied(pair: Pair) -> bool:
    return pair.untied is not None and pair.backward is not None and counts(pair, pair.time)


def _untied_weights(t: Trial) -> Found:
    pair, inputs = t.pair, without_taps(t)
    untied: Any = pair.untied
    steps = t.case.sizes[str(pair.time)]
    tied = {
        name: inputs.pop(name)
        for name, shape in pair.floats.items()
        if axis(shape, pair.time) is None and axis(shape, pair.batch) is None
    }

    def summed(weights: Any, cotangents: Any) -> Any:
        def forward(weights: Any) -> Any:
            everything = untied({**inputs, **weights}, **t.case.options)
            return {name: everything[name] for name in pair.outputs}

        (found,) = jax.vjp(forward, weights)[1](cotangents)
        return [found[name].sum(0) for name in tied]

    weights: Arrays = {n: np.repeat(w[None], steps, 0) for n, w in tied.items()}
    found = t.evaluate("untied", summed, weights, in_float64(t.drawn.cotangents))
    for name, wanted in zip(tied, found, strict=True):
        yield f"d{name}", agree(t.base[f"d{name}"], wanted)


PROPERTIES = (
    Property(
        "causality",
        "what happens after a step changes nothing at or before it, and nothing flows back to it",
        _reaches_out,
        _causality,
    ),
    Property(
        "split and join",
        "two halves in sequence, state and gradient handed over, give the whole",
        _hands_over,
        _split_and_join,
    ),
    Property(
        "untied weights",
        "the gradient of a weight is the sum over steps of those of a copy at every step",
        _is_untied,
        _untied_weights,
    ),
)
