"""Step 7: the update of the weights, plain as in the article, with momentum, and Adam.

    (13) θ ← θ - η ∂L/∂θ

Every function takes the parameters of a layer or model (a NamedTuple of arrays, or of tuples of
them; None is skipped) and gradients with fields of the same names, and returns new parameters;
nothing is modified. Where a state is kept by name, that of nested parameters is the path to them,
"layers.0.U".
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from manual_bptt import _door, _tree
from manual_bptt._door import Array

P = TypeVar("P", bound=tuple[Any, ...])


def sgd(params: P, grads: Any, learning_rate: float) -> P:
    """Equation (13), with η = `learning_rate`.

    Raises `TypeError` or `ValueError` when a gradient is missing, of another shape or dtype or not
    finite, or when the rate is not a finite number of at least 0.
    """
    eta = _door.number("learning_rate", learning_rate, low=0)
    theta, d = _arrays(params), _gradients(params, grads)
    # (13) θ ← θ - η ∂L/∂θ
    return _tree.filled(params, {k: theta[k] - eta * d[k] for k in theta})


class Momentum(NamedTuple):
    """The velocity v of each parameter, by field name or path."""

    v: dict[str, Array]


def momentum_start(params: Any) -> Momentum:
    """v = 0."""
    return Momentum({k: np.zeros_like(p) for k, p in _arrays(params).items()})


def momentum(
    params: P, grads: Any, state: Momentum, learning_rate: float, *, decay: float = 0.9
) -> tuple[P, Momentum]:
    """v ← μ v + ∂L/∂θ,  θ ← θ - η v, with μ = `decay` in [0, 1). Raises as `sgd`.

    Source: B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    eta = _door.number("learning_rate", learning_rate, low=0)
    mu = _door.number("decay", decay, low=0, high=1)
    theta, d = _arrays(params), _gradients(params, grads)
    before = _state("state.v", _door.instance("state", state, Momentum).v, theta)
    v = {k: mu * before[k] + d[k] for k in theta}
    return _tree.filled(params, {k: theta[k] - eta * v[k] for k in theta}), Momentum(v)


class Adam(NamedTuple):
    """The step count n and the running means of gradient (m) and squared gradient (v)."""

    n: int
    m: dict[str, Array]
    v: dict[str, Array]


def adam_start(params: Any) -> Adam:
    """n = 0, m = 0, v = 0."""
    theta = _arrays(params)
    return Adam(
        0,
        {k: np.zeros_like(p) for k, p in theta.items()},
        {k: np.zeros_like(p) for k, p in theta.items()},
    )


def adam(
    params: P,
    grads: Any,
    state: Adam,
    learning_rate: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[P, Adam]:
    """Adam: D. Kingma and J. Ba, arXiv:1412.6980, algorithm 1. Raises as `sgd`."""
    eta = _door.number("learning_rate", learning_rate, low=0)
    beta1 = _door.number("beta1", beta1, low=0, high=1)
    beta2 = _door.number("beta2", beta2, low=0, high=1)
    epsilon = _door.number("epsilon", epsilon, low=0)
    theta, d = _arrays(params), _gradients(params, grads)
    n = _door.instance("state", state, Adam).n + 1
    before_m, before_v = _state("state.m", state.m, theta), _state("state.v", state.v, theta)
    # m ← β₁ m + (1 - β₁) ∂L/∂θ,  v ← β₂ v + (1 - β₂) (∂L/∂θ)²
    m = {k: beta1 * before_m[k] + (1 - beta1) * d[k] for k in theta}
    v = {k: beta2 * before_v[k] + (1 - beta2) * d[k] ** 2 for k in theta}
    # m̂ = m / (1 - β₁ⁿ),  v̂ = v / (1 - β₂ⁿ),  θ ← θ - η m̂ / (√v̂ + ε)
    m_hat = {k: m[k] / (1 - beta1**n) for k in theta}
    v_hat = {k: v[k] / (1 - beta2**n) for k in theta}
    new = {k: theta[k] - eta * m_hat[k] / (np.sqrt(v_hat[k]) + epsilon) for k in theta}
    return _tree.filled(params, new), Adam(n, m, v)


def clip_norm(params: P, grads: Any, max_norm: float) -> tuple[P, float]:
    """The gradients of the parameters, scaled so that their common norm is at most `max_norm`.

    Returns them in the shape of `params`, and the norm they had. Source: R. Pascanu et al., "On the
    difficulty of training recurrent neural networks", ICML 2013. Raises as `sgd`.
    """
    limit = _door.number("max_norm", max_norm, low=0)
    d = _gradients(params, grads)
    # squares of the largest entry's size, so that they neither overflow nor underflow
    largest = max(float(np.abs(g).max()) for g in d.values()) or 1.0
    squares = (np.sum(np.square(g.astype(np.float64) / largest)) for g in d.values())
    norm = largest * float(np.sqrt(sum(squares)))
    scale = limit / norm if norm > limit else 1.0
    return _tree.filled(params, {k: g * scale for k, g in d.items()}), norm


def _arrays(params: Any) -> dict[str, Array]:
    """The arrays that are present, by field name or path."""
    if not (isinstance(params, tuple) and hasattr(params, "_asdict")):
        raise TypeError(f"params: expected a NamedTuple of arrays, got {type(params).__name__}")
    return {k: _floats(f"params.{k}", p) for k, p in _tree.leaves(params)}


def _state(name: str, state: dict[str, Array], theta: dict[str, Array]) -> dict[str, Array]:
    """What an optimiser keeps for each parameter, held against its shape and dtype."""
    return {k: _like_parameter(f"{name}[{k!r}]", state.get(k), p) for k, p in theta.items()}


def _floats(name: str, value: object, dtype: np.dtype[Any] | None = None) -> Array:
    """A finite float array of any shape."""
    letters = " ".join(f"n{axis}" for axis in range(_door.ndarray(name, value).ndim))
    return _door.Shapes().floats(name, value, letters, dtype)


def _like_parameter(name: str, value: object, parameter: Array) -> Array:
    array = _door.ndarray(name, value)
    if array.shape != parameter.shape:
        raise ValueError(f"{name}: expected shape {parameter.shape}, got {array.shape}")
    return _floats(name, array, parameter.dtype)


def _gradients(params: Any, grads: Any) -> dict[str, Array]:
    """For each parameter its gradient, looked up by name and held against shape and dtype."""
    return {
        k: _like_parameter(f"grads.{k}", _tree.at(grads, k), p) for k, p in _arrays(params).items()
    }
