"""The gated recurrent unit that resets after the product, from its forward equations alone.

    (1)  u_t = U x_t + b,  v_t = W h_{t-1},  three blocks: r z n
    (2)  r_t = σ(uʳ_t + vʳ_t),  z_t = σ(uᶻ_t + vᶻ_t)
    (3)  q_t = vⁿ_t + bⁿ
    (4)  n_t = tanh(uⁿ_t + r_t ⊙ q_t)
    (5)  h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

Written for one sequence and mapped over the batch. Gradients, if wanted, are `jax.vjp`'s business.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def forward(params: Any, x: Array, h0: Array, *, delta: Array, epsilon: Array) -> Array:
    """All h (T, B, H).

    Args:
        params: anything with fields U (3H, D), W (3H, H), and b (3H,), b_n (H,) or None.
        x: (T, B, D).
        h0: (B, H).
        delta, epsilon: (T, B, 3H), added to u_t and v_t. Their cotangents at zero are
            δ_t = ∂L/∂u_t and ε_t = ∂L/∂v_t.
    """
    b = 0 if params.b is None else params.b
    b_n = 0 if params.b_n is None else params.b_n

    def one_sequence(x: Array, h0: Array, delta: Array, epsilon: Array) -> Array:
        def step(h: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x_t, p_t, q_t = now
            u_r, u_z, u_n = jnp.split(params.U @ x_t + b + p_t, 3)  # (1)
            v_r, v_z, v_n = jnp.split(params.W @ h + q_t, 3)  # (1)
            r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)  # (2)
            n = jnp.tanh(u_n + r * (v_n + b_n))  # (3), (4)
            h = (1 - z) * n + z * h  # (5)
            return h, h

        return lax.scan(step, h0, (x, delta, epsilon))[1]

    return jax.vmap(one_sequence, in_axes=(1, 0, 1, 1), out_axes=1)(x, h0, delta, epsilon)
