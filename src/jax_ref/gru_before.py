"""The gated recurrent unit that resets before the product, from its forward equations alone.

    (1)  u_t = U x_t + b,  three blocks: r z n
    (2)  r_t = σ(uʳ_t + Wʳ h_{t-1}),  z_t = σ(uᶻ_t + Wᶻ h_{t-1})
    (3)  q_t = r_t ⊙ h_{t-1}
    (4)  n_t = tanh(uⁿ_t + Wⁿ q_t)
    (5)  h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

Written for one sequence and mapped over the batch. Gradients, if wanted, are `jax.vjp`'s business.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def forward(params: Any, x: Array, h0: Array, *, delta: Array) -> Array:
    """All h (T, B, H).

    Args:
        params: anything with fields U (3H, D), W (3H, H), and b (3H,) or None.
        x: (T, B, D).
        h0: (B, H).
        delta: (T, B, 3H), added to u_t. Its cotangent at zero is δ_t = ∂L/∂u_t.
    """
    b = 0 if params.b is None else params.b
    W_r, W_z, W_n = jnp.split(params.W, 3)

    def one_sequence(x: Array, h0: Array, delta: Array) -> Array:
        def step(h: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            x_t, p_t = now
            u_r, u_z, u_n = jnp.split(params.U @ x_t + b + p_t, 3)  # (1)
            r, z = jax.nn.sigmoid(u_r + W_r @ h), jax.nn.sigmoid(u_z + W_z @ h)  # (2)
            n = jnp.tanh(u_n + W_n @ (r * h))  # (3), (4)
            h = (1 - z) * n + z * h  # (5)
            return h, h

        return lax.scan(step, h0, (x, delta))[1]

    return jax.vmap(one_sequence, in_axes=(1, 0, 1), out_axes=1)(x, h0, delta)
