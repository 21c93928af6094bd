"""Sequences of different lengths in one batch, for any cell: padding is never read.

The batch is taken longest first and cut in time wherever a sequence ends. Between two cuts the same
sequences are alive, and the cell runs on these alone, from the state that the stretch before it
left; so a state stays what it is after the last step of its sequence. On the way back, what reaches
the state at a cut comes from the next stretch for the sequences that go on, and is the cotangent of
the last state for those that end there. Weights add up over the stretches.

    h_t of sequence k counts for t ≤ length_k;  h_last of sequence k is h_{length_k}

Letters: T steps, B batch, N size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door
from manual_bptt._cells import a_cell, each_state, grouped, of_the_cell, starts, steps, tupled
from manual_bptt._door import Array


class Stretch(NamedTuple):
    """Steps in which the same sequences are alive, and what the cell kept of them."""

    first: int
    last: int
    alive: int
    cache: Any


class Cache(NamedTuple):
    """What `backward` needs: the stretches, and where each sequence stands in them."""

    stretches: list[Stretch]
    order: Array  # (B,): the sequences, longest first
    last: list[Array]  # (B, N) each: the last states, in that order
    steps: int  # T, padding included


def forward(
    cell: ModuleType, params: Any, x: Array, lengths: Array, *start: Array, **options: Any
) -> tuple[tuple[Array, ...], tuple[Array, ...], Cache]:
    """The cell on the first `lengths[k]` steps of each sequence k.

    Args:
        cell: a module of this package with `forward` and `backward`.
        params: its weights.
        x: (T, B, D); what stands beyond a sequence's length may be anything, NaN too.
        lengths: (B,), integers from 0 to T.
        start: the states before the first step, (B, N) each; none for zeros.
        options: of the cell's `forward`.

    Returns all states (T, B, N), 0 beyond a sequence's length; the last states (B, N), which are
    those at the start for a length of 0; and the cache.

    Raises `TypeError` or `ValueError` as the cell does, for lengths that are no such integers, and
    for a start with another number of states.
    """
    cell = a_cell("cell", cell)
    x, T, B = steps(x)
    lengths = _door.Shapes({"B": B}, "x").integers(
        "lengths", lengths, "B", below=T + 1, what="lengths"
    )
    order = np.argsort(-lengths, kind="stable")
    longest_first = lengths[order]
    now: list[Any] = [
        None if s is None else _door.Shapes({"B": B}, "x").floats(f"start[{n}]", s, "B N")[order]
        for n, s in enumerate(each_state(cell, "start", start))
    ]
    stretches = []
    parts: list[list[Array]] = []
    for first, last in pairwise([0, *np.unique(lengths[lengths > 0])]):
        alive = int((longest_first > first).sum())
        begin = [None if s is None else s[:alive].copy() for s in now]  # the cell keeps them
        found, cache = cell.forward(params, x[first:last, order[:alive]], *begin, **options)
        found = tupled(found)
        for n, a in enumerate(found):
            if now[n] is None:
                now[n] = np.zeros((B, a.shape[-1]), a.dtype)
            now[n][:alive] = a[-1]
        stretches.append(Stretch(first, int(last), alive, cache))
        parts.append(list(found))
    if not parts:
        raise ValueError("lengths: expected a sequence of at least one step, got only 0")
    whole = [np.zeros((T, B, s.shape[-1]), s.dtype) for s in now]
    for stretch, found in zip(stretches, parts, strict=True):
        for a, part in zip(whole, found, strict=True):
            a[stretch.first : stretch.last, order[: stretch.alive]] = part
    return tuple(whole), tuple(_put(s, order) for s in now), Cache(stretches, order, now, T)


def backward(
    cell: ModuleType,
    params: Any,
    cache: Cache,
    dstates: Sequence[Array | None],
    dlast: Sequence[Array | None],
) -> Any:
    """All gradients of the cell, 0 beyond a sequence's length.

    Args:
        cell: the module that `forward` had.
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: for each state its cotangents (T, B, N); what stands beyond a sequence's length is
            not read; None is zero.
        dlast: for each state the cotangent of its last value (B, N); None is zero.

    Returns the cell's own `Grads`.

    Raises `TypeError` or `ValueError` as the cell does, and for a list with another number of
    states.
    """
    cell = a_cell("cell", cell)
    stretches, order, last_states, T = _door.instance("cache", cache, Cache)
    of_the_cell(cell, last_states)
    B = len(order)
    each = each_state(cell, "dstates", dstates)
    carried = each_state(cell, "dlast", dlast)
    for n, s in enumerate(last_states):
        shapes = _door.Shapes({"T": T, "B": B, "N": s.shape[-1]})
        if each[n] is not None:
            each[n] = shapes.floats(f"dstates[{n}]", each[n], "T B N", s.dtype, finite=False)
        carried[n] = shapes.cotangents(f"dlast[{n}]", carried[n], "B N", s)[order]
    total: dict[str, Any] = {}
    for first, last, alive, kept in reversed(stretches):
        now = [None if d is None else d[first:last, order[:alive]] for d in each]
        ends = [d[:alive] for d in carried]
        grads = cell.backward(params, kept, grouped(cell, now), grouped(cell, ends))._asdict()
        for d, name in zip(carried, starts(cell), strict=True):
            d[:alive] = grads.pop(name)
        for name, g in grads.items():
            if name in cell.Params._fields:
                total[name] = g if name not in total or g is None else total[name] + g
            elif g is None:  # x are class indices
                total[name] = None
            else:  # of every step: x, and δ
                if name not in total:
                    total[name] = np.zeros((T, B, g.shape[-1]), g.dtype)
                total[name][first:last, order[:alive]] = g
    total |= {name: _put(d, order) for name, d in zip(starts(cell), carried, strict=True)}
    return cell.Grads(**total)


def reversed_within(sequence: Array, lengths: Array) -> Array:
    """Each sequence (T, B, N) or (T, B) backwards within its length, its padding where it was.

    Its own inverse, and its own adjoint: it carries gradients back as well.
    """
    t = np.arange(len(sequence))[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)  # (T, B)
    shape = (*source.shape, *[1] * (sequence.ndim - 2))
    return np.take_along_axis(sequence, source.reshape(shape), axis=0)


def _put(sorted_rows: Array, order: Array) -> Array:
    """The rows, longest first, back in the order in which they came."""
    rows = np.empty_like(sorted_rows)
    rows[order] = sorted_rows
    return rows
