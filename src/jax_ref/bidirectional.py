"""A cell in both directions, from the forward equations alone.

(1)  h→ = cell→(x),  h← = the cell← on x backwards, put back in order
(2)  y_t = [h→_t, h←_t]
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax import Array

from jax_ref import ragged


def forward(
    cell: ModuleType,
    params: Sequence[Any],
    x: Array,
    lengths: Array,
    starts: Sequence[Sequence[Array]],
    more: Sequence[dict[str, Any]],
) -> tuple[Array, tuple[tuple[Array, ...], tuple[Array, ...]]]:
    """y (T, B, 2N), 0 beyond a sequence's length, and the last states of each direction.

    Args:
        cell: a module of this package.
        params: its weights, forwards and backwards.
        x: (T, B, D).
        lengths: (B,), from 1 to T.
        starts: the states before the first step of each direction, (B, ·) each.
        more: options and taps of the cell in each direction.
    """
    t = jnp.arange(len(x))[:, None]
    turned = jnp.where(t < lengths, lengths - 1 - t, t)[..., None]  # which step stands at t
    backwards = jnp.take_along_axis(x, turned, axis=0)
    one, one_last = ragged.forward(cell, params[0], x, lengths, *starts[0], **more[0])
    two, two_last = ragged.forward(cell, params[1], backwards, lengths, *starts[1], **more[1])
    y = jnp.concatenate([one[0], jnp.take_along_axis(two[0], turned, axis=0)], axis=-1)
    return y, (one_last, two_last)
