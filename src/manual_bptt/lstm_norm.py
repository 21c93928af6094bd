"""The long short-term memory with layer normalisation inside, by hand.

    (1)  p_t = N(U x_t),  q_t = N(W h_{t-1})
    (2)  a_t = γˣ ⊙ p_t + γʰ ⊙ q_t + b,  four blocks: i f g o
    (3)  i_t = σ(aⁱ_t),  f_t = σ(aᶠ_t),  g_t = tanh(aᵍ_t),  o_t = σ(aᵒ_t)
    (4)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (5)  y_t = γᶜ ⊙ r_t + βᶜ,  r_t = N(c_t)
    (6)  h_t = o_t ⊙ tanh(y_t)

    N(v) = (v - mean v) / √(var v + ε)
    (7)  N′(v)ᵀ d = (d - mean d - n mean(d ⊙ n)) / √(var v + ε),  n = N(v)

    (8)  ∂h_t = ∂L/∂h_t + Wᵀ N′(W h_t)ᵀ (γʰ ⊙ δ_{t+1})
    (9)  δᵒ_t = ∂h_t ⊙ tanh(y_t) ⊙ σ′(o_t),  ∂y_t = ∂h_t ⊙ o_t ⊙ tanh′(y_t)
    (10) ∂c_t = ∂L/∂c_t + ∂c_{t+1} ⊙ f_{t+1} + N′(c_t)ᵀ (γᶜ ⊙ ∂y_t)
    (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t)
    (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
    (13) ∂L/∂γˣ = Σ_t δ_t ⊙ p_t,  ∂L/∂γʰ = Σ_t δ_t ⊙ q_t,  ∂L/∂b = Σ_t δ_t
    (14) ∂L/∂γᶜ = Σ_t ∂y_t ⊙ r_t,  ∂L/∂βᶜ = Σ_t ∂y_t
    (15) ∂L/∂W = Σ_t N′(W h_{t-1})ᵀ (γʰ ⊙ δ_t) h_{t-1}ᵀ
    (16) ∂L/∂U = Σ_t N′(U x_t)ᵀ (γˣ ⊙ δ_t) x_tᵀ
    (17) ∂L/∂x_t = Uᵀ N′(U x_t)ᵀ (γˣ ⊙ δ_t),  ∂L/∂h_0 = Wᵀ N′(W h_0)ᵀ (γʰ ⊙ δ_1),
         ∂L/∂c_0 = ∂c_1 ⊙ f_1

Ba, Kiros and Hinton 2016, arXiv:1607.06450, equations (20) to (22). Mean and variance are those of
one step of one sequence, over all units of the vector, 4H in (1) and H in (5); both depend on v, so
N′ is no diagonal. δ_t is ∂L/∂a_t; ∂h_t, ∂c_t and ∂y_t are all that reaches h_t, c_t and y_t.
Vectors are rows. Letters: T steps, B batch, D input size, H cells.

Kept for the way back: the gates, c_t and h_t, and of every N its result n and 1/√(var + ε), which
N′ needs. tanh(y_t) is made again from r_t.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat
from manual_bptt.activations import dsigmoid, dtanh, sigmoid, tanh

EPSILON = 1e-5
"""ε, which keeps N finite for a vector of equal entries."""


class Params(NamedTuple):
    """The weights of the layer, in blocks i f g o."""

    U: Array  # (4H, D)
    W: Array  # (4H, H)
    b: Array  # (4H,)
    gamma_x: Array  # (4H,)
    gamma_h: Array  # (4H,)
    gamma_c: Array  # (H,)
    beta_c: Array  # (H,)


class States(NamedTuple):
    """Output and cell, of one step (B, H) or of all (T, B, H); None where a cotangent is zero."""

    h: Array | None
    c: Array | None


class Normalised(NamedTuple):
    """N(v), and what N′ needs beside it."""

    n: Array  # (…, N)
    scale: Array  # (…, 1): 1/√(var v + ε)


class Cache(NamedTuple):
    """What `backward` needs: the input, all gates and states, and every N."""

    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    c0: Array  # (B, H)
    gates: Array  # (T, B, 4H), after σ and tanh
    h: Array  # (T, B, H)
    c: Array  # (T, B, H)
    p: Normalised  # (T, B, 4H)
    q: Normalised  # (T, B, 4H)
    r: Normalised  # (T, B, H)
    sizes: dict[str, int]  # of T, B, D, H


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself."""

    U: Array  # (4H, D)
    W: Array  # (4H, H)
    b: Array  # (4H,)
    gamma_x: Array  # (4H,)
    gamma_h: Array  # (4H,)
    gamma_c: Array  # (H,)
    beta_c: Array  # (H,)
    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    c0: Array  # (B, H)
    delta: Array  # (T, B, 4H)


def normalise(v: Array) -> Normalised:
    """N(v) = (v - mean v) / √(var v + ε), over the last axis"""
    centred = v - v.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(variance + v.dtype.type(EPSILON))
    return Normalised(centred * scale, scale)


