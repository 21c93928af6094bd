"""Zoneout from its forward equations alone, for any cell.

(1)  s̃_t = cell(x_t, s_{t-1}),  one step
(2)  s_t = k_t ⊙ s_{t-1} + (1 - k_t) ⊙ s̃_t
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
from jax import Array, lax

from jax_ref._cells import tupled


def forward(
    cell: ModuleType,
    params: Any,
    x: Array,
    kept: Sequence[Array],
    start: Sequence[Array],
    options: dict[str, Any],
    taps: dict[str, Array],
) -> tuple[Array, ...]:
    """All states, (T, B, N) each.

    Args:
        cell: a module of this package.
        params: its weights.
        x: (T, B, D).
        kept: k (T, B, N) for each state of the cell.
        start: the states before the first step, (B, N) each.
        options, taps: of the cell; a tap is (T, B, ·).
    """

    def step(states: tuple[Array, ...], now: Any) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        one = jax.tree.map(lambda a: a[None], now)
        x_t, k_t, p_t = one
        new = tupled(cell.forward(params, x_t, *states, **options, **p_t))  # (1)
        states = tuple(
            k[0] * s + (1 - k[0]) * a[0] for k, s, a in zip(k_t, states, new, strict=True)
        )  # (2)
        return states, states

    found: tuple[Array, ...] = lax.scan(step, tuple(start), (x, tuple(kept), taps))[1]
    return found
