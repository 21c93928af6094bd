"""The output layer and its loss from the forward equations alone.

(3) z_t = V s_t + c
(4) o_t = softmax(z_t)
(5) L_t = -Σ_k y_{t,k} log o_{t,k},  L = Σ_t L_t
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def forward(
    params: Any,
    states: Array,
    targets: Array,
    mask: Array | None = None,
    perturbation: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Logits z (T, B, C), outputs o (T, B, C) and the loss L, summed over steps and batch.

    Args:
        params: anything with fields V (C, H) and c (C,) or None.
        states: (T, B, H).
        targets: class indices (T, B), -1 for a step without loss; or probabilities (T, B, C).
        mask: booleans (T, B), False for a step without loss.
        perturbation: (T, B, C), added to z_t. Its cotangent at zero is ∂L/∂z_t.
    """
    z = jnp.einsum("ch,tbh->tbc", params.V, states)  # (3)
    if params.c is not None:
        z = z + params.c  # (3)
    if perturbation is not None:
        z = z + perturbation
    o = jax.nn.softmax(z)  # (4)
    y = targets
    if jnp.issubdtype(targets.dtype, jnp.integer):
        y = jax.nn.one_hot(targets, z.shape[-1], dtype=z.dtype)  # all zeros at -1
    losses = -jnp.sum(y * jax.nn.log_softmax(z), axis=-1)  # (5)
    if mask is not None:
        losses = jnp.where(mask, losses, 0)
    return z, o, jnp.sum(losses)  # (5)
