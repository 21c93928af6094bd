"""The state activations f, each with its derivative right under it.

f′ is computed from the state s = f(a) itself, so that nothing but the states has to be kept for
the way back (article, equations (2), (8), (9)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from manual_bptt._door import Array


class Activation(NamedTuple):
    """An activation and its derivative.

    `f` maps pre-activations a to states s; `df` maps *states* s to f′(a). Both are elementwise,
    keep shape and dtype, and leave their argument as it is.
    """

    name: str
    f: Callable[[Array], Array]
    df: Callable[[Array], Array]


def tanh(a: Array) -> Array:
    """s = tanh(a)"""
    return np.asarray(np.tanh(a))


def dtanh(s: Array) -> Array:
    """f′ = 1 - s²"""
    return (1 - s) * (1 + s)  # the same product, without the cancellation near |s| = 1


def sigmoid(a: Array) -> Array:
    """s = 1 / (1 + e^-a)"""
    e = np.exp(-np.abs(a))  # never overflows; small s keeps its relative accuracy
    return np.where(a >= 0, 1, e) / (1 + e)


def dsigmoid(s: Array) -> Array:
    """f′ = s (1 - s)"""
    return s * (1 - s)


def log_sigmoid(a: Array) -> Array:
    """log σ(a) = min(a, 0) - log(1 + exp(-|a|)), which keeps its digits where σ(a) is near 1"""
    return np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))


def relu(a: Array) -> Array:
    """s = max(a, 0)"""
    return np.maximum(a, 0)


def drelu(s: Array) -> Array:
    """f′ = 1 where a > 0 (there s > 0), and 0 elsewhere, also at a = 0"""
    return (s > 0).astype(s.dtype)


ACTIVATIONS = {
    "tanh": Activation("tanh", tanh, dtanh),
    "sigmoid": Activation("sigmoid", sigmoid, dsigmoid),
    "relu": Activation("relu", relu, drelu),
}


def get(activation: str | Activation) -> Activation:
    """The activation of that name; an `Activation` of one's own is returned as it is.

    Raises `ValueError` for an unknown name and `TypeError` for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    names = ", ".join(ACTIVATIONS)
    if not isinstance(activation, str):
        raise TypeError(f"activation: expected one of {names}, got {type(activation).__name__}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {names}, got {activation!r}")
    return ACTIVATIONS[activation]
