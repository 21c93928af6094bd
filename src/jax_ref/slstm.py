"""The sLSTM from its forward equations alone.

    (1)  a_t = U x_t + W h_{t-1} + b,  four blocks: i f g o
    (2)  l_t = log σ(aᶠ_t)
    (3)  m_t = max(l_t + m_{t-1}, aⁱ_t)
    (4)  i_t = exp(aⁱ_t - m_t),  f_t = exp(l_t + m_{t-1} - m_t)
    (5)  g_t = tanh(aᵍ_t),  o_t = σ(aᵒ_t)
    (6)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (7)  n_t = f_t ⊙ n_{t-1} + i_t
    (8)  h_t = o_t ⊙ c_t / n_t

Written for one sequence and mapped over the batch. Gradients, if wanted, are `jax.vjp`'s business.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

State = tuple[Array, Array, Array, Array]


def forward(
    params: Any, x: Array, h0: Array, c0: Array, n0: Array, m0: Array, *, delta: Array
) -> State:
    """All h, c, n and m, (T, B, H) each.

    Args:
        params: anything with fields U (4H, D), W (4H, H), and b (4H,) or None.
        x: (T, B, D).
        h0, c0, n0, m0: (B, H).
        delta: (T, B, 4H), added to a_t. Its cotangent at zero is δ_t = ∂L/∂a_t.
    """
    b = 0 if params.b is None else params.b

    def one_sequence(x: Array, h0: Array, c0: Array, n0: Array, m0: Array, delta: Array) -> State:
        def step(state: State, now: tuple[Array, Array]) -> tuple[State, State]:
            (h, c, n, m), (x_t, p_t) = state, now
            a_i, a_f, a_g, a_o = jnp.split(params.U @ x_t + params.W @ h + b + p_t, 4)  # (1)
            before = jax.nn.log_sigmoid(a_f) + m  # (2)
            m = jnp.where(before >= a_i, before, a_i)  # (3); at a tie the first term
            i, f = jnp.exp(a_i - m), jnp.exp(before - m)  # (4)
            g, o = jnp.tanh(a_g), jax.nn.sigmoid(a_o)  # (5)
            c = f * c + i * g  # (6)
            n = f * n + i  # (7)
            h = o * (c / n)  # (8)
            return (h, c, n, m), (h, c, n, m)

        return lax.scan(step, (h0, c0, n0, m0), (x, delta))[1]

    axes = (1, 0, 0, 0, 0, 1)
    return jax.vmap(one_sequence, in_axes=axes, out_axes=1)(x, h0, c0, n0, m0, delta)
