"""The long short-term memory from its forward equations alone.

    (1)  a_t = U x_t + W h_{t-1} + b,  four blocks: i f g o
    (2)  i_t = σ(aⁱ_t + pⁱ ⊙ c_{t-1}),  f_t = σ(aᶠ_t + pᶠ ⊙ c_{t-1} + φ)
    (3)  g_t = tanh(aᵍ_t)
    (4)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (5)  o_t = σ(aᵒ_t + pᵒ ⊙ c_t)
    (6)  m_t = o_t ⊙ tanh(c_t)
    (7)  h_t = P m_t

Written for one sequence and mapped over the batch. Gradients, if wanted, are `jax.vjp`'s business.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

State = tuple[Array, Array]


def step(params: Any, state: State, x_t: Array, p_t: Array, forget_offset: float = 0.0) -> State:
    """One step of one sequence: h_t (R,) and c_t (H,) from those before, and x_t (D,).

    `p_t` (4H,) is added to a_t. Its cotangent at zero is δ_t = ∂L/∂a_t.
    """
    h, c = state
    a = params.U @ x_t + params.W @ h + p_t  # (1)
    if params.b is not None:
        a = a + params.b  # (1)
    a_i, a_f, a_g, a_o = jnp.split(a, 4)
    if params.p is None:
        i, f = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f + forget_offset)  # (2)
    else:
        p_i, p_f, p_o = jnp.split(params.p, 3)
        i, f = jax.nn.sigmoid(a_i + p_i * c), jax.nn.sigmoid(a_f + p_f * c + forget_offset)  # (2)
    g = jnp.tanh(a_g)  # (3)
    c = f * c + i * g  # (4)
    o = jax.nn.sigmoid(a_o if params.p is None else a_o + p_o * c)  # (5)
    m = o * jnp.tanh(c)  # (6)
    return m if params.P is None else params.P @ m, c  # (7)


def forward(
    params: Any,
    x: Array,
    h0: Array,
    c0: Array,
    *,
    forget_offset: float = 0.0,
    delta: Array,
) -> State:
    """All h (T, B, R) and c (T, B, H).

    Args:
        params: anything with fields U (4H, D), W (4H, R), and b (4H,), p (3H,), P (R, H) or None.
        x: (T, B, D).
        h0, c0: (B, R) and (B, H).
        forget_offset: φ.
        delta: (T, B, 4H), added to a_t. Its cotangent at zero is δ_t = ∂L/∂a_t.
    """

    def one_sequence(x: Array, h0: Array, c0: Array, delta: Array) -> State:
        def next_step(state: State, now: tuple[Array, Array]) -> tuple[State, State]:
            state = step(params, state, *now, forget_offset)
            return state, state

        return lax.scan(next_step, (h0, c0), (x, delta))[1]

    return jax.vmap(one_sequence, in_axes=(1, 0, 0, 1), out_axes=1)(x, h0, c0, delta)
