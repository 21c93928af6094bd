"""The minimal gated recurrent unit and its backward pass, by hand: no gate sees the state.

    (1)  a_t = U x_t + b,  two blocks: z n
    (2)  z_t = σ(aᶻ_t)
    (3)  n_t = g(aⁿ_t),  g(v) = v + 1/2 where v ≥ 0, σ(v) elsewhere
    (4)  h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ n_t

    (5)  ∂h_t = ∂L/∂h_t + (1 - z_{t+1}) ⊙ ∂h_{t+1}
    (6)  δᶻ_t = ∂h_t ⊙ (n_t - h_{t-1}) ⊙ σ′(z_t)
    (7)  δⁿ_t = ∂h_t ⊙ z_t ⊙ g′(aⁿ_t)
    (8)  ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (9)  ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = (1 - z_1) ⊙ ∂h_1

    (4′) h_t = exp(A_t + log(h_0 + Σ_{s≤t} exp(log z_s + log n_s - A_s))),
         A_t = Σ_{s≤t} log(1 - z_s)

Feng et al. 2024 ("Were RNNs all we needed?"). (4′) is (4) written for all steps at once, in
logarithms; it needs h_0 > 0, and as n_t > 0 all states are. The derivative is that of (4) in
either form: it is the same function. 1 - z_t is computed as σ(-aᶻ_t), so that it keeps its digits
where z_t is near 1, and σ′(z_t) as the product of the two. δ_t is ∂L/∂a_t. Vectors are rows.
Letters: T steps, B batch, D input size, H hidden size.

Kept for the way back: z_t, 1 - z_t, aⁿ_t and h_t. n_t is made again from aⁿ_t, whose sign g′
needs.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat
from manual_bptt.activations import dsigmoid, log_sigmoid, sigmoid

Form = Literal["sequential", "parallel"]


class Params(NamedTuple):
    """The weights of the layer, in blocks z n; `b` is None for a layer without bias."""

    U: Array  # (2H, D)
    b: Array | None = None  # (2H,)


class Cache(NamedTuple):
    """What `backward` needs: the input, the gate and its rest, what n is made of, all states."""

    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    z: Array  # (T, B, H)
    rest: Array  # (T, B, H): 1 - z
    a_n: Array  # (T, B, H)
    h: Array  # (T, B, H)
    sizes: dict[str, int]  # of T, B, D, H


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself; None for a bias that it lacks."""

    U: Array  # (2H, D)
    b: Array | None  # (2H,)
    x: Array  # (T, B, D)
    h0: Array  # (B, H)
    delta: Array  # (T, B, 2H)


def g(v: Array) -> Array:
    """v + 1/2 where v ≥ 0, σ(v) elsewhere: positive, and continuous at 0"""
    return np.where(v >= 0, v + v.dtype.type(0.5), sigmoid(v))


def dg(v: Array) -> Array:
    """1 where v ≥ 0, σ′(v) elsewhere"""
    return np.where(v >= 0, v.dtype.type(1), dsigmoid(sigmoid(v)))


def log_g(v: Array) -> Array:
    """log g(v), which keeps its digits where g(v) is near 0"""
    return np.where(v >= 0, np.log(np.maximum(v, 0) + v.dtype.type(0.5)), log_sigmoid(v))


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
    return Params(initial.fan_in(rng, 2 * H, D, kind), np.zeros(2 * H, kind) if bias else None)


def forward(
    params: Params, x: Array, h0: Array | None = None, *, form: Form = "sequential"
) -> tuple[Array, Cache]:
    """All states of the sequence: equations (1) to (4), or (4′).

    Args:
        params: U (2H, D), and if wanted b (2H,); all float32 or all float64.
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
    a = (flat(x) @ U.T).reshape(T, B, 2 * H)
    if b is not None:
        a += b
    a_z, a_n = a[..., :H], a[..., H:]
    # (2) z_t = σ(aᶻ_t)
    z, rest = sigmoid(a_z), sigmoid(-a_z)
    if form == "parallel":
        # (4′) from log(1 - z_t) and log(z_t n_t),  1 - z = σ(-aᶻ)
        h = all_at_once(log_sigmoid(-a_z), log_sigmoid(a_z) + log_g(a_n), h0)
    else:
        n = g(a_n)  # (3)
        h = np.empty((T, B, H), U.dtype)
        now = h0
        for t in range(T):
            # (4) h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ n_t
            h[t] = rest[t] * now + z[t] * n[t]
            now = h[t]
    h.flags.writeable = False
    return h, Cache(x, h0, z, rest, a_n, h, shapes.size)


def check_form(form: str, h0: Array) -> None:
    """Raise `ValueError` for an unknown form, and where logarithms need an h0 above 0."""
    if form not in ("sequential", "parallel"):
        raise ValueError(f"form: expected sequential or parallel, got {form!r}")
    if form == "parallel" and not (h0 > 0).all():
        raise ValueError("h0: expected values above 0 for form='parallel'")


def all_at_once(log_kept: Array, log_new: Array, h0: Array) -> Array:
    """(4′), all steps at once: from the logarithms of what is kept of h_{t-1} and what is new."""
    A = np.cumsum(log_kept, axis=0)  # A_t
    terms = np.concatenate([np.log(h0)[None], log_new - A])
    return np.exp(A + np.logaddexp.accumulate(terms, axis=0)[1:])


def backward(
    params: Params, cache: Cache, dstates: Array | None, dlast: Array | None = None
) -> Grads:
    """All gradients of the layer: equations (5) to (9).

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: (T, B, H), the cotangents ∂L/∂h_t; None is zero.
        dlast: (B, H), a cotangent that the last state has besides; None is zero.

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    x, h0, z, rest, a_n, h, sizes = _door.instance("cache", cache, Cache)
    shapes = _door.Shapes(sizes)
    U, b = _weights(params, shapes, z.dtype)
    dstates = shapes.cotangents("dstates", dstates, "T B H", h)
    dh_next = shapes.cotangents("dlast", dlast, "B H", h0)  # what reaches h_t from later steps

    dh = np.empty_like(h)  # (T, B, H)
    for t in reversed(range(len(h))):
        # (5) ∂h_t = ∂L/∂h_t + (1 - z_{t+1}) ⊙ ∂h_{t+1}
        dh[t] = dstates[t] + dh_next
        dh_next = rest[t] * dh[t]
    before = np.concatenate([h0[None], h[:-1]])  # h_{t-1} (T, B, H)
    # (6) δᶻ_t = ∂h_t ⊙ (n_t - h_{t-1}) ⊙ σ′(z_t)
    d_z = dh * (g(a_n) - before) * z * rest
    # (7) δⁿ_t = ∂h_t ⊙ z_t ⊙ g′(aⁿ_t)
    d_n = dh * z * dg(a_n)
    delta = np.concatenate([d_z, d_n], axis=-1)  # (T, B, 2H)
    # (8) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    dU = flat(delta).T @ flat(x)  # (2H, D)
    db = None if b is None else delta.sum(axis=(0, 1))  # (2H,)
    # (9) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = (1 - z_1) ⊙ ∂h_1
    dx = (flat(delta) @ U).reshape(x.shape)  # (T, B, D)
    return Grads(dU, db, dx, dh_next, delta)


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    U, b = _door.instance("params", params, Params)
    U = shapes.floats("params.U", U, "2H D", dtype)
    return Params(U, None if b is None else shapes.floats("params.b", b, "2H", U.dtype))
