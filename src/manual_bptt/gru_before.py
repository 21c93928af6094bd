"""The gated recurrent unit that resets before the product, and its backward pass, by hand.

    (1)  u_t = U x_t + b,  three blocks: r z n
    (2)  r_t = σ(uʳ_t + Wʳ h_{t-1}),  z_t = σ(uᶻ_t + Wᶻ h_{t-1})
    (3)  q_t = r_t ⊙ h_{t-1}
    (4)  n_t = tanh(uⁿ_t + Wⁿ q_t)
    (5)  h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    (6)  ∂h_t = ∂L/∂h_t + z_{t+1} ⊙ ∂h_{t+1} + r_{t+1} ⊙ ∂q_{t+1} + Wʳᵀ δʳ_{t+1} + Wᶻᵀ δᶻ_{t+1}
    (7)  δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    (8)  δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    (9)  ∂q_t = Wⁿᵀ δⁿ_t
    (10) δʳ_t = ∂q_t ⊙ h_{t-1} ⊙ σ′(r_t)
    (11) ∂L/∂Wʳ = Σ_t δʳ_t h_{t-1}ᵀ,  ∂L/∂Wᶻ = Σ_t δᶻ_t h_{t-1}ᵀ,  ∂L/∂Wⁿ = Σ_t δⁿ_t q_tᵀ
    (12) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (13) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0: (6) without ∂L/∂h_t

Cho et al. 2014, as it was first written (the other order is `gru`; no weights make the two equal).
δ_t is ∂L/∂u_t; σ′ and tanh′ are computed from the values of σ and tanh. Vectors are rows. Letters:
T steps, B batch, D input size, H hidden size.

Kept for the way back: the three gates and h_t. q_t is one product of entries away.
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
    """The weights of the layer, in blocks r z n; `b` is None for a layer without bias."""

    U: Array  # (3H, D)
    W: Array  # (3H, H)
    b: Array | None = None  # (3H,)


class Cache(NamedTuple):
    """What `backward` needs: the input, all gates and all states."""

    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    gates: Array  # (T, B, 3H), after σ and tanh
    h: Array  # (T, B, H)
    sizes: dict[str, int]  # of T, B, D, H
    engine: str = "numpy"  # that made it


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself; None for a bias that it lacks."""

    U: Array  # (3H, D)
    W: Array  # (3H, H)
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
    """Random weights: U uniform in ±1/√D, W of orthogonal blocks, b zero.

    Raises `TypeError` or `ValueError` for a size that is no int of at least 1, for a dtype other
    than float32 and float64, and for an `rng` that is no `numpy.random.Generator`.
    """
    _door.generator("rng", rng)
    D, H = _door.size("input_size", input_size), _door.size("hidden_size", hidden_size)
    kind = _door.float_dtype("dtype", dtype)
    U = initial.fan_in(rng, 3 * H, D, kind)
    W = initial.orthogonal_blocks(rng, 3, H, kind)
    return Params(U, W, np.zeros(3 * H, kind) if bias else None)


def forward(
    params: Params, x: Array, h0: Array | None = None, *, engine: str | None = None
) -> tuple[Array, Cache]:
    """All states of the sequence: equations (1) to (5).

    Args:
        params: U (3H, D), W (3H, H), and if wanted b (3H,); all float32 or all float64.
        x: (T, B, D) of the dtype of the weights.
        h0: (B, H), the state before the first step; zeros when None.
        engine: see `manual_bptt.engines`; the way back runs on the same.

    Returns:
        The states h_1 … h_T, (T, B, H), read-only because `backward` reads them too; and the
        cache for `backward`, which refers to `x` and the start (leave them unchanged until then).

    Raises `TypeError` or `ValueError` that names the argument for anything of another type, shape
    or dtype, for NaN and infinity, and for empty axes.
    """
    if fast := engines.compiled(engine, "gru_before"):
        return fast.forward(params, x, h0)
    sizes, (U, W, b), x, h0 = _opened(params, x, h0)
    T, B, H = (sizes[letter] for letter in "TBH")

    # (1) u_t = U x_t + b, for all steps in one product
    u = (flat(x) @ U.T).reshape(T, B, 3 * H)
    if b is not None:
        u += b
    W_rz, W_n = W[: 2 * H], W[2 * H :]

    gates, all_h = np.empty((T, B, 3 * H), U.dtype), np.empty((T, B, H), U.dtype)
    h = h0
    for t in range(T):
        u_r, u_z, u_n = np.split(u[t], 3, axis=-1)  # (B, H) each
        v_r, v_z = np.split(h @ W_rz.T, 2, axis=-1)
        r, z, n = np.split(gates[t], 3, axis=-1)  # views, to be filled
        # (2) r_t = σ(uʳ_t + Wʳ h_{t-1}),  z_t = σ(uᶻ_t + Wᶻ h_{t-1})
        r[...] = sigmoid(u_r + v_r)
        z[...] = sigmoid(u_z + v_z)
        # (3) q_t = r_t ⊙ h_{t-1}
        q = r * h
        # (4) n_t = tanh(uⁿ_t + Wⁿ q_t)
        n[...] = tanh(u_n + q @ W_n.T)
        # (5) h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
        all_h[t] = (1 - z) * n + z * h
        h = all_h[t]
    all_h.flags.writeable = False
    return all_h, Cache(x, h0, gates, all_h, sizes)


