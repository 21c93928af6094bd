"""The minimal long short-term memory and its backward pass, by hand: no gate sees the state.

    (1)  a_t = U x_t + b,  three blocks: f i n
    (2)  f_t = σ(d_t),  i_t = σ(-d_t),  d_t = log σ(aᶠ_t) - log σ(aⁱ_t)
    (3)  n_t = g(aⁿ_t),  g(v) = v + 1/2 where v ≥ 0, σ(v) elsewhere
    (4)  h_t = f_t ⊙ h_{t-1} + i_t ⊙ n_t

    (5)  ∂h_t = ∂L/∂h_t + f_{t+1} ⊙ ∂h_{t+1}
    (6)  ∂d_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ f_t ⊙ i_t
    (7)  δᶠ_t = ∂d_t ⊙ σ(-aᶠ_t),  δⁱ_t = -∂d_t ⊙ σ(-aⁱ_t)
    (8)  δⁿ_t = ∂h_t ⊙ i_t ⊙ g′(aⁿ_t)
    (9)  ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (10) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = f_1 ⊙ ∂h_1

    (4′) h_t = exp(A_t + log(h_0 + Σ_{s≤t} exp(log i_s + log n_s - A_s))),
         A_t = Σ_{s≤t} log f_s

Feng et al. 2024 ("Were RNNs all we needed?"). f_t is σ(aᶠ) / (σ(aᶠ) + σ(aⁱ)) and i_t the same with
f and i exchanged: the two add up to 1. Written as (2) nothing is 0/0 where both gates close. (4′)
is (4) for all steps at once, in logarithms; it needs h_0 > 0, and as n_t > 0 all states are. The
derivative is that of (4) in either form. δ_t is ∂L/∂a_t. Vectors are rows.
Letters: T steps, B batch, D input size, H hidden size.

Kept for the way back: a_t, f_t, i_t and h_t. n_t and the slopes of log σ are made again from a_t.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat
from manual_bptt.activations import log_sigmoid, sigmoid
from manual_bptt.mingru import Form, all_at_once, check_form, dg, g, log_g


class Params(NamedTuple):
    """The weights of the layer, in blocks f i n; `b` is None for a layer without bias."""

    U: Array  # (3H, D)
    b: Array | None = None  # (3H,)


class Cache(NamedTuple):
    """What `backward` needs: the input, what the gates are made of, the gates, all states."""

    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    a: Array  # (T, B, 3H)
    f: Array  # (T, B, H)
    i: Array  # (T, B, H)
    h: Array  # (T, B, H)
    sizes: dict[str, int]  # of T, B, D, H


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself; None for a bias that it lacks."""

    U: Array  # (3H, D)
    b: Array | None  # (3H,)
    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    delta: Array  # (T, B, 3H)


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: U uniform in ±1/√D, b zero.

    Raises `TypeError` or `ValueError` for a size that is no int of at least 1, for a dtype other
    than float32 and float64, and for an `rng` that is no `numpy.random.Generator`.
    """
    _door.generator("rng", rng)
    D, H = _door.size("input_size", input_size), _door.size("hidden_size", hidden_size)
    kind = _door.float_dtype("dtype", dtype)
    return Params(initial.fan_in(rng, 3 * H, D, kind), np.zeros(3 * H, kind) if bias else None)


def forward(
    params: Params, x: Array, h0: Array | None = None, *, form: Form = "sequential"
) -> tuple[Array, Cache]:
    """All states of the sequence: equations (1) to (4), or (4′).

    Args:
        params: U (3H, D), and if wanted b (3H,); all float32 or all float64.
        x: (T, B, D) of the dtype of the weights.
        h0: (B, H), the state before the first step; zeros when None.
        form: "sequential", step by step by (4), or "parallel", all at once by (4′), for h0 > 0.

    Returns:
        The states h_1 … h_T, (T, B, H), read-only because `backward` reads them too; and the
        cache for `backward`, which refers to `x` and the start (leave them unchanged until then).

    Raises `TypeError` or `ValueError` that names the argument for anything of another type, shape
    or dtype, for NaN and infinity, for empty axes, and for h0 that is not above 0 where it has to.
    """
    shapes = _door.Shapes()
    U, b = _weights(params, shapes)
    x = shapes.floats("x", x, "T B D", U.dtype)
    T, B, H = (shapes.size[letter] for letter in "TBH")
    h0 = shapes.cotangents("h0", h0, "B H", np.zeros((B, H), U.dtype))
    check_form(form, h0)

    # (1) a_t = U x_t + b
    a = (flat(x) @ U.T).reshape(T, B, 3 * H)
    if b is not None:
        a += b
    a_f, a_i, a_n = np.split(a, 3, axis=-1)
    # (2) f_t = σ(d_t),  i_t = σ(-d_t),  d_t = log σ(aᶠ_t) - log σ(aⁱ_t)
    d = log_sigmoid(a_f) - log_sigmoid(a_i)
    f, i = sigmoid(d), sigmoid(-d)
    if form == "parallel":
        # (4′) from log f_t and log(i_t n_t),  i = σ(-d)
        h = all_at_once(log_sigmoid(d), log_sigmoid(-d) + log_g(a_n), h0)
    else:
        n = g(a_n)  # (3)
        h = np.empty((T, B, H), U.dtype)
        now = h0
        for t in range(T):
            # (4) h_t = f_t ⊙ h_{t-1} + i_t ⊙ n_t
            h[t] = f[t] * now + i[t] * n[t]
            now = h[t]
    h.flags.writeable = False
    return h, Cache(x, h0, a, f, i, h, shapes.size)


def backward(
    params: Params, cache: Cache, dstates: Array | None, dlast: Array | None = None
) -> Grads:
    """All gradients of the layer: equations (5) to (10).

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: (T, B, H), the cotangents ∂L/∂h_t; None is zero.
        dlast: (B, H), a cotangent that the last state has besides; None is zero.

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    x, h0, a, f, i, h, sizes = _door.instance("cache", cache, Cache)
    shapes = _door.Shapes(sizes)
    U, b = _weights(params, shapes, a.dtype)
    dstates = shapes.cotangents("dstates", dstates, "T B H", h)
    dh_next = shapes.cotangents("dlast", dlast, "B H", h0)  # what reaches h_t from later steps

    dh = np.empty_like(h)  # (T, B, H)
    for t in reversed(range(len(h))):
        # (5) ∂h_t = ∂L/∂h_t + f_{t+1} ⊙ ∂h_{t+1}
        dh[t] = dstates[t] + dh_next
        dh_next = f[t] * dh[t]
    before = np.concatenate([h0[None], h[:-1]])  # h_{t-1} (T, B, H)
    a_f, a_i, a_n = np.split(a, 3, axis=-1)
    # (6) ∂d_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ f_t ⊙ i_t
    dd = dh * (before - g(a_n)) * f * i
    # (7) δᶠ_t = ∂d_t ⊙ σ(-aᶠ_t),  δⁱ_t = -∂d_t ⊙ σ(-aⁱ_t)
    d_f, d_i = dd * sigmoid(-a_f), -dd * sigmoid(-a_i)
    # (8) δⁿ_t = ∂h_t ⊙ i_t ⊙ g′(aⁿ_t)
    d_n = dh * i * dg(a_n)
    delta = np.concatenate([d_f, d_i, d_n], axis=-1)  # (T, B, 3H)
    # (9) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    dU = flat(delta).T @ flat(x)  # (3H, D)
    db = None if b is None else delta.sum(axis=(0, 1))  # (3H,)
    # (10) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = f_1 ⊙ ∂h_1
    dx = (flat(delta) @ U).reshape(x.shape)  # (T, B, D)
    return Grads(dU, db, dx, dh_next, delta)


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    U, b = _door.instance("params", params, Params)
    U = shapes.floats("params.U", U, "3H D", dtype)
    return Params(U, None if b is None else shapes.floats("params.b", b, "3H", U.dtype))
