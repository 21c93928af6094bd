"""The long short-term memory with layer normalisation, from its forward equations alone.

    (1)  p_t = N(U x_t),  q_t = N(W h_{t-1})
    (2)  a_t = γˣ ⊙ p_t + γʰ ⊙ q_t + b,  four blocks: i f g o
    (3)  i_t = σ(aⁱ_t),  f_t = σ(aᶠ_t),  g_t = tanh(aᵍ_t),  o_t = σ(aᵒ_t)
    (4)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (5)  y_t = γᶜ ⊙ r_t + βᶜ,  r_t = N(c_t)
    (6)  h_t = o_t ⊙ tanh(y_t)

    N(v) = (v - mean v) / √(var v + ε)

Gradients, if wanted, are `jax.vjp`'s business.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

State = tuple[Array, Array]


def normalise(v: Array) -> Array:
    """N(v) over the last axis, with ε = 1e-5."""
    centred = v - jnp.mean(v, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + 1e-5)


def forward(params: Any, x: Array, h0: Array, c0: Array, *, delta: Array) -> State:
    """All h and c, (T, B, H) each.

    Args:
        params: anything with fields U (4H, D), W (4H, H), b, gamma_x and gamma_h (4H,), gamma_c and
            beta_c (H,).
        x: (T, B, D).
        h0, c0: (B, H).
        delta: (T, B, 4H), added to a_t. Its cotangent at zero is δ_t = ∂L/∂a_t.
    """

    def step(state: State, now: tuple[Array, Array]) -> tuple[State, State]:
        (h, c), (x_t, p_t) = state, now
        p, q = normalise(x_t @ params.U.T), normalise(h @ params.W.T)  # (1)
        a = params.gamma_x * p + params.gamma_h * q + params.b + p_t  # (2)
        a_i, a_f, a_g, a_o = jnp.split(a, 4, axis=-1)
        i, f, o = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jax.nn.sigmoid(a_o)  # (3)
        c = f * c + i * jnp.tanh(a_g)  # (3), (4)
        y = params.gamma_c * normalise(c) + params.beta_c  # (5)
        h = o * jnp.tanh(y)  # (6)
        return (h, c), (h, c)

    return lax.scan(step, (h0, c0), (x, delta))[1]