def backward(
    params: Params,
    cache: Cache,
    dstates: Array | None,
    dlast: Array | None = None,
) -> Grads:
    """All gradients of the layer: equations (6) to (13).

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: (T, B, H), the cotangents ∂L/∂h_t; None is zero.
        dlast: (B, H), a cotangent that the last state has besides; None is zero.

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    if fast := engines.made("gru_before", cache, Cache):
        return fast.backward(params, cache, dstates, dlast)
    (U, W, b), dstates, dh_next = _opened_backward(params, cache, dstates, dlast)
    x, h0, gates, all_h, *_ = cache

    before = np.concatenate([h0[None], all_h[:-1]])  # h_{t-1} (T, B, H)
    H = before.shape[-1]
    W_rz, W_n = W[: 2 * H], W[2 * H :]
    delta = np.empty_like(gates)  # (T, B, 3H)
    for t in reversed(range(len(delta))):
        r, z, n = np.split(gates[t], 3, axis=-1)
        d_r, d_z, d_n = np.split(delta[t], 3, axis=-1)  # views, to be filled
        # (6) ∂h_t = ∂L/∂h_t + what reaches it from step t + 1
        dh = dstates[t] + dh_next  # (B, H)
        # (7) δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
        d_n[...] = dh * (1 - z) * dtanh(n)
        # (8) δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
        d_z[...] = dh * (before[t] - n) * dsigmoid(z)
        # (9) ∂q_t = Wⁿᵀ δⁿ_t
        dq = d_n @ W_n  # (B, H)
        # (10) δʳ_t = ∂q_t ⊙ h_{t-1} ⊙ σ′(r_t)
        d_r[...] = dq * before[t] * dsigmoid(r)
        # (6) what goes on to step t - 1: z_t ⊙ ∂h_t + r_t ⊙ ∂q_t + Wʳᵀ δʳ_t + Wᶻᵀ δᶻ_t
        dh_next = z * dh + r * dq + delta[t, :, : 2 * H] @ W_rz

    # (11) ∂L/∂Wʳ = Σ_t δʳ_t h_{t-1}ᵀ,  ∂L/∂Wᶻ = Σ_t δᶻ_t h_{t-1}ᵀ,  ∂L/∂Wⁿ = Σ_t δⁿ_t q_tᵀ
    q = gates[..., :H] * before  # (T, B, H)
    dW_rz = flat(delta[..., : 2 * H]).T @ flat(before)  # (2H, H)
    dW_n = flat(delta[..., 2 * H :]).T @ flat(q)  # (H, H)
    dW = np.concatenate([dW_rz, dW_n])  # (3H, H)
    # (12) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    dU = flat(delta).T @ flat(x)  # (3H, D)
    db = None if b is None else delta.sum(axis=(0, 1))  # (3H,)
    # (13) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0: (6) without ∂L/∂h_t
    dx = (flat(delta) @ U).reshape(x.shape)  # (T, B, D)
    return Grads(dU, dW, db, dx, dh_next, delta)


def _opened(
    params: Params, x: Array, h0: Array | None
) -> tuple[dict[str, int], Params, Array, Array]:
    """What `forward` is given, checked: the sizes, the weights, x and h_0."""
    shapes = _door.Shapes()
    weights = _weights(params, shapes)
    kind = weights.U.dtype
    x = shapes.floats("x", x, "T B D", kind)
    B, H = shapes.size["B"], shapes.size["H"]
    h0 = np.zeros((B, H), kind) if h0 is None else shapes.floats("h0", h0, "B H", kind)
    return shapes.size, weights, x, h0


def _opened_backward(
    params: Params, cache: Cache, dstates: Array | None, dlast: Array | None
) -> tuple[Params, Array, Array]:
    """What `backward` is given, checked: the weights and the cotangents, 0 for None."""
    _, h0, gates, all_h, sizes, _ = _door.instance("cache", cache, Cache)
    shapes = _door.Shapes(sizes)
    weights = _weights(params, shapes, gates.dtype)
    dstates = shapes.cotangents("dstates", dstates, "T B H", all_h)
    dh_next = shapes.cotangents("dlast", dlast, "B H", h0)  # what reaches h_t from later steps
    return weights, dstates, dh_next


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    U, W, b = _door.instance("params", params, Params)
    U = shapes.floats("params.U", U, "3H D", dtype)
    W = shapes.floats("params.W", W, "3H H", U.dtype)
    b = None if b is None else shapes.floats("params.b", b, "3H", U.dtype)
    return Params(U, W, b)
