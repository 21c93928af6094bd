"""The hand-written way back inside JAX: layers whose gradients are the derivation, not autodiff's.

    from manual_bptt import lstm
    from manual_bptt.jax import lstm as layer  # layer(params, x) -> h, c

Each function is a `jax.custom_vjp`, so that it works under `jit`, `grad`, `vmap` and `scan`, on
whatever device and in whatever float dtype JAX has the arrays. Weights are any object with the
fields of the cell's `Params`, such as that tuple itself, which JAX knows as a tree. Dtypes that
differ are promoted as JAX does; `TypeError` is raised where that makes no floats. The equations
are those of the modules of the same names in `manual_bptt`, with their numbers. The way back is
itself made of plain JAX, so reverse mode goes through it once more: a gradient of a gradient is
right; forward mode (`jax.jvp`) is refused by JAX itself.

Faster than autodiff is that nothing is summed step by step: the products of ∂L/∂U, ∂L/∂W, ∂L/∂b and
∂L/∂x are made for all steps at once. Letters: T steps, B batch, D input size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["gru", "gru_before", "lstm", "rnn"]

Array = jax.Array


def rnn(params: Any, x: Array, s0: Array | None = None, activation: str = "tanh") -> Array:
    """All states s (T, B, H) of the recurrent layer; their last is `s[-1]`.

    Args:
        params: U (H, D), W (H, H), b (H,) or None.
        x: (T, B, D).
        s0: (B, H); zeros when None.
        activation: "tanh", "sigmoid" or "relu".

    Raises `ValueError` for another activation and for shapes that do not fit.
    """
    if activation not in _F:
        raise ValueError(f"activation: expected one of {', '.join(_F)}, got {activation!r}")
    return _rnn(activation, *_opened(params, x, 1, {"s0": s0}))


def lstm(
    params: Any, x: Array, h0: Array | None = None, c0: Array | None = None
) -> tuple[Array, Array]:
    """All outputs h and cells c, (T, B, H) each, of the LSTM without peepholes and projection.

    Args:
        params: U (4H, D), W (4H, H), b (4H,) or None, in blocks i f g o.
        x: (T, B, D).
        h0, c0: (B, H); zeros when None.

    Raises `ValueError` for shapes that do not fit, for peepholes and for a projection.
    """
    for name in ("p", "P"):
        if getattr(params, name, None) is not None:
            raise ValueError(f"params.{name}: expected None, got an array")
    return _lstm(*_opened(params, x, 4, {"h0": h0, "c0": c0}))


def gru(params: Any, x: Array, h0: Array | None = None) -> Array:
    """All states h (T, B, H) of the GRU that resets after the product.

    Args:
        params: U (3H, D), W (3H, H), b (3H,) or None, b_n (H,) or None, in blocks r z n.
        x: (T, B, D).
        h0: (B, H); zeros when None.

    Raises `ValueError` for shapes that do not fit.
    """
    return _gru(*_opened(params, x, 3, {"h0": h0}, {"b_n": getattr(params, "b_n", None)}))


def gru_before(params: Any, x: Array, h0: Array | None = None) -> Array:
    """All states h (T, B, H) of the GRU that resets before the product.

    Args:
        params: U (3H, D), W (3H, H), b (3H,) or None, in blocks r z n.
        x: (T, B, D).
        h0: (B, H); zeros when None.

    Raises `ValueError` for shapes that do not fit.
    """
    return _gru_before(*_opened(params, x, 3, {"h0": h0}))


def _opened(
    params: Any,
    x: Array,
    blocks: int,
    start: dict[str, Array | None],
    vectors: Mapping[str, Array | None] = MappingProxyType({}),
) -> list[Array]:
    """U, W, b, further vectors (H,), x, states: shapes checked, zeros for None, in one dtype."""
    U, W, x = jnp.asarray(params.U), jnp.asarray(params.W), jnp.asarray(x)
    for name, weights in (("U", U), ("W", W)):
        if weights.ndim != 2:
            raise ValueError(f"params.{name}: expected a matrix, got shape {weights.shape}")
    H, D = W.shape[1], U.shape[1]
    if x.ndim != 3 or x.shape[2] != D:
        raise ValueError(f"x: expected shape (T, B, D) with D = {D} from params.U, got {x.shape}")
    wanted: dict[str, tuple[Array | None, tuple[int, ...]]] = {
        "params.U": (U, (blocks * H, D)),
        "params.W": (W, (blocks * H, H)),
        "params.b": (params.b, (blocks * H,)),
        **{f"params.{name}": (v, (H,)) for name, v in vectors.items()},
        "x": (x, x.shape),
        **{name: (s, (x.shape[1], H)) for name, s in start.items()},
    }
    given = {name: jnp.asarray(a) for name, (a, _) in wanted.items() if a is not None}
    for name, array in given.items():
        if array.shape != wanted[name][1]:
            raise ValueError(f"{name}: expected shape {wanted[name][1]}, got {array.shape}")
    dtype = jnp.result_type(*given.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"params, x and states: expected floats, got together {dtype}")
    return [
        given[name].astype(dtype) if name in given else jnp.zeros(shape, dtype)
        for name, (_, shape) in wanted.items()
    ]


def _sigmoid(a: Array) -> Array:
    return jax.nn.sigmoid(a)


def _dsigmoid(s: Array) -> Array:
    """σ′ = s (1 - s)"""
    return s * (1 - s)


def _dtanh(s: Array) -> Array:
    """tanh′ = 1 - s²"""
    return (1 - s) * (1 + s)


_F = {
    "tanh": (jnp.tanh, _dtanh),
    "sigmoid": (_sigmoid, _dsigmoid),
    "relu": (lambda a: jnp.maximum(a, 0), lambda s: (s > 0).astype(s.dtype)),
}


def _shifted(start: Array, states: Array) -> Array:
    """s_{t-1} of every step."""
    return jnp.concatenate([start[None], states])[:-1]


def _outer(delta: Array, other: Array) -> Array:
    """Σ_t δ_t s_tᵀ, summed over the batch too."""
    return jnp.einsum("tbg,tbn->gn", delta, other)


# --- the recurrent layer


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rnn(activation: str, U: Array, W: Array, b: Array, x: Array, s0: Array) -> Array:
    return _rnn_forward(activation, U, W, b, x, s0)[0]


def _rnn_forward(
    activation: str, U: Array, W: Array, b: Array, x: Array, s0: Array
) -> tuple[Array, Any]:
    f, _ = _F[activation]

    def step(s: Array, u: Array) -> tuple[Array, Array]:
        s = f(u + s @ W.T)  # (1), (2)
        return s, s

    states = jax.lax.scan(step, s0, x @ U.T + b)[1]
    return states, (U, W, x, s0, states)


def _rnn_backward(activation: str, kept: Any, dstates: Array) -> tuple[Array, ...]:
    return _rnn_back(activation, kept, dstates, jnp.zeros_like(kept[3]))[0]


def _rnn_back(activation: str, kept: Any, dstates: Array, dlast: Array) -> tuple[Any, Array]:
    U, W, x, s0, states = kept
    _, df = _F[activation]

    def step(carried: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        s, ds = now
        delta = (ds + carried) * df(s)  # (8), (9)
        return delta @ W, delta

    ds0, delta = jax.lax.scan(step, dlast, (states, dstates), reverse=True)
    dW = _outer(delta, _shifted(s0, states))  # (10)
    return (_outer(delta, x), dW, delta.sum((0, 1)), delta @ U, ds0), delta  # (11), (12)


_rnn.defvjp(_rnn_forward, _rnn_backward)


# --- the LSTM


@jax.custom_vjp
def _lstm(U: Array, W: Array, b: Array, x: Array, h0: Array, c0: Array) -> tuple[Array, Array]:
    return _lstm_forward(U, W, b, x, h0, c0)[0]


def _lstm_forward(
    U: Array, W: Array, b: Array, x: Array, h0: Array, c0: Array
) -> tuple[tuple[Array, Array], Any]:
    def step(state: tuple[Array, Array], u: Array) -> Any:
        h, c = state
        a_i, a_f, a_g, a_o = jnp.split(u + h @ W.T, 4, axis=-1)  # (1)
        i, f, g, o = _sigmoid(a_i), _sigmoid(a_f), jnp.tanh(a_g), _sigmoid(a_o)  # (2), (3), (5)
        c = f * c + i * g  # (4)
        h = o * jnp.tanh(c)  # (6)
        return (h, c), (h, c, (i, f, g, o))

    _, (h, c, gates) = jax.lax.scan(step, (h0, c0), x @ U.T + b)
    return (h, c), (U, W, x, h0, c0, h, c, gates)


def _lstm_backward(kept: Any, dstates: tuple[Array, Array]) -> tuple[Array, ...]:
    ends = jnp.zeros_like(kept[3]), jnp.zeros_like(kept[4])
    return _lstm_back(kept, dstates, ends)[0]


def _lstm_back(kept: Any, dstates: tuple[Array, Array], dlast: Any) -> tuple[Any, Array]:
    U, W, x, h0, c0, h, c, gates = kept
    before_c = _shifted(c0, c)

    def step(carried: tuple[Array, Array], now: Any) -> Any:
        (i, f, g, o), c, before, dh, dc = now
        tanh_c = jnp.tanh(c)
        dh = dh + carried[0]  # (8)
        d_o = dh * tanh_c * _dsigmoid(o)  # (9)
        dc = dc + carried[1] + dh * o * _dtanh(tanh_c)  # (10)
        d_i, d_f = dc * g * _dsigmoid(i), dc * before * _dsigmoid(f)  # (11)
        d_g = dc * i * _dtanh(g)  # (12)
        delta = jnp.concatenate([d_i, d_f, d_g, d_o], axis=-1)
        return (delta @ W, dc * f), delta

    steps = (gates, c, before_c, *dstates)
    (dh0, dc0), delta = jax.lax.scan(step, dlast, steps, reverse=True)
    dW = _outer(delta, _shifted(h0, h))  # (13)
    return (_outer(delta, x), dW, delta.sum((0, 1)), delta @ U, dh0, dc0), delta  # (14), (17)


_lstm.defvjp(_lstm_forward, _lstm_backward)


# --- the GRU


@jax.custom_vjp
def _gru(U: Array, W: Array, b: Array, b_n: Array, x: Array, h0: Array) -> Array:
    return _gru_forward(U, W, b, b_n, x, h0)[0]


def _gru_forward(
    U: Array, W: Array, b: Array, b_n: Array, x: Array, h0: Array
) -> tuple[Array, Any]:
    def step(h: Array, u: Array) -> Any:
        u_r, u_z, u_n = jnp.split(u, 3, axis=-1)
        v_r, v_z, v_n = jnp.split(h @ W.T, 3, axis=-1)  # (1)
        r, z = _sigmoid(u_r + v_r), _sigmoid(u_z + v_z)  # (2)
        q = v_n + b_n  # (3)
        n = jnp.tanh(u_n + r * q)  # (4)
        h = (1 - z) * n + z * h  # (5)
        return h, (h, (r, z, n, q))

    _, (h, gates) = jax.lax.scan(step, h0, x @ U.T + b)
    return h, (U, W, x, h0, h, gates)


def _gru_backward(kept: Any, dstates: Array) -> tuple[Array, ...]:
    return _gru_back(kept, dstates, jnp.zeros_like(kept[3]))[0]


def _gru_back(kept: Any, dstates: Array, dlast: Array) -> tuple[Any, tuple[Array, Array]]:
    U, W, x, h0, h, gates = kept
    before = _shifted(h0, h)

    def step(carried: Array, now: Any) -> Any:
        (r, z, n, q), before, dh = now
        dh = dh + carried  # (6)
        d_n = dh * (1 - z) * _dtanh(n)  # (7)
        d_z = dh * (before - n) * _dsigmoid(z)  # (8)
        d_r = d_n * q * _dsigmoid(r)  # (9)
        delta = jnp.concatenate([d_r, d_z, d_n], axis=-1)
        epsilon = jnp.concatenate([d_r, d_z, r * d_n], axis=-1)  # (10)
        return z * dh + epsilon @ W, (delta, epsilon)

    dh0, (delta, epsilon) = jax.lax.scan(step, dlast, (gates, before, dstates), reverse=True)
    dW, db_n = _outer(epsilon, before), epsilon.sum((0, 1))[-h0.shape[-1] :]  # (11)
    grads = _outer(delta, x), dW, delta.sum((0, 1)), db_n, delta @ U, dh0  # (12), (13)
    return grads, (delta, epsilon)


_gru.defvjp(_gru_forward, _gru_backward)


# --- the GRU that resets before the product


@jax.custom_vjp
def _gru_before(U: Array, W: Array, b: Array, x: Array, h0: Array) -> Array:
    return _gru_before_forward(U, W, b, x, h0)[0]


def _gru_before_forward(U: Array, W: Array, b: Array, x: Array, h0: Array) -> tuple[Array, Any]:
    W_rz, W_n = _split_rz_n(W)

    def step(h: Array, u: Array) -> Any:
        u_r, u_z, u_n = jnp.split(u, 3, axis=-1)  # (1)
        v_r, v_z = jnp.split(h @ W_rz.T, 2, axis=-1)
        r, z = _sigmoid(u_r + v_r), _sigmoid(u_z + v_z)  # (2)
        q = r * h  # (3)
        n = jnp.tanh(u_n + q @ W_n.T)  # (4)
        h = (1 - z) * n + z * h  # (5)
        return h, (h, (r, z, n))

    _, (h, gates) = jax.lax.scan(step, h0, x @ U.T + b)
    return h, (U, W, x, h0, h, gates)


def _gru_before_backward(kept: Any, dstates: Array) -> tuple[Array, ...]:
    return _gru_before_back(kept, dstates, jnp.zeros_like(kept[3]))[0]


def _gru_before_back(kept: Any, dstates: Array, dlast: Array) -> tuple[Any, Array]:
    U, W, x, h0, h, gates = kept
    W_rz, W_n = _split_rz_n(W)
    before = _shifted(h0, h)

    def step(carried: Array, now: Any) -> Any:
        (r, z, n), before, dh = now
        dh = dh + carried  # (6)
        d_n = dh * (1 - z) * _dtanh(n)  # (7)
        d_z = dh * (before - n) * _dsigmoid(z)  # (8)
        dq = d_n @ W_n  # (9)
        d_r = dq * before * _dsigmoid(r)  # (10)
        d_rz = jnp.concatenate([d_r, d_z], axis=-1)
        return z * dh + r * dq + d_rz @ W_rz, jnp.concatenate([d_rz, d_n], axis=-1)

    dh0, delta = jax.lax.scan(step, dlast, (gates, before, dstates), reverse=True)
    d_rz, d_n = jnp.split(delta, [2 * h0.shape[-1]], axis=-1)
    dW = jnp.concatenate([_outer(d_rz, before), _outer(d_n, gates[0] * before)])  # (11)
    return (_outer(delta, x), dW, delta.sum((0, 1)), delta @ U, dh0), delta  # (12), (13)


def _split_rz_n(W: Array) -> list[Array]:
    """Wʳ above Wᶻ, and Wⁿ."""
    return jnp.split(W, [2 * W.shape[1]])


_gru_before.defvjp(_gru_before_forward, _gru_before_backward)


# --- the same on NumPy arrays, for `engine="jax"`


def on_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by XLA, from NumPy arrays to such, in their own precision."""
    compiled = jax.jit(function)

    def run(*arrays: Any) -> Any:
        wide = any(a.dtype == np.float64 for a in jax.tree.leaves(arrays))
        # some devices round the factors of products to fewer digits, unless told not to
        with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
            return jax.tree.map(np.array, compiled(*arrays))  # copies, which may be written to

    return run


def keeping_the_last(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward pass that returns its results and, of what it keeps, the last: no input again."""

    def run(*arrays: Any) -> Any:
        found, kept = forward(*arrays)
        return found, kept[-1]

    return run
