"""The minimal long short-term memory from its forward equations alone.

    (1)  a_t = U x_t + b,  three blocks: f i n
    (2)  f_t = σ(d_t),  i_t = σ(-d_t),  d_t = log σ(aᶠ_t) - log σ(aⁱ_t)
    (3)  n_t = g(aⁿ_t),  g(v) = v + 1/2 where v ≥ 0, σ(v) elsewhere
    (4)  h_t = f_t ⊙ h_{t-1} + i_t ⊙ n_t

    (4′) h_t = exp(A_t + log(h_0 + Σ_{s≤t} exp(log i_s + log n_s - A_s))),
         A_t = Σ_{s≤t} log f_s

Gradients, if wanted, are `jax.vjp`'s business.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def forward(params: Any, x: Array, h0: Array, *, form: str = "sequential", delta: Array) -> Array:
    """All h (T, B, H).

    Args:
        params: anything with fields U (3H, D), and b (3H,) or None.
        x: (T, B, D).
        h0: (B, H).
        form: "sequential" by (4), or "parallel" by (4′).
        delta: (T, B, 3H), added to a_t. Its cotangent at zero is δ_t = ∂L/∂a_t.
    """
    a = x @ params.U.T + (0 if params.b is None else params.b) + delta  # (1)
    a_f, a_i, a_n = jnp.split(a, 3, axis=-1)
    d = jax.nn.log_sigmoid(a_f) - jax.nn.log_sigmoid(a_i)  # (2)
    if form == "parallel":
        A = jnp.cumsum(jax.nn.log_sigmoid(d), axis=0)  # (4′)
        positive = a_n >= 0  # (4′)
        log_n = jnp.where(
            positive, jnp.log(jnp.where(positive, a_n, 0) + 0.5), jax.nn.log_sigmoid(a_n)
        )  # (4′)
        terms = jax.nn.log_sigmoid(-d) + log_n - A  # (4′)
        whole = lax.cumlogsumexp(jnp.concatenate([jnp.log(h0)[None], terms]), axis=0)  # (4′)
        return jnp.exp(A + whole[1:])  # (4′)
    f, i = jax.nn.sigmoid(d), jax.nn.sigmoid(-d)  # (2)
    n = jnp.where(a_n >= 0, a_n + 0.5, jax.nn.sigmoid(a_n))  # (3)

    def step(h: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        f, i, n = now
        h = f * h + i * n  # (4)
        return h, h

    return lax.scan(step, h0, (f, i, n))[1]