def dnormalise(at: Normalised, d: Array) -> Array:
    """(7) N′(v)ᵀ d = (d - mean d - n mean(d ⊙ n)) / √(var v + ε)"""
    n, scale = at
    return (d - d.mean(axis=-1, keepdims=True) - n * (d * n).mean(axis=-1, keepdims=True)) * scale


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    *,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: U uniform in ±1/√D, W of orthogonal blocks, γ one, b and β zero.

    b is 1 at the forget gate.

    Raises `TypeError` or `ValueError` for a size that is no int of at least 1, for a dtype other
    than float32 and float64, and for an `rng` that is no `numpy.random.Generator`.
    """
    _door.generator("rng", rng)
    D, H = _door.size("input_size", input_size), _door.size("hidden_size", hidden_size)
    kind = _door.float_dtype("dtype", dtype)
    U = initial.fan_in(rng, 4 * H, D, kind)
    W = initial.orthogonal_blocks(rng, 4, H, kind)
    b = np.zeros(4 * H, kind)
    b[H : 2 * H] = 1  # at first the cell forgets little (Jozefowicz et al. 2015)
    ones = np.ones(4 * H, kind)
    return Params(U, W, b, ones, ones.copy(), np.ones(H, kind), np.zeros(H, kind))


def forward(
    params: Params, x: Array, h0: Array | None = None, c0: Array | None = None
) -> tuple[States, Cache]:
    """All outputs and cells of the sequence: equations (1) to (6).

    Args:
        params: U (4H, D), W (4H, H), b, γˣ and γʰ (4H,), γᶜ and βᶜ (H,); all float32 or all
            float64.
        x: (T, B, D) of the dtype of the weights.
        h0, c0: (B, H), the state before the first step; zeros when None.

    Returns:
        The states, (T, B, H) each, read-only because `backward` reads them too; and the cache for
        `backward`, which refers to `x` and the start (leave them unchanged until then).

    Raises `TypeError` or `ValueError` that names the argument for anything of another type, shape
    or dtype, for NaN and infinity, and for empty axes.
    """
    shapes = _door.Shapes()
    U, W, b, gamma_x, gamma_h, gamma_c, beta_c = _weights(params, shapes)
    x = shapes.floats("x", x, "T B D", U.dtype)
    T, B, H = (shapes.size[letter] for letter in "TBH")
    zeros = np.zeros((B, H), U.dtype)
    h0, c0 = shapes.cotangents("h0", h0, "B H", zeros), shapes.cotangents("c0", c0, "B H", zeros)

    # (1) p_t = N(U x_t), for all steps in one product
    p = normalise((flat(x) @ U.T).reshape(T, B, 4 * H))
    gates = np.empty((T, B, 4 * H), U.dtype)
    q = Normalised(np.empty_like(gates), np.empty((T, B, 1), U.dtype))
    r = Normalised(np.empty((T, B, H), U.dtype), np.empty((T, B, 1), U.dtype))
    all_h, all_c = np.empty((T, B, H), U.dtype), np.empty((T, B, H), U.dtype)
    h, c = h0, c0
    for t in range(T):
        # (1) q_t = N(W h_{t-1})
        q.n[t], q.scale[t] = normalise(h @ W.T)
        # (2) a_t = γˣ ⊙ p_t + γʰ ⊙ q_t + b
        a = gamma_x * p.n[t] + gamma_h * q.n[t] + b  # (B, 4H)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=-1)
        i, f, g, o = np.split(gates[t], 4, axis=-1)  # views, to be filled
        # (3) i_t = σ(aⁱ_t),  f_t = σ(aᶠ_t),  g_t = tanh(aᵍ_t),  o_t = σ(aᵒ_t)
        i[...], f[...], g[...], o[...] = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
        # (4) c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        all_c[t] = f * c + i * g
        c = all_c[t]
        # (5) y_t = γᶜ ⊙ r_t + βᶜ,  r_t = N(c_t)
        r.n[t], r.scale[t] = normalise(c)
        y = gamma_c * r.n[t] + beta_c
        # (6) h_t = o_t ⊙ tanh(y_t)
        all_h[t] = o * tanh(y)
        h = all_h[t]
    all_h.flags.writeable = all_c.flags.writeable = False
    return States(all_h, all_c), Cache(x, h0, c0, gates, all_h, all_c, p, q, r, shapes.size)


def backward(
    params: Params,
    cache: Cache,
    dstates: States,
    dlast: States | None = None,
) -> Grads:
    """All gradients of the layer: equations (8) to (17).

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: the cotangents ∂L/∂h_t and ∂L/∂c_t, (T, B, H) each; None for either is zero.
        dlast: cotangents that the last states have besides, (B, H) each.

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    x, h0, c0, gates, all_h, all_c, p, q, r, sizes = _door.instance("cache", cache, Cache)
    shapes = _door.Shapes(sizes)
    U, W, _, gamma_x, gamma_h, gamma_c, beta_c = _weights(params, shapes, gates.dtype)
    dh, dc = _door.instance("dstates", dstates, States)
    dh = shapes.cotangents("dstates.h", dh, "T B H", all_h)
    dc = shapes.cotangents("dstates.c", dc, "T B H", all_c)
    last = States(None, None) if dlast is None else _door.instance("dlast", dlast, States)
    dh_next = shapes.cotangents("dlast.h", last.h, "B H", h0)  # what reaches h_t from later steps
    dc_next = shapes.cotangents("dlast.c", last.c, "B H", c0)  # … and c_t

    before_h = np.concatenate([h0[None], all_h[:-1]])  # h_{t-1} (T, B, H)
    before_c = np.concatenate([c0[None], all_c[:-1]])  # c_{t-1}
    tanh_y = tanh(gamma_c * r.n + beta_c)  # (T, B, H)
    delta = np.empty_like(gates)  # (T, B, 4H)
    dq = np.empty_like(gates)  # N′(W h_{t-1})ᵀ (γʰ ⊙ δ_t)
    dy = np.empty_like(all_c)
    for t in reversed(range(len(delta))):
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        d_i, d_f, d_g, d_o = np.split(delta[t], 4, axis=-1)  # views, to be filled
        # (8) ∂h_t = ∂L/∂h_t + Wᵀ N′(W h_t)ᵀ (γʰ ⊙ δ_{t+1})
        dh_t = dh[t] + dh_next
        # (9) δᵒ_t = ∂h_t ⊙ tanh(y_t) ⊙ σ′(o_t),  ∂y_t = ∂h_t ⊙ o_t ⊙ tanh′(y_t)
        d_o[...] = dh_t * tanh_y[t] * dsigmoid(o)
        dy[t] = dh_t * o * dtanh(tanh_y[t])
        # (10) ∂c_t = ∂L/∂c_t + ∂c_{t+1} ⊙ f_{t+1} + N′(c_t)ᵀ (γᶜ ⊙ ∂y_t)
        r_t = Normalised(r.n[t], r.scale[t])
        dc_t = dc[t] + dc_next + dnormalise(r_t, gamma_c * dy[t])
        # (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t)
        d_i[...] = dc_t * g * dsigmoid(i)
        d_f[...] = dc_t * before_c[t] * dsigmoid(f)
        # (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
        d_g[...] = dc_t * i * dtanh(g)
        # (8), (10) what goes on to step t - 1
        q_t = Normalised(q.n[t], q.scale[t])
        dq[t] = dnormalise(q_t, gamma_h * delta[t])
        dh_next = dq[t] @ W
        dc_next = dc_t * f

    # (13) ∂L/∂γˣ = Σ_t δ_t ⊙ p_t,  ∂L/∂γʰ = Σ_t δ_t ⊙ q_t,  ∂L/∂b = Σ_t δ_t
    dgamma_x, dgamma_h = (delta * p.n).sum(axis=(0, 1)), (delta * q.n).sum(axis=(0, 1))
    db = delta.sum(axis=(0, 1))  # (4H,)
    # (14) ∂L/∂γᶜ = Σ_t ∂y_t ⊙ r_t,  ∂L/∂βᶜ = Σ_t ∂y_t
    dgamma_c, dbeta_c = (dy * r.n).sum(axis=(0, 1)), dy.sum(axis=(0, 1))  # (H,)
    # (15) ∂L/∂W = Σ_t N′(W h_{t-1})ᵀ (γʰ ⊙ δ_t) h_{t-1}ᵀ
    dW = flat(dq).T @ flat(before_h)  # (4H, H)
    # (16) ∂L/∂U = Σ_t N′(U x_t)ᵀ (γˣ ⊙ δ_t) x_tᵀ
    dp = dnormalise(p, gamma_x * delta)  # (T, B, 4H)
    dU = flat(dp).T @ flat(x)  # (4H, D)
    # (17) ∂L/∂x_t = Uᵀ N′(U x_t)ᵀ (γˣ ⊙ δ_t); and what goes on to t = 0
    dx = (flat(dp) @ U).reshape(x.shape)  # (T, B, D)
    weights = (dU, dW, db, dgamma_x, dgamma_h, dgamma_c, dbeta_c)
    return Grads(*weights, dx, dh_next, dc_next, delta)


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    given = _door.instance("params", params, Params)
    U = shapes.floats("params.U", given.U, "4H D", dtype)
    W = shapes.floats("params.W", given.W, "4H H", U.dtype)
    rest = {"b": "4H", "gamma_x": "4H", "gamma_h": "4H", "gamma_c": "H", "beta_c": "H"}
    checked = (shapes.floats(f"params.{k}", getattr(given, k), s, U.dtype) for k, s in rest.items())
    return Params(U, W, *checked)
