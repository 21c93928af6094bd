"""Layers of cells, one above the other, with dropout and residual connections between them.

    (1)  y⁰_t = x_t,  vˡ_t = Mˡ_t ⊙ yˡ⁻¹_t
    (2)  hˡ = cell(vˡ), all steps;  yˡ_t = hˡ_t + yˡ⁻¹_t

    (3)  ∂hˡ_t = ∂yˡ_t,  ∂L/∂vˡ by the cell
    (4)  ∂yˡ⁻¹_t = Mˡ_t ⊙ ∂L/∂vˡ_t + ∂yˡ_t

The masks Mˡ, of the layers above the first, are given (0 where a unit is dropped and 1/(1 - p)
elsewhere, say) and 1 without; the last term of (2) and of (4) is there above the first layer of a
stack with residual connections. hˡ is the output of a cell, the first of its states; what the other
states need the cell knows. Letters: T steps, B batch, D input size, N outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door
from manual_bptt._cells import a_cell, each_state, grouped, tupled
from manual_bptt._door import Array


class Layer(NamedTuple):
    """A cell of this package, its weights, and the options of its `forward`."""

    cell: ModuleType
    params: Any
    options: Mapping[str, Any] = {}


class Cache(NamedTuple):
    """What `backward` needs: of each layer what its cell kept, and its mask."""

    kept: list[Any]
    masks: list[Array | None]
    output: Array  # hᴸ (T, B, N)
    residual: bool


class Grads(NamedTuple):
    """∂L/∂ of each layer, as its cell gives them, and of x."""

    layers: list[Any]
    x: Array  # (T, B, D)


def forward(
    layers: Sequence[Layer],
    x: Array,
    starts: Sequence[Sequence[Array]] | None = None,
    *,
    masks: Sequence[Array | None] | None = None,
    residual: bool = False,
) -> tuple[Array, list[tuple[Array, ...]], Cache]:
    """The output of the top layer, all states of all layers: equations (1) and (2).

    Args:
        layers: from the bottom up.
        x: (T, B, D), or what else the cell at the bottom takes.
        starts: for each layer its states before the first step, (B, ·) each; zeros when None.
        masks: Mˡ (T, B, N) of each layer but the first, floats of the dtype of the weights; None,
            for one or for all of them, is 1.
        residual: whether each layer above the first adds its input; all have as many outputs then.

    Returns y of the top layer (T, B, N), the states (T, B, ·) of each layer, and the cache for
    `backward`, which refers to the masks (leave them unchanged until then).

    Raises `TypeError` or `ValueError` as the cells do, and for lists of another length.
    """
    _as_many("layers", layers, None)
    if not isinstance(residual, bool | np.bool_):
        raise TypeError(f"residual: expected True or False, got {residual!r}")
    starts = _as_many("starts", [()] * len(layers) if starts is None else starts, len(layers))
    above = len(layers) - 1
    given = _as_many("masks", [None] * above if masks is None else masks, above)
    # (1) y⁰_t = x_t
    y = x
    kept, states, used = [], [], []
    for at, (layer, start, mask) in enumerate(zip(layers, starts, [None, *given], strict=True)):
        # (1) vˡ_t = Mˡ_t ⊙ yˡ⁻¹_t
        v = y
        if mask is not None:
            shapes = _door.Shapes(dict(zip("TBN", y.shape, strict=True)), "the layer below")
            mask = shapes.floats(f"masks[{at - 1}]", mask, "T B N", y.dtype)
            v = mask * y
        # (2) hˡ = cell(vˡ)
        cell, params, options = _door.instance(f"layers[{at}]", layer, Layer)
        begin = each_state(a_cell(f"layers[{at}].cell", cell), f"starts[{at}]", start)
        found, cache = cell.forward(params, v, *begin, **options)
        found = tupled(found)
        h = found[0]
        # (2) yˡ_t = hˡ_t + yˡ⁻¹_t
        if residual and at and h.shape != y.shape:
            raise ValueError(
                f"layers[{at}]: expected {y.shape[-1]} outputs, as many as the layer below has, "
                f"for residual=True, got {h.shape[-1]}"
            )
        y = h + y if residual and at else h
        kept.append(cache)
        states.append(found)
        used.append(mask)
    return y, states, Cache(kept, used, h, residual)


def backward(
    layers: Sequence[Layer],
    cache: Cache,
    dy: Array | None,
    dlast: Sequence[Sequence[Array | None]] | None = None,
) -> Grads:
    """All gradients, from the top down: equations (3) and (4).

    Args:
        layers: what `forward` had.
        cache: what `forward` returned.
        dy: (T, B, N), the cotangent of the output of the top layer; None is zero.
        dlast: for each layer the cotangents of its last states, (B, ·) each; None is zero.

    Raises `TypeError` or `ValueError` as the cells do, and for lists of another length.
    """
    kept, masks, output, residual = _door.instance("cache", cache, Cache)
    _as_many("layers", layers, len(kept))
    dlast = _as_many("dlast", [()] * len(kept) if dlast is None else dlast, len(kept))
    dy = _door.Shapes().cotangents("dy", dy, "T B N", output)
    grads: list[Any] = []
    for at in reversed(range(len(layers))):
        cell, params, _ = _door.instance(f"layers[{at}]", layers[at], Layer)
        # (3) ∂hˡ_t = ∂yˡ_t,  ∂L/∂vˡ by the cell
        ends = each_state(cell, f"dlast[{at}]", dlast[at])
        each = [dy, *[None] * (len(ends) - 1)]
        found = cell.backward(params, kept[at], grouped(cell, each), grouped(cell, ends))
        grads.insert(0, found)
        # (4) ∂yˡ⁻¹_t = Mˡ_t ⊙ ∂L/∂vˡ_t + ∂yˡ_t
        mask = masks[at]
        below = found.x if mask is None else mask * found.x
        dy = below + dy if residual and at else below
    return Grads(grads, dy)


def _as_many(name: str, given: Sequence[Any], count: int | None) -> Sequence[Any]:
    """A list of so many, or of at least one; `TypeError` or `ValueError` for anything else."""
    if not isinstance(given, list | tuple):
        raise TypeError(f"{name}: expected a list, got {type(given).__name__}")
    if len(given) != count and (count is not None or not given):
        wanted = "at least 1" if count is None else str(count)
        raise ValueError(f"{name}: expected {wanted} of them, got {len(given)}")
    return given
