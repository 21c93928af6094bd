"""The recurrent layer from its forward equations alone.

    (1)  a_t = U x_t + W s_{t-1} + b
    (2)  s_t = f(a_t)

Written for one sequence and mapped over the batch. Gradients, if wanted, are `jax.vjp`'s business.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
}


def forward(
    params: Any,
    x: Array,
    s0: Array,
    activation: str = "tanh",
    perturbation: Array | None = None,
) -> tuple[Array, Array]:
    """Pre-activations a and states s, both (T, B, H).

    Args:
        params: anything with fields U (H, D), W (H, H) and b (H,) or None.
        x: (T, B, D), or class indices (T, B) for one-hot vectors.
        s0: (B, H).
        activation: "tanh", "sigmoid" or "relu".
        perturbation: (T, B, H), added to a_t. Its cotangent at zero is δ_t = ∂L/∂a_t.
    """
    U, W = params.U, params.W
    b = jnp.zeros(U.shape[0], U.dtype) if params.b is None else params.b
    f = ACTIVATIONS[activation]
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = jax.nn.one_hot(x, U.shape[1], dtype=U.dtype)
    if perturbation is None:
        perturbation = jnp.zeros((*x.shape[:2], U.shape[0]), U.dtype)

    def one_sequence(x: Array, s0: Array, perturbation: Array) -> tuple[Array, Array]:
        def step(s: Array, now: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            x_t, p_t = now
            a = U @ x_t + W @ s + b + p_t  # (1)
            s = f(a)  # (2)
            return s, (a, s)

        return lax.scan(step, s0, (x, perturbation))[1]

    return jax.vmap(one_sequence, in_axes=(1, 0, 1), out_axes=1)(x, s0, perturbation)


def forward_untied(params: Any, x: Array, s0: Array, activation: str = "tanh") -> Array:
    """The states (T, B, H) of a layer whose step t has weights of its own.

    Args:
        params: anything with fields U (T, H, D), W (T, H, H) and b (T, H).
        x, s0, activation: as in `forward`.
    """
    f = ACTIVATIONS[activation]
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = jax.nn.one_hot(x, params.U.shape[2], dtype=params.U.dtype)

    def step(s: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        U, W, b, x_t = now
        s = f(x_t @ U.T + s @ W.T + b)  # (1), (2)
        return s, s

    return lax.scan(step, s0, (params.U, params.W, params.b, x))[1]
