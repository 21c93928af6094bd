"""Truncated backpropagation through time, for any cell, in its two meanings.

Windowed: the cotangent of each state s_t goes back through the last k steps, t, t - 1, … t - k + 1,
and no further. The gradient is the exact one of

    (1)  s_t = cell(x_{t-k+1} … x_t, from s_{t-k}),  s_{t-k} a constant

for every t by itself, where s_t for t ≤ k starts from s_0, which is no constant; so k ≥ T cuts
nothing.

Chunked: the sequence is cut into pieces of k steps, the last of which may be shorter. Each starts
from the last state of the piece before it, taken for a constant; s_0 is none.

    (2)  s_{ck+1} … s_{ck+k} = cell(x_{ck+1} … x_{ck+k}, from s_{ck}),  s_{ck} a constant

The values of the states are those of the whole sequence in both. Windowed gives each state k terms,
for k times the work; chunked gives the last state of a piece k terms, and the first only one.
Letters: T steps, B batch, D input size, N size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door, ragged
from manual_bptt._cells import (
    a_cell,
    cotangents,
    each_state,
    grouped,
    joined,
    starts,
    steps,
    tupled,
)
from manual_bptt._door import Array


class Windows(NamedTuple):
    """What `windowed_backward` needs: what was kept of all windows, as sequences of a batch."""

    ragged: ragged.Cache
    first: Array  # (T,): the step at which the window of each step begins
    batch: int


class Chunks(NamedTuple):
    """What `chunked_backward` needs: of each piece the cell's cache and the first step; states."""

    caches: list[Any]
    first: list[int]
    states: tuple[Array, ...]  # (T, B, N) each


def windowed(
    cell: ModuleType, params: Any, x: Array, window: int, *start: Array, **options: Any
) -> tuple[tuple[Array, ...], Windows]:
    """All states of the sequence, and what the gradient through windows of k steps needs: (1).

    Args:
        cell: a module of this package with `forward` and `backward`.
        params: its weights.
        x: (T, B, D).
        window: k, at least 1.
        start: the states before the first step, (B, N) each; none for zeros.
        options: of the cell's `forward`.

    Returns all states, (T, B, N) each, and the cache for `windowed_backward`.

    Raises `TypeError` or `ValueError` as the cell does, and for a window that is no int of at least
    1.
    """
    cell = a_cell("cell", cell)
    k = _door.size("window", window)
    x, T, B = steps(x)
    k = min(k, T)
    given = each_state(cell, "start", start)
    found, _ = cell.forward(params, x, *given, **options)
    states = tupled(found)
    begin = [np.zeros_like(s[0]) if b is None else b for b, s in zip(given, states, strict=True)]
    end = np.arange(1, T + 1)  # the window of step t ends behind it, and begins at `first`
    first = np.maximum(end - k, 0)
    # window t of sequence b is sequence t B + b of a batch; beyond its length stands anything
    taken = np.minimum(np.arange(k)[:, None] + first, T - 1)  # (k, T)
    batch = x[taken].reshape(len(taken), T * B, *x.shape[2:])
    # (1) from s_{t-k}, or from s_0
    before = [np.concatenate([b[None], s])[first] for b, s in zip(begin, states, strict=True)]
    flat = [b.reshape(T * B, -1) for b in before]
    lengths = np.repeat(end - first, B)
    _, _, kept = ragged.forward(cell, params, batch, lengths, *flat, **options)
    return states, Windows(kept, first, B)


def windowed_backward(
    cell: ModuleType,
    params: Any,
    cache: Windows,
    dstates: Sequence[Array | None],
    dlast: Sequence[Array | None] | None = None,
) -> Any:
    """The gradient in which each state's cotangent goes back through k steps.

    Args:
        cell, params: what `windowed` had.
        cache: what `windowed` returned.
        dstates: for each state its cotangents (T, B, N); None is zero.
        dlast: for each state a cotangent that its last value has besides, (B, N); None is zero.

    Returns the cell's own `Grads`; those of a step, of x and δ, are summed over the windows.

    Raises `TypeError` or `ValueError` as the cell does.
    """
    cell = a_cell("cell", cell)
    kept, first, B = _door.instance("cache", cache, Windows)
    T = len(first)
    each, last = cotangents(cell, dstates, dlast, [s.reshape(T, B, -1) for s in kept.last])
    ends = []
    for d, d_last in zip(each, last, strict=True):
        d = d.copy()
        d[-1] += d_last
        ends.append(d.reshape(T * B, -1))
    grads = ragged.backward(cell, params, kept, [None] * len(ends), ends)._asdict()
    for name, g in grads.items():
        if name in starts(cell):
            # s_0 is the start of the windows that begin at the first step; the others' is constant
            grads[name] = g.reshape(T, B, -1)[first == 0].sum(axis=0)
        elif name not in cell.Params._fields and g is not None:
            parts = g.reshape(len(g), T, B, -1)  # step j of window t is step first_t + j
            total = np.zeros(parts.shape[1:], g.dtype)
            for j, t in np.ndindex(len(parts), T):
                if first[t] + j <= t:
                    total[first[t] + j] += parts[j, t]
            grads[name] = total
    return cell.Grads(**grads)


def chunked(
    cell: ModuleType, params: Any, x: Array, chunk: int, *start: Array, **options: Any
) -> tuple[tuple[Array, ...], Chunks]:
    """All states of the sequence, and what the gradient within pieces of k steps needs: (2).

    Args:
        chunk: k, at least 1.
        cell, params, x, start, options: as in `windowed`.

    Returns all states, (T, B, N) each, and the cache for `chunked_backward`.

    Raises `TypeError` or `ValueError` as `windowed` does.
    """
    cell = a_cell("cell", cell)
    k = _door.size("chunk", chunk)
    x, T, _ = steps(x)
    first = list(range(0, T, k))
    now = tuple(each_state(cell, "start", start))
    caches, found = [], []
    for at in first:
        # (2) s_{ck+1} … s_{ck+k} = cell(x_{ck+1} … x_{ck+k}, from s_{ck})
        states, cache = cell.forward(params, x[at : at + k], *now, **options)
        states = tupled(states)
        now = tuple(s[-1] for s in states)
        caches.append(cache)
        found.append(states)
    whole = tuple(np.concatenate(a) for a in zip(*found, strict=True))
    return whole, Chunks(caches, first, whole)


def chunked_backward(
    cell: ModuleType,
    params: Any,
    cache: Chunks,
    dstates: Sequence[Array | None],
    dlast: Sequence[Array | None] | None = None,
) -> Any:
    """The gradient that ends at the border of each piece.

    Args:
        cell, params: what `chunked` had.
        cache: what `chunked` returned.
        dstates, dlast: as in `windowed_backward`.

    Returns the cell's own `Grads`; those of s_0 come from the first piece alone.

    Raises `TypeError` or `ValueError` as the cell does.
    """
    cell = a_cell("cell", cell)
    caches, first, states = _door.instance("cache", cache, Chunks)
    every, last = cotangents(cell, dstates, dlast, states)
    none = [None] * len(states)
    pieces = []
    borders = [*first[1:], None]
    for at, behind, kept in zip(first, borders, caches, strict=True):
        each = [d[at:behind] for d in every]
        # what reaches the last state of a piece from the next one is cut
        ends = none if behind is not None else last
        pieces.append(cell.backward(params, kept, grouped(cell, each), grouped(cell, ends)))
    begin = {name: getattr(pieces[0], name) for name in starts(cell)}
    return cell.Grads(**joined(cell, pieces), **begin)
