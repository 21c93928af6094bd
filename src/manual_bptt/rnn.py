"""The article's recurrent layer and its backpropagation through time, by hand.

    (1)  a_t = U x_t + W s_{t-1} + b
    (2)  s_t = f(a_t)

    (8)  δ_T = [∂L/∂s_T] ⊙ f′(a_T)
    (9)  δ_t = [∂L/∂s_t + Wᵀ δ_{t+1}] ⊙ f′(a_t),  t = T-1 … 1
    (10) ∂L/∂W = Σ_t δ_t s_{t-1}ᵀ
    (11) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (12) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂s_0 = Wᵀ δ_1

Here δ_t = ∂L/∂a_t. In the article ∂L/∂s_t is Vᵀ(o_t - y_t); as a layer it is whatever cotangent
comes in, and the last state may have one of its own. Sequences are time-major and vectors are
rows, so `U x_t` reads `x[t] @ U.T`. Letters: T steps, B batch, D input size, H hidden size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, activations, engines, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat
from manual_bptt.activations import Activation


class Params(NamedTuple):
    """The weights of the layer; `b` is None for a layer without bias."""

    U: Array  # (H, D)
    W: Array  # (H, H)
    b: Array | None = None  # (H,)


class Cache(NamedTuple):
    """What `backward` needs: the input and the states. f′ comes from the states alone."""

    x: Array  # (T, B, D), or class indices (T, B)
    s0: Array  # (B, H)
    states: Array  # (T, B, H)
    activation: Activation
    sizes: dict[str, int]  # of T, B, D, H
    engine: str = "numpy"  # that made it


class Grads(NamedTuple):
    """∂L/∂ of everything the layer takes, and δ itself."""

    U: Array  # (H, D)
    W: Array  # (H, H)
    b: Array | None  # (H,), None for a layer without bias
    x: Array | None  # (T, B, D), None for class indices
    s0: Array  # (B, H)
    delta: Array  # (T, B, H)


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    *,
    bias: bool = True,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: U uniform in ±1/√D, W orthogonal, b zero.

    Raises `TypeError` or `ValueError` for a size that is no int of at least 1, for a dtype other
    than float32 and float64, and for an `rng` that is no `numpy.random.Generator`.
    """
    _door.generator("rng", rng)
    D, H = _door.size("input_size", input_size), _door.size("hidden_size", hidden_size)
    kind = _door.float_dtype("dtype", dtype)
    U = initial.fan_in(rng, H, D, kind)
    W = initial.orthogonal(rng, H, kind)
    return Params(U, W, np.zeros(H, kind) if bias else None)


def forward(
    params: Params,
    x: Array,
    s0: Array | None = None,
    activation: str | Activation = "tanh",
    *,
    engine: str | None = None,
) -> tuple[Array, Cache]:
    """All states of the sequence: equations (1) and (2).

    Args:
        params: U (H, D), W (H, H), b (H,) or None; all float32 or all float64.
        x: (T, B, D) of the dtype of the weights; or class indices (T, B), integers in [0, D),
            which stand for one-hot vectors.
        s0: (B, H), the state before the first step; zeros when None.
        activation: "tanh", "sigmoid", "relu", or an `Activation`.
        engine: see `manual_bptt.engines`; the way back runs on the same.

    Returns:
        The states s_1 … s_T, (T, B, H), read-only because `backward` reads them too; and the
        cache for `backward`, which refers to `x` (leave it unchanged until then).

    Raises `TypeError` or `ValueError` that names the argument for anything of another type, shape
    or dtype, for NaN and infinity, for empty axes and for class indices out of range.
    """
    if fast := engines.compiled(engine, "rnn", _lacking(activation)):
        return fast.forward(params, x, s0, activation)
    f, sizes, (U, W, b), x, s0 = _opened(params, x, s0, activation)
    T, B, H = (sizes[letter] for letter in "TBH")

    # (1) the part without s_{t-1}, for all steps in one product: U x_t + b
    projected = _project(U, x)  # (T, B, H)
    if b is not None:
        projected += b

    states = np.empty((T, B, H), U.dtype)
    s = s0
    for t in range(T):
        # (1) a_t = U x_t + W s_{t-1} + b
        a = projected[t] + s @ W.T  # (B, H)
        # (2) s_t = f(a_t)
        states[t] = f.f(a)  # (B, H)
        s = states[t]
    states.flags.writeable = False
    return states, Cache(x, s0, states, f, sizes)


