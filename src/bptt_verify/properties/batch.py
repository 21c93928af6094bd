"""Sequences of a batch do not see each other."""

from __future__ import annotations

from functools import partial, reduce
from operator import add

import numpy as np

from bptt_verify.pair import Pair
from bptt_verify.properties.trial import (
    Band,
    Found,
    Property,
    Trial,
    agree,
    axis,
    counts,
    exact,
    input_shapes,
    take,
)


def _is_batched(pair: Pair) -> bool:
    return counts(pair, pair.batch)


def _is_batched_out(pair: Pair) -> bool:
    """Every output says which sequence it belongs to: each can have a cotangent of its own."""
    return _is_batched(pair) and all(
        axis(shape, pair.batch) is not None for shape in pair.outputs.values()
    )


def _of_sequences(t: Trial, band: Band, name: str, index: list[int]) -> Band | None:
    """A quantity of these sequences; None when it belongs to all of them, as weights do."""
    shape, batch = t.pair.shapes()[name], str(t.pair.batch)
    if axis(shape, batch) is None:
        return None
    return band.each(partial(take, shape=shape, letter=batch, index=np.array(index)))


def _permutation(t: Trial) -> Found:
    batch = str(t.pair.batch)
    order = t.rng().permutation(t.several(batch))
    got = yield from t.bands(*t.taken(batch, order))
    for name in got:
        moved = _of_sequences(t, t.base[name], name, list(order))
        yield name, agree(got[name], moved or t.base[name])


def _padding(t: Trial) -> Found:
    pair, batch = t.pair, str(t.pair.batch)
    size = t.case.sizes[batch]
    (inputs, cotangents), one_more = t.taken(batch, np.arange(size)), t.fresh({batch: 1})
    for name, shape in input_shapes(pair).items():
        if (at := axis(shape, batch)) is not None:
            inputs[name] = np.concatenate([inputs[name], one_more.inputs[name]], at)
    for name, d in one_more.cotangents.items():
        at = axis(pair.outputs[name], batch)
        cotangents[name] = np.concatenate([cotangents[name], np.zeros_like(d)], at)
    padded = yield from t.bands(inputs, cotangents, {batch: size + 1})
    for name, band in padded.items():
        before = _of_sequences(t, band, name, [*range(size)])
        yield name, agree(before or band, t.base[name])
        padding = _of_sequences(t, band, name, [size])
        if padding and name in t.gradients:
            got = padding.value
            yield f"{name} of the padding", agree(exact(got), exact(np.zeros_like(got)))


def _sum(t: Trial) -> Found:
    batch = str(t.pair.batch)
    each = [t.taken(batch, [b]) for b in range(t.several(batch))]
    alone = yield from t.bands_of(each, {batch: 1})
    for name in t.base:
        own = [_of_sequences(t, t.base[name], name, [b]) for b in range(len(alone))]
        for wanted, one in zip(own, alone, strict=True):
            if wanted:
                yield name, agree(one[name], wanted)
        if name in t.gradients and not any(own):
            yield name, agree(t.base[name], reduce(add, [one[name] for one in alone]))


def _twice(t: Trial) -> Found:
    batch = str(t.pair.batch)
    size = t.case.sizes[batch]
    doubled = yield from t.bands(*t.taken(batch, [*range(size), *range(size)]), {batch: 2 * size})
    for name in t.base:
        if moved := _of_sequences(t, t.base[name], name, [*range(size), *range(size)]):
            yield name, agree(doubled[name], moved)
        elif name in t.gradients:
            yield name, agree(doubled[name], t.base[name] + t.base[name])


PROPERTIES = (
    Property(
        "padding",
        "one more sequence whose cotangents are zero changes no gradient and has none",
        _is_batched_out,
        _padding,
    ),
    Property(
        "batch permutation",
        "sequences in another order give the same in that order, and the same weight gradients",
        _is_batched,
        _permutation,
    ),
    Property(
        "batch sum",
        "the weight gradients of each sequence alone add up to those of the batch",
        _is_batched_out,
        _sum,
    ),
    Property(
        "batch twice",
        "every sequence twice gives weight gradients twice as large, and the same for each",
        _is_batched_out,
        _twice,
    ),
)
