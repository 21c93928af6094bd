"""The long short-term memory and its backpropagation through time, by hand.

    (1)  a_t = U x_t + W h_{t-1} + b,  four blocks: i f g o
    (2)  i_t = σ(aⁱ_t + pⁱ ⊙ c_{t-1}),  f_t = σ(aᶠ_t + pᶠ ⊙ c_{t-1} + φ)
    (3)  g_t = tanh(aᵍ_t)
    (4)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (5)  o_t = σ(aᵒ_t + pᵒ ⊙ c_t)
    (6)  m_t = o_t ⊙ tanh(c_t)
    (7)  h_t = P m_t

    (8)  ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1},  ∂m_t = Pᵀ ∂h_t
    (9)  δᵒ_t = ∂m_t ⊙ tanh(c_t) ⊙ σ′(o_t)
    (10) ∂c_t = ∂L/∂c_t + ∂m_t ⊙ o_t ⊙ tanh′(c_t) + pᵒ ⊙ δᵒ_t
                + ∂c_{t+1} ⊙ f_{t+1} + pⁱ ⊙ δⁱ_{t+1} + pᶠ ⊙ δᶠ_{t+1}
    (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t)
    (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
    (13) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ
    (14) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (15) ∂L/∂pⁱ = Σ_t δⁱ_t ⊙ c_{t-1},  ∂L/∂pᶠ = Σ_t δᶠ_t ⊙ c_{t-1},  ∂L/∂pᵒ = Σ_t δᵒ_t ⊙ c_t
    (16) ∂L/∂P = Σ_t ∂h_t m_tᵀ
    (17) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = Wᵀ δ_1,
         ∂L/∂c_0 = ∂c_1 ⊙ f_1 + pⁱ ⊙ δⁱ_1 + pᶠ ⊙ δᶠ_1

Hochreiter and Schmidhuber 1997 with the forget gate of Gers, Schmidhuber and Cummins 2000. The
peepholes p are those of Gers, Schraudolph and Schmidhuber 2002, the projection P that of Sak,
Senior and Beaufays 2014; both are optional, as is the forget-gate offset φ, a constant. δ_t is
∂L/∂a_t and has the blocks of a_t; ∂h_t and ∂c_t are all that reaches h_t and c_t; σ′ and tanh′ are
computed from the values of σ and tanh. Vectors are rows. Letters: T steps, B batch, D input size,
H cells, R outputs (R = H without a projection).

Kept for the way back: the four gates, c_t and h_t. Every formula needs its gates; tanh(c_t) and m_t
are made again from c_t and o_t, which is cheaper than to keep them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, engines, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat
from manual_bptt.activations import dsigmoid, dtanh, sigmoid, tanh


class Params(NamedTuple):
    """The weights of the layer, in blocks i f g o; each of the last three may be None."""

    U: Array  # (4H, D)
    W: Array  # (4H, R)
    b: Array | None = None  # (4H,)
    p: Array | None = None  # (3H,), peepholes in blocks i f o
    P: Array | None = None  # (R, H), projection


class States(NamedTuple):
    """Output and cell, of one step (B, ·) or of all (T, B, ·); None where a cotangent is zero."""

    h: Array | None  # (…, R)
    c: Array | None  # (…, H)


class Cache(NamedTuple):
    """What `backward` needs: the input, all gates and all states."""

    x: Array  # (T, B, D)
    h0: Array  # (B, R)
    c0: Array  # (B, H)
    gates: Array  # (T, B, 4H), after σ and tanh
    h: Array  # (T, B, R)
    c: Array  # (T, B, H)
    sizes: dict[str, int]  # of T, B, D, H, R
    engine: str = "numpy"  # that made it


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself; None for weights that it lacks."""

    U: Array  # (4H, D)
    W: Array  # (4H, R)
    b: Array | None  # (4H,)
    p: Array | None  # (3H,)
    P: Array | None  # (R, H)
    x: Array  # (T, B, D)
    h0: Array  # (B, R)
    c0: Array  # (B, H)
    delta: Array  # (T, B, 4H)


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    peepholes: bool = False,
    output_size: int | None = None,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: U uniform in ±1/√D, W of orthogonal blocks, b zero but 1 at the forget gate.

    Peepholes start at zero. With `output_size` R there is a projection, uniform in ±1/√H, and W is
    uniform in ±1/√R.

    Raises `TypeError` or `ValueError` for a size that is no int of at least 1, for a dtype other
    than float32 and float64, and for an `rng` that is no `numpy.random.Generator`.
    """
    _door.generator("rng", rng)
    D, H = _door.size("input_size", input_size), _door.size("hidden_size", hidden_size)
    kind = _door.float_dtype("dtype", dtype)
    U = initial.fan_in(rng, 4 * H, D, kind)
    b = p = P = None
    if bias:
        b = np.zeros(4 * H, kind)
        b[H : 2 * H] = 1  # at first the cell forgets little (Jozefowicz et al. 2015)
    if peepholes:
        p = np.zeros(3 * H, kind)
    if output_size is None:
        W = initial.orthogonal_blocks(rng, 4, H, kind)
    else:
        R = _door.size("output_size", output_size)
        W = initial.fan_in(rng, 4 * H, R, kind)
        P = initial.fan_in(rng, R, H, kind)
    return Params(U, W, b, p, P)


def forward(
    params: Params,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    forget_offset: float = 0.0,
    engine: str | None = None,
) -> tuple[States, Cache]:
    """All outputs and cells of the sequence: equations (1) to (7).

    Args:
        params: U (4H, D), W (4H, R), and if wanted b (4H,), p (3H,), P (R, H); all float32 or all
            float64. Without P, R is H.
        x: (T, B, D) of the dtype of the weights.
        h0, c0: (B, R) and (B, H), the state before the first step; zeros when None.
        forget_offset: φ, added to what the forget gate sees.
        engine: see `manual_bptt.engines`; the way back runs on the same.

    Returns:
        The states, h (T, B, R) and c (T, B, H), read-only because `backward` reads them too; and
        the cache for `backward`, which refers to `x` and the start (leave them unchanged until
        then).

    Raises `TypeError` or `ValueError` that names the argument for anything of another type, shape
    or dtype, for NaN and infinity, and for empty axes.
    """
    if fast := engines.compiled(engine, "lstm", _lacking(params)):
        return fast.forward(params, x, h0, c0, forget_offset=forget_offset)
    sizes, (U, W, b, p, P), x, h0, c0, offset = _opened(params, x, h0, c0, forget_offset)
    T, B, H, R = (sizes[letter] for letter in "TBHR")

    # (1) the part without h_{t-1}, for all steps in one product: U x_t + b
    projected = (flat(x) @ U.T).reshape(T, B, 4 * H)
    if b is not None:
        projected += b
    p_i, p_f, p_o = (0, 0, 0) if p is None else np.split(p, 3)

    gates = np.empty((T, B, 4 * H), U.dtype)
    all_h, all_c = np.empty((T, B, R), U.dtype), np.empty((T, B, H), U.dtype)
    h, c = h0, c0
    for t in range(T):
        # (1) a_t = U x_t + W h_{t-1} + b
        a_i, a_f, a_g, a_o = np.split(projected[t] + h @ W.T, 4, axis=-1)  # (B, H) each
        i, f, g, o = np.split(gates[t], 4, axis=-1)  # views, to be filled
        # (2) i_t = σ(aⁱ_t + pⁱ ⊙ c_{t-1}),  f_t = σ(aᶠ_t + pᶠ ⊙ c_{t-1} + φ)
        i[...] = sigmoid(a_i + p_i * c)
        f[...] = sigmoid(a_f + p_f * c + offset)
        # (3) g_t = tanh(aᵍ_t)
        g[...] = tanh(a_g)
        # (4) c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        all_c[t] = f * c + i * g
        c = all_c[t]
        # (5) o_t = σ(aᵒ_t + pᵒ ⊙ c_t)
        o[...] = sigmoid(a_o + p_o * c)
        # (6) m_t = o_t ⊙ tanh(c_t)
        m = o * tanh(c)  # (B, H)
        # (7) h_t = P m_t
        all_h[t] = m if P is None else m @ P.T
        h = all_h[t]
    all_h.flags.writeable = all_c.flags.writeable = False
    return States(all_h, all_c), Cache(x, h0, c0, gates, all_h, all_c, sizes)


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
        dstates: the cotangents ∂L/∂h_t (T, B, R) and ∂L/∂c_t (T, B, H); None for either is zero.
        dlast: cotangents that the last states have besides, (B, R) and (B, H).

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    if fast := engines.made("lstm", cache, Cache):
        return fast.backward(params, cache, dstates, dlast)
    weights, (dh, dc), (dh_next, dc_next) = _opened_backward(params, cache, dstates, dlast)
    U, W, b, p, P = weights
    x, h0, c0, gates, all_h, all_c, *_ = cache
    p_i, p_f, p_o = (0, 0, 0) if p is None else np.split(p, 3)

    before_h = np.concatenate([h0[None], all_h[:-1]])  # h_{t-1} (T, B, R)
    before_c = np.concatenate([c0[None], all_c[:-1]])  # c_{t-1} (T, B, H)
    delta = np.empty_like(gates)  # (T, B, 4H)
    reached = np.empty_like(all_h)  # ∂h_t (T, B, R)
    for t in reversed(range(len(delta))):
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        d_i, d_f, d_g, d_o = np.split(delta[t], 4, axis=-1)  # views, to be filled
        tanh_c = tanh(all_c[t])
        # (8) ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1},  ∂m_t = Pᵀ ∂h_t
        reached[t] = dh[t] + dh_next
        dm = reached[t] if P is None else reached[t] @ P  # (B, H)
        # (9) δᵒ_t = ∂m_t ⊙ tanh(c_t) ⊙ σ′(o_t)
        d_o[...] = dm * tanh_c * dsigmoid(o)
        # (10) ∂c_t = ∂L/∂c_t + ∂m_t ⊙ o_t ⊙ tanh′(c_t) + pᵒ ⊙ δᵒ_t + what reaches it from t + 1
        dc_t = dc[t] + dc_next + dm * o * dtanh(tanh_c) + p_o * d_o
        # (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t)
        d_i[...] = dc_t * g * dsigmoid(i)
        d_f[...] = dc_t * before_c[t] * dsigmoid(f)
        # (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
        d_g[...] = dc_t * i * dtanh(g)
        # (8), (10) what goes on to step t - 1
        dh_next = delta[t] @ W  # Wᵀ δ_t (B, R)
        dc_next = dc_t * f + p_i * d_i + p_f * d_f  # (B, H)

    # (13) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ
    dW = flat(delta).T @ flat(before_h)  # (4H, R)
    # (14) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    dU = flat(delta).T @ flat(x)  # (4H, D)
    db = None if b is None else delta.sum(axis=(0, 1))  # (4H,)
    # (15) ∂L/∂pⁱ = Σ_t δⁱ_t ⊙ c_{t-1},  ∂L/∂pᶠ = Σ_t δᶠ_t ⊙ c_{t-1},  ∂L/∂pᵒ = Σ_t δᵒ_t ⊙ c_t
    dp = None if p is None else _dpeepholes(delta, before_c, all_c)  # (3H,)
    # (16) ∂L/∂P = Σ_t ∂h_t m_tᵀ
    dP = None
    if P is not None:
        m = gates[..., -all_c.shape[-1] :] * tanh(all_c)  # (T, B, H)
        dP = flat(reached).T @ flat(m)  # (R, H)
    # (17) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = Wᵀ δ_1,  ∂L/∂c_0 = ∂c_1 ⊙ f_1 + pⁱ ⊙ δⁱ_1 + pᶠ ⊙ δᶠ_1
    dx = (flat(delta) @ U).reshape(x.shape)  # (T, B, D)
    return Grads(dU, dW, db, dp, dP, dx, dh_next, dc_next, delta)


def _lacking(params: Params) -> str:
    """What the compiled layer has not."""
    _, _, _, p, P = _door.instance("params", params, Params)
    return "" if p is None and P is None else "peepholes or a projection"


def _opened(
    params: Params, x: Array, h0: Array | None, c0: Array | None, forget_offset: float
) -> tuple[dict[str, int], Params, Array, Array, Array, Any]:
    """What `forward` is given, checked: the sizes, the weights, x, h_0, c_0 and φ."""
    shapes = _door.Shapes()
    weights = _weights(params, shapes)
    kind = weights.U.dtype
    x = shapes.floats("x", x, "T B D", kind)
    B, H, R = (shapes.size[letter] for letter in "BHR")
    h0 = np.zeros((B, R), kind) if h0 is None else shapes.floats("h0", h0, "B R", kind)
    c0 = np.zeros((B, H), kind) if c0 is None else shapes.floats("c0", c0, "B H", kind)
    offset = kind.type(_door.number("forget_offset", forget_offset))
    return shapes.size, weights, x, h0, c0, offset


def _opened_backward(
    params: Params, cache: Cache, dstates: States, dlast: States | None
) -> tuple[Params, tuple[Array, Array], tuple[Array, Array]]:
    """What `backward` is given, checked: the weights and the cotangents, 0 for None."""
    _, h0, c0, gates, all_h, all_c, sizes, _ = _door.instance("cache", cache, Cache)
    shapes = _door.Shapes(sizes)
    weights = _weights(params, shapes, gates.dtype)
    dh, dc = _door.instance("dstates", dstates, States)
    dh = shapes.cotangents("dstates.h", dh, "T B R", all_h)
    dc = shapes.cotangents("dstates.c", dc, "T B H", all_c)
    last = States(None, None) if dlast is None else _door.instance("dlast", dlast, States)
    dh_next = shapes.cotangents("dlast.h", last.h, "B R", h0)  # what reaches h_t from later steps
    dc_next = shapes.cotangents("dlast.c", last.c, "B H", c0)  # … and c_t
    return weights, (dh, dc), (dh_next, dc_next)


def _dpeepholes(delta: Array, before_c: Array, c: Array) -> Array:
    d_i, d_f, _, d_o = np.split(delta, 4, axis=-1)
    terms = np.concatenate([d_i * before_c, d_f * before_c, d_o * c], axis=-1)
    return terms.sum(axis=(0, 1))  # (3H,)


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    U, W, b, p, P = _door.instance("params", params, Params)
    U = shapes.floats("params.U", U, "4H D", dtype)
    if P is None:  # h_t is m_t
        shapes.equate("R", "H")
    else:
        P = shapes.floats("params.P", P, "R H", U.dtype)
    W = shapes.floats("params.W", W, "4H R", U.dtype)
    b = None if b is None else shapes.floats("params.b", b, "4H", U.dtype)
    p = None if p is None else shapes.floats("params.p", p, "3H", U.dtype)
    return Params(U, W, b, p, P)
