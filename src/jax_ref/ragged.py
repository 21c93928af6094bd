"""Sequences of different lengths: the cell on all steps, and only those count that are there.

h_t of sequence k counts for t ≤ length_k;  h_last of sequence k is h_{length_k}
"""

from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax import Array

from jax_ref._cells import tupled


def forward(
    cell: ModuleType, params: Any, x: Array, lengths: Array, *start: Array, **more: Any
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """All states (T, B, N), 0 beyond a sequence's length, and the last ones (B, N).

    Args:
        cell: a module of this package.
        params: its weights.
        x: (T, B, D).
        lengths: (B,), from 1 to T.
        start: the states before the first step, (B, N) each.
        more: options and taps of the cell.
    """
    there = (jnp.arange(len(x))[:, None] < lengths)[..., None]  # (T, B, 1)
    found = tupled(cell.forward(params, jnp.where(there, x, 0), *start, **more))
    last = tuple(jnp.take_along_axis(a, lengths[None, :, None] - 1, axis=0)[0] for a in found)
    return tuple(jnp.where(there, a, 0) for a in found), last
