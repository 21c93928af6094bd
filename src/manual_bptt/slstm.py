"""The sLSTM, with exponential gates and a stabiliser, and its backward pass, by hand.

    (1)  a_t = U x_t + W h_{t-1} + b,  four blocks: i f g o
    (2)  l_t = log σ(aᶠ_t)
    (3)  m_t = max(l_t + m_{t-1}, aⁱ_t)
    (4)  i_t = exp(aⁱ_t - m_t),  f_t = exp(l_t + m_{t-1} - m_t)
    (5)  g_t = tanh(aᵍ_t),  o_t = σ(aᵒ_t)
    (6)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (7)  n_t = f_t ⊙ n_{t-1} + i_t
    (8)  h_t = o_t ⊙ c_t / n_t

    (9)  ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1},  δᵒ_t = ∂h_t ⊙ (c_t / n_t) ⊙ σ′(o_t)
    (10) ∂c_t = ∂L/∂c_t + ∂c_{t+1} ⊙ f_{t+1} + ∂h_t ⊙ o_t / n_t
    (11) ∂n_t = ∂L/∂n_t + ∂n_{t+1} ⊙ f_{t+1} - ∂h_t ⊙ h_t / n_t
    (12) ι_t = (∂c_t ⊙ g_t + ∂n_t) ⊙ i_t,  φ_t = (∂c_t ⊙ c_{t-1} + ∂n_t ⊙ n_{t-1}) ⊙ f_t
    (13) ∂m_t = ∂L/∂m_t + φ_{t+1} + [l_{t+1} + m_t ≥ aⁱ_{t+1}] ∂m_{t+1} - ι_t - φ_t
    (14) δⁱ_t = ι_t + [l_t + m_{t-1} < aⁱ_t] ∂m_t
    (15) δᶠ_t = (φ_t + [l_t + m_{t-1} ≥ aⁱ_t] ∂m_t) ⊙ σ(-aᶠ_t)
    (16) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
    (17) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ
    (18) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (19) ∂L/∂x_t = Uᵀ δ_t;  ∂L/∂h_0, ∂L/∂c_0, ∂L/∂n_0, ∂L/∂m_0: (9), (10), (11), (13) at t = 0

Beck et al. 2024 (xLSTM), with σ at the forget gate. The stabiliser m changes c and n by the same
factor and h not at all; so where only h has a cotangent, ∂m_t is 0 but for rounding. At a tie in
(3) the slope is that of the first term. δ_t is ∂L/∂a_t; ι_t and φ_t are the cotangents of the two
exponents in (4), and σ′ and tanh′ are computed from the values of σ and tanh. Vectors are rows.
Letters: T steps, B batch, D input size, H hidden size.

Kept for the way back: the four gates, σ(-aᶠ), which term of (3) was the larger, and h, c and n. The
values of m_t are in the gates already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat
from manual_bptt.activations import dsigmoid, dtanh, log_sigmoid, sigmoid, tanh


class Params(NamedTuple):
    """The weights of the layer, in blocks i f g o; `b` is None for a layer without bias."""

    U: Array  # (4H, D)
    W: Array  # (4H, H)
    b: Array | None = None  # (4H,)


class States(NamedTuple):
    """All of one step (B, H) or of all steps (T, B, H); None where a cotangent is zero."""

    h: Array | None
    c: Array | None
    n: Array | None
    m: Array | None


class Cache(NamedTuple):
    """What `backward` needs: the input, the gates, and all states but m."""

    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    c0: Array  # (B, H)
    n0: Array  # (B, H)
    gates: Array  # (T, B, 4H): i f g o of (4) and (5)
    slope: Array  # (T, B, H): σ(-aᶠ)
    kept: Array  # (T, B, H): whether l_t + m_{t-1} ≥ aⁱ_t
    h: Array  # (T, B, H)
    c: Array  # (T, B, H)
    n: Array  # (T, B, H)
    sizes: dict[str, int]  # of T, B, D, H


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself; None for a bias that it lacks."""

    U: Array  # (4H, D)
    W: Array  # (4H, H)
    b: Array | None  # (4H,)
    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    c0: Array  # (B, H)
    n0: Array  # (B, H)
    m0: Array  # (B, H)
    delta: Array  # (T, B, 4H)


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: U uniform in ±1/√D, W of orthogonal blocks, b zero but 3 to 6 at f.

    Raises `TypeError` or `ValueError` for a size that is no int of at least 1, for a dtype other
    than float32 and float64, and for an `rng` that is no `numpy.random.Generator`.
    """
    _door.generator("rng", rng)
    D, H = _door.size("input_size", input_size), _door.size("hidden_size", hidden_size)
    kind = _door.float_dtype("dtype", dtype)
    U = initial.fan_in(rng, 4 * H, D, kind)
    W = initial.orthogonal_blocks(rng, 4, H, kind)
    b = None
    if bias:
        b = np.zeros(4 * H, kind)
        b[H : 2 * H] = np.linspace(3, 6, H)  # units that forget at different speeds
    return Params(U, W, b)


def forward(
    params: Params,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    n0: Array | None = None,
    m0: Array | None = None,
) -> tuple[States, Cache]:
    """All states of the sequence: equations (1) to (8).

    Args:
        params: U (4H, D), W (4H, H), and if wanted b (4H,); all float32 or all float64.
        x: (T, B, D) of the dtype of the weights.
        h0, c0, n0, m0: (B, H), the state before the first step; zeros when None, and m0 then so
            low that f_1 is 0 and i_1 is 1: n_t is never 0.

    Returns:
        The states, (T, B, H) each, read-only because `backward` reads them too; and the cache for
        `backward`, which refers to `x` and the start (leave them unchanged until then).

    Raises `TypeError` or `ValueError` that names the argument for anything of another type, shape
    or dtype, for NaN and infinity, and for empty axes.
    """
    shapes = _door.Shapes()
    U, W, b = _weights(params, shapes)
    x = shapes.floats("x", x, "T B D", U.dtype)
    T, B, H = (shapes.size[letter] for letter in "TBH")
    zeros = np.zeros((B, H), U.dtype)
    if m0 is None:
        m0 = np.full_like(zeros, np.finfo(U.dtype).min / 4)
    given = {"h0": h0, "c0": c0, "n0": n0, "m0": m0}
    start = [shapes.cotangents(name, a, "B H", zeros) for name, a in given.items()]

    # (1) the part without h_{t-1}, for all steps in one product: U x_t + b
    projected = (flat(x) @ U.T).reshape(T, B, 4 * H)
    if b is not None:
        projected += b

    gates = np.empty((T, B, 4 * H), U.dtype)
    all_h, all_c, all_n, all_m, slope = (np.empty((T, B, H), U.dtype) for _ in range(5))
    kept = np.empty((T, B, H), np.bool_)
    h, c, n, m = start
    for t in range(T):
        # (1) a_t = U x_t + W h_{t-1} + b
        a_i, a_f, a_g, a_o = np.split(projected[t] + h @ W.T, 4, axis=-1)  # (B, H) each
        i, f, g, o = np.split(gates[t], 4, axis=-1)  # views, to be filled
        # (2) l_t = log σ(aᶠ_t)
        before = log_sigmoid(a_f) + m
        slope[t] = sigmoid(-a_f)
        # (3) m_t = max(l_t + m_{t-1}, aⁱ_t)
        kept[t] = before >= a_i
        m = np.where(kept[t], before, a_i)
        # (4) i_t = exp(aⁱ_t - m_t),  f_t = exp(l_t + m_{t-1} - m_t)
        i[...] = np.exp(a_i - m)
        f[...] = np.exp(before - m)
        # (5) g_t = tanh(aᵍ_t),  o_t = σ(aᵒ_t)
        g[...] = tanh(a_g)
        o[...] = sigmoid(a_o)
        # (6) c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        c = f * c + i * g
        # (7) n_t = f_t ⊙ n_{t-1} + i_t
        n = f * n + i
        # (8) h_t = o_t ⊙ c_t / n_t
        h = o * (c / n)
        all_h[t], all_c[t], all_n[t], all_m[t] = h, c, n, m
    for a in (all_h, all_c, all_n, all_m):
        a.flags.writeable = False
    h0, c0, n0, _ = start
    cache = Cache(x, h0, c0, n0, gates, slope, kept, all_h, all_c, all_n, shapes.size)
    return States(all_h, all_c, all_n, all_m), cache


def backward(
    params: Params,
    cache: Cache,
    dstates: States,
    dlast: States | None = None,
) -> Grads:
    """All gradients of the layer: equations (9) to (19).

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: the cotangents of all states, (T, B, H) each; None is zero.
        dlast: cotangents that the last states have besides, (B, H) each; None is zero.

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    x, h0, c0, n0, gates, slope, kept, all_h, all_c, all_n, sizes = _door.instance(
        "cache", cache, Cache
    )
    shapes = _door.Shapes(sizes)
    U, W, b = _weights(params, shapes, gates.dtype)
    each = _door.instance("dstates", dstates, States)
    last = States(None, None, None, None) if dlast is None else dlast
    last = _door.instance("dlast", last, States)
    dh, dc, dn, dm = (
        shapes.cotangents(f"dstates.{k}", a, "T B H", all_h) for k, a in each._asdict().items()
    )
    # what reaches each state from later steps
    dh_next, dc_next, dn_next, dm_next = (
        shapes.cotangents(f"dlast.{k}", a, "B H", h0) for k, a in last._asdict().items()
    )

    before_h = np.concatenate([h0[None], all_h[:-1]])  # h_{t-1} (T, B, H)
    before_c = np.concatenate([c0[None], all_c[:-1]])  # c_{t-1}
    before_n = np.concatenate([n0[None], all_n[:-1]])  # n_{t-1}
    delta = np.empty_like(gates)  # (T, B, 4H)
    for t in reversed(range(len(delta))):
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        d_i, d_f, d_g, d_o = np.split(delta[t], 4, axis=-1)  # views, to be filled
        # (9) ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1},  δᵒ_t = ∂h_t ⊙ (c_t / n_t) ⊙ σ′(o_t)
        dh_t = dh[t] + dh_next
        d_o[...] = dh_t * (all_c[t] / all_n[t]) * dsigmoid(o)
        # (10) ∂c_t = ∂L/∂c_t + ∂c_{t+1} ⊙ f_{t+1} + ∂h_t ⊙ o_t / n_t
        dc_t = dc[t] + dc_next + dh_t * o / all_n[t]
        # (11) ∂n_t = ∂L/∂n_t + ∂n_{t+1} ⊙ f_{t+1} - ∂h_t ⊙ h_t / n_t
        dn_t = dn[t] + dn_next - dh_t * all_h[t] / all_n[t]
        # (12) ι_t = (∂c_t ⊙ g_t + ∂n_t) ⊙ i_t,  φ_t = (∂c_t ⊙ c_{t-1} + ∂n_t ⊙ n_{t-1}) ⊙ f_t
        iota = (dc_t * g + dn_t) * i
        phi = (dc_t * before_c[t] + dn_t * before_n[t]) * f
        # (13) ∂m_t = ∂L/∂m_t + what reaches it from step t + 1 - ι_t - φ_t
        dm_t = dm[t] + dm_next - iota - phi
        # (14) δⁱ_t = ι_t + [l_t + m_{t-1} < aⁱ_t] ∂m_t
        d_i[...] = iota + np.where(kept[t], 0, dm_t)
        # (15) δᶠ_t = (φ_t + [l_t + m_{t-1} ≥ aⁱ_t] ∂m_t) ⊙ σ(-aᶠ_t)
        dl = phi + np.where(kept[t], dm_t, 0)
        d_f[...] = dl * slope[t]
        # (16) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
        d_g[...] = dc_t * i * dtanh(g)
        # (9), (10), (11), (13) what goes on to step t - 1
        dh_next = delta[t] @ W
        dc_next = dc_t * f
        dn_next = dn_t * f
        dm_next = dl

    # (17) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ
    dW = flat(delta).T @ flat(before_h)  # (4H, H)
    # (18) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    dU = flat(delta).T @ flat(x)  # (4H, D)
    db = None if b is None else delta.sum(axis=(0, 1))  # (4H,)
    # (19) ∂L/∂x_t = Uᵀ δ_t; and what goes on to t = 0
    dx = (flat(delta) @ U).reshape(x.shape)  # (T, B, D)
    return Grads(dU, dW, db, dx, dh_next, dc_next, dn_next, dm_next, delta)


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    U, W, b = _door.instance("params", params, Params)
    U = shapes.floats("params.U", U, "4H D", dtype)
    W = shapes.floats("params.W", W, "4H H", U.dtype)
    return Params(U, W, None if b is None else shapes.floats("params.b", b, "4H", U.dtype))
