"""A cell in both directions: forwards, and backwards from the end of each sequence.

    (1)  h→ = cell→(x),  h← = the cell← on x backwards, put back in order
    (2)  y_t = [h→_t, h←_t]

    (3)  ∂L/∂x = ∂L/∂x of cell→ + ∂L/∂x of cell←, put back in order

"Backwards" is within each sequence's length: its last step comes first, and what is beyond stays
where it is. To put something in order is to turn it round once more; that is linear, and its own
adjoint, so cotangents are turned round alike. A last state is the one behind the last step that its
direction takes: for h← that is step 1. Letters: T steps, B batch, D input size, N outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door, ragged
from manual_bptt._cells import a_cell, starts, steps
from manual_bptt._door import Array


class Cache(NamedTuple):
    """What `backward` needs: of each direction what was kept, and the lengths."""

    directions: tuple[ragged.Cache, ragged.Cache]
    lengths: Array  # (B,)


class Grads(NamedTuple):
    """∂L/∂ of each direction, as its cell gives them, and of x."""

    directions: tuple[Any, Any]
    x: Array | None  # (T, B, D), None for class indices


def forward(
    cell: ModuleType,
    params: tuple[Any, Any],
    x: Array,
    lengths: Array | None = None,
    begin: tuple[Sequence[Array], Sequence[Array]] = ((), ()),
    **options: Any,
) -> tuple[Array, tuple[tuple[Array, ...], tuple[Array, ...]], Cache]:
    """The outputs of both directions side by side: equations (1) and (2).

    Args:
        cell: a module of this package with `forward` and `backward`.
        params: its weights, forwards and backwards.
        x: (T, B, D), or what else the cell takes; what stands beyond a sequence's length may be
            anything, NaN too.
        lengths: (B,), integers from 0 to T; T for all when None.
        begin: the states before the first step of each direction, (B, ·) each; none for zeros.
        options: of the cell's `forward`.

    Returns y (T, B, 2N), 0 beyond a sequence's length; the last states of each direction, (B, ·)
    each; and the cache for `backward`.

    Raises `TypeError` or `ValueError` as the cell does, and for lengths that are no such integers.
    """
    cell = a_cell("cell", cell)
    params, begin = _both(cell, "params", params), _both(cell, "begin", begin)
    x, T, B = steps(x)
    if lengths is None:
        lengths = np.full(B, T)
    lengths = _door.Shapes({"B": B}, "x").integers(
        "lengths", lengths, "B", below=T + 1, what="lengths"
    )
    lengths = lengths.copy()  # kept, and the caller's own
    # (1) h→ = cell→(x),  h← = the cell← on x backwards, put back in order
    one, one_last, kept = ragged.forward(cell, params[0], x, lengths, *begin[0], **options)
    turned = ragged.reversed_within(x, lengths)
    two, two_last, kept_too = ragged.forward(cell, params[1], turned, lengths, *begin[1], **options)
    if one[0].shape != two[0].shape:
        sizes = f"{one[0].shape[-1]} and {two[0].shape[-1]}"
        raise ValueError(f"params: expected as many outputs in both directions, got {sizes}")
    # (2) y_t = [h→_t, h←_t]
    y = np.concatenate([one[0], ragged.reversed_within(two[0], lengths)], axis=-1)
    return y, (one_last, two_last), Cache((kept, kept_too), lengths)


def backward(
    cell: ModuleType,
    params: tuple[Any, Any],
    cache: Cache,
    dy: Array | None,
    dlast: tuple[Sequence[Array | None], Sequence[Array | None]] | None = None,
) -> Grads:
    """All gradients, 0 beyond a sequence's length: equation (3).

    Args:
        cell, params: what `forward` had.
        cache: what `forward` returned.
        dy: (T, B, 2N), the cotangent of y; None is zero.
        dlast: for each direction the cotangents of its last states, (B, ·) each; None is zero.

    Raises `TypeError` or `ValueError` as the cell does.
    """
    cell = a_cell("cell", cell)
    params = _both(cell, "params", params)
    directions, lengths = _door.instance("cache", cache, Cache)
    N = directions[0].last[0].shape[-1]
    shapes = _door.Shapes({"T": directions[0].steps, "B": len(lengths), "N": N})
    one = two = None
    if dy is not None:
        dy = shapes.floats("dy", dy, "T B 2N", directions[0].last[0].dtype, finite=False)
        one, two = dy[..., :N], ragged.reversed_within(dy[..., N:], lengths)
    ends = ((), ()) if dlast is None else _both(cell, "dlast", dlast)
    rest = [None] * (len(starts(cell)) - 1)
    first = ragged.backward(cell, params[0], directions[0], [one, *rest], ends[0])
    second = ragged.backward(cell, params[1], directions[1], [two, *rest], ends[1])
    # (3) ∂L/∂x = ∂L/∂x of cell→ + ∂L/∂x of cell←, put back in order
    dx = None if first.x is None else first.x + ragged.reversed_within(second.x, lengths)
    return Grads((first, second), dx)


def _both(cell: ModuleType, name: str, pair: Any) -> Any:
    """What there is one of for each direction; `TypeError` for anything but two."""
    wanted = "two of them, forwards and backwards"
    if isinstance(pair, cell.Params):
        raise TypeError(f"{name}: expected {wanted}, got one")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        got = len(pair) if isinstance(pair, tuple | list) else type(pair).__name__
        raise TypeError(f"{name}: expected {wanted}, got {got}")
    return pair
