"""Truncated backpropagation through time as forward equations with constants in them.

(1)  windowed: s_t = cell(x_{t-k+1} … x_t, from s_{t-k}),  s_{t-k} a constant, but s_0 none
(2)  chunked: s_{ck+1} … s_{ck+k} = cell(x_{ck+1} … x_{ck+k}, from s_{ck}),  s_{ck} a constant
"""

from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jax_ref._cells import tupled

States = tuple[Array, ...]


def windowed(
    cell: ModuleType,
    params: Any,
    x: Array,
    window: int,
    start: States,
    options: dict[str, Any],
    taps: dict[str, Array],
) -> States:
    """All states, (T, B, N) each, of windows of k steps.

    The windows of all steps are the sequences of a batch. Those that would begin before the first
    step wait for it.

    Args:
        cell: a module of this package.
        params: its weights.
        x: (T, B, D).
        window: k.
        start: the states before the first step, (B, N) each.
        options, taps: of the cell; a tap is (T, B, ·).
    """
    T, B = x.shape[:2]
    whole = tupled(cell.forward(params, x, *start, **options, **taps))
    constant = [lax.stop_gradient(s) for s in whole]
    now = tuple(
        jnp.concatenate([*[s0[None]] * window, s])[:T].reshape(T * B, -1)  # s_{t-k}, or s_0
        for s0, s in zip(start, constant, strict=True)
    )

    def at(step: int, a: Array) -> Array:
        """The given step, counted from 0, of every window: (1, T B, ·)."""
        waiting = jnp.zeros((window - 1, *a.shape[1:]), a.dtype)
        return jnp.concatenate([waiting, a])[step : step + T].reshape(1, T * B, -1)

    there = jnp.ones((T, B, 1), bool)
    for j in range(window):
        p_j = {name: at(j, tap) for name, tap in taps.items()}
        new = tupled(cell.forward(params, at(j, x), *now, **options, **p_j))
        now = tuple(
            jnp.where(at(j, there)[0], a[0], s) for a, s in zip(new, now, strict=True)
        )  # (1)
    return tuple(s.reshape(T, B, -1) for s in now)


def chunked(
    cell: ModuleType,
    params: Any,
    x: Array,
    chunk: int,
    start: States,
    options: dict[str, Any],
    taps: dict[str, Array],
) -> States:
    """All states, (T, B, N) each, a constant at every border. Arguments as `windowed`."""

    def step(states: States, now: Any) -> tuple[States, States]:
        t, x_t, p_t = now
        border = (t % chunk == 0) & (t > 0)
        states = tuple(jnp.where(border, lax.stop_gradient(s), s) for s in states)
        one = {name: tap[None] for name, tap in p_t.items()}
        new = tupled(cell.forward(params, x_t[None], *states, **options, **one))  # (2)
        return (states := tuple(a[0] for a in new)), states

    found: States = lax.scan(step, tuple(start), (jnp.arange(len(x)), x, taps))[1]
    return found