def backward(
    params: Params,
    cache: Cache,
    dstates: Array | None,
    dlast: Array | None = None,
) -> Grads:
    """All gradients of the layer: equations (8) to (12).

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dstates: (T, B, H), the cotangents ∂L/∂s_t; None is zero.
        dlast: (B, H), a cotangent that the last state has besides; None is zero.

    Returns `Grads`; δ_t is `delta[t - 1]`.

    Raises `TypeError` or `ValueError` that names the argument, as `forward` does.
    """
    if fast := engines.made("rnn", cache, Cache):
        return fast.backward(params, cache, dstates, dlast)
    (U, W, b), dstates, dlast = _opened_backward(params, cache, dstates, dlast)
    x, s0, states, f, *_ = cache

    delta = np.empty_like(states)  # (T, B, H)
    # (8) what reaches s_T from beyond the last step: no Wᵀ δ_{T+1}, but a cotangent of its own
    carried = dlast  # (B, H)
    for t in reversed(range(len(delta))):
        # (9) δ_t = [∂L/∂s_t + Wᵀ δ_{t+1}] ⊙ f′(a_t)
        delta[t] = (dstates[t] + carried) * f.df(states[t])  # (B, H)
        carried = delta[t] @ W  # Wᵀ δ_t (B, H)

    # (10) ∂L/∂W = Σ_t δ_t s_{t-1}ᵀ
    before = np.concatenate([s0[None], states[:-1]])  # s_{t-1} (T, B, H)
    dW = flat(delta).T @ flat(before)  # (H, H)
    # (11) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    dU = _dproject(x, delta, U)  # (H, D)
    db = None if b is None else delta.sum(axis=(0, 1))  # (H,)
    # (12) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂s_0 = Wᵀ δ_1
    dx = None if _is_indices(x) else (flat(delta) @ U).reshape(x.shape)  # (T, B, D)
    ds0 = carried  # (B, H)
    return Grads(dU, dW, db, dx, ds0, delta)


def _lacking(activation: str | Activation) -> str:
    """What the compiled layer has not."""
    own = isinstance(activation, Activation) and activation not in activations.ACTIVATIONS.values()
    return "an activation of one's own" if own else ""


def _opened(
    params: Params, x: Array, s0: Array | None, activation: str | Activation
) -> tuple[Activation, dict[str, int], Params, Array, Array]:
    """What `forward` is given, checked: f, the sizes, the weights, x and s_0."""
    f = activations.get(activation)
    shapes = _door.Shapes()
    U, W, b = _weights(params, shapes)
    x = _sequence(x, shapes, U)
    B, H = shapes.size["B"], shapes.size["H"]
    s0 = np.zeros((B, H), U.dtype) if s0 is None else shapes.floats("s0", s0, "B H", U.dtype)
    return f, shapes.size, Params(U, W, b), x, s0


def _opened_backward(
    params: Params, cache: Cache, dstates: Array | None, dlast: Array | None
) -> tuple[Params, Array, Array]:
    """What `backward` is given, checked: the weights and the cotangents, 0 for None."""
    _, s0, states, _, sizes, _ = _door.instance("cache", cache, Cache)
    shapes = _door.Shapes(sizes)
    weights = _weights(params, shapes, states.dtype)
    dstates = shapes.cotangents("dstates", dstates, "T B H", states)
    return weights, dstates, shapes.cotangents("dlast", dlast, "B H", s0)


def _project(U: Array, x: Array) -> Array:
    """U x_t for all steps in one product; for class indices, the columns of U."""
    if _is_indices(x):
        return U.T[x]  # (T, B, H)
    return (flat(x) @ U.T).reshape(*x.shape[:2], len(U))  # (T, B, H)


def _dproject(x: Array, delta: Array, U: Array) -> Array:
    """Σ_t δ_t x_tᵀ in one product; for class indices, the sum of the δ_t that met each column."""
    if _is_indices(x):
        order = np.argsort(x, axis=None, kind="stable")
        columns, starts = np.unique(x.ravel()[order], return_index=True)
        dU = np.zeros_like(U)  # (H, D)
        dU[:, columns] = np.add.reduceat(flat(delta)[order], starts).T
        return dU
    return flat(delta).T @ flat(x)  # (H, D)


def _is_indices(x: Array) -> bool:
    return x.ndim == 2


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    U, W, b = _door.instance("params", params, Params)
    U = shapes.floats("params.U", U, "H D", dtype)
    W = shapes.floats("params.W", W, "H H", U.dtype)
    return Params(U, W, None if b is None else shapes.floats("params.b", b, "H", U.dtype))


def _sequence(x: Array, shapes: _door.Shapes, U: Array) -> Array:
    if _door.holds_indices("x", x):
        return shapes.integers("x", x, "T B", below=U.shape[1])
    return shapes.floats("x", x, "T B D", U.dtype)
