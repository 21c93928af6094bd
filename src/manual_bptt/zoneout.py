"""Zoneout: at every step some units of the state stay what they were, for any cell.

    (1)  s̃_t = cell(x_t, s_{t-1}),  one step
    (2)  s_t = k_t ⊙ s_{t-1} + (1 - k_t) ⊙ s̃_t

    (3)  ∂s̃_t = (1 - k_t) ⊙ ∂s_t
    (4)  ∂s_{t-1} = ∂L/∂s_{t-1} + k_t ⊙ ∂s_t + what the cell carries back from ∂s̃_t

Krueger et al., arXiv:1606.01305. Each state s of the cell has a k of its own; k_t is given, 1 where
a unit stays and 0 elsewhere in training, the probability of the former when the model is used. It
has no gradient. ∂s_t is all that reaches s_t.
Letters: T steps, B batch, D input size, N size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door
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


class Cache(NamedTuple):
    """What `backward` needs: what the cell kept of each step, and k."""

    steps: list[Any]
    kept: list[Array]  # k (T, B, N) of each state


def forward(
    cell: ModuleType,
    params: Any,
    x: Array,
    kept: Sequence[Array],
    start: Sequence[Array] = (),
    **options: Any,
) -> tuple[tuple[Array, ...], Cache]:
    """All states of the sequence: equations (1) and (2).

    Args:
        cell: a module of this package with `forward` and `backward`.
        params: its weights.
        x: (T, B, D), or what else the cell takes.
        kept: k (T, B, N) for each state of the cell, floats of the dtype of the weights.
        start: the states before the first step, (B, N) each; none for zeros.
        options: of the cell's `forward`.

    Returns all states, (T, B, N) each, and the cache for `backward`, which refers to k (leave it
    unchanged until then).

    Raises `TypeError` or `ValueError` as the cell does, and for k of another shape.
    """
    cell = a_cell("cell", cell)
    x, T, _ = steps(x)
    now = tuple(each_state(cell, "start", start))
    caches, found = [], []
    for t in range(T):
        # (1) s̃_t = cell(x_t, s_{t-1})
        new, cache = cell.forward(params, x[t : t + 1], *now, **options)
        new = [a[0] for a in tupled(new)]  # (B, N) each
        if t == 0:
            now = tuple(np.zeros_like(a) if s is None else s for s, a in zip(now, new, strict=True))
            kept = _checked(each_state(cell, "kept", kept), new, T)
        # (2) s_t = k_t ⊙ s_{t-1} + (1 - k_t) ⊙ s̃_t
        now = tuple(k[t] * s + (1 - k[t]) * a for k, s, a in zip(kept, now, new, strict=True))
        caches.append(cache)
        found.append(now)
    return tuple(np.stack(a) for a in zip(*found, strict=True)), Cache(caches, list(kept))


def backward(
    cell: ModuleType,
    params: Any,
    cache: Cache,
    dstates: Sequence[Array | None],
    dlast: Sequence[Array | None] | None = None,
) -> Any:
    """All gradients of the cell: equations (3) and (4).

    Args:
        cell, params: what `forward` had.
        cache: what `forward` returned.
        dstates: for each state its cotangents (T, B, N); None is zero.
        dlast: for each state a cotangent that its last value has besides, (B, N); None is zero.

    Returns the cell's own `Grads`, of everything at its step.

    Raises `TypeError` or `ValueError` as the cell does.
    """
    cell = a_cell("cell", cell)
    caches, kept = _door.instance("cache", cache, Cache)
    # k has the shape of its state; reached: what reaches each state from later steps
    each, reached = cotangents(cell, dstates, dlast, kept)
    found: list[Any] = []
    for t in reversed(range(len(caches))):
        ds = [d[t] + r for d, r in zip(each, reached, strict=True)]  # ∂s_t
        # (3) ∂s̃_t = (1 - k_t) ⊙ ∂s_t
        new = [((1 - k[t]) * d)[None] for k, d in zip(kept, ds, strict=True)]
        none = [None] * len(new)
        grads = cell.backward(params, caches[t], grouped(cell, new), grouped(cell, none))
        # (4) ∂s_{t-1} = ∂L/∂s_{t-1} + k_t ⊙ ∂s_t + what the cell carries back from ∂s̃_t
        carried = [getattr(grads, name) for name in starts(cell)]
        reached = [k[t] * d + c for k, d, c in zip(kept, ds, carried, strict=True)]
        found.insert(0, grads)
    begin = dict(zip(starts(cell), reached, strict=True))
    return cell.Grads(**joined(cell, found), **begin)


def _checked(kept: Sequence[Array], states: Sequence[Array], T: int) -> list[Array]:
    checked = []
    for n, (k, s) in enumerate(zip(kept, states, strict=True)):
        shapes = _door.Shapes({"T": T, "B": s.shape[0], "N": s.shape[1]}, "x and params")
        checked.append(shapes.floats(f"kept[{n}]", k, "T B N", s.dtype))
    return checked
