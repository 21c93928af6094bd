"""The state activations f on a stretch of numbers, each with its derivative right under it.

As in `manual_bptt.activations`, f′ comes from the state s = f(a).
"""

from __future__ import annotations

from numba import njit

from manual_bptt.compiled.functions import like, sigmoid, tanh
from manual_bptt.compiled.machine import FUSED, on_whole_vectors

KINDS = ("tanh", "sigmoid", "relu")
TANH, SIGMOID, RELU = range(3)


@njit(**FUSED)
def activate(kind, a, s):
    """s = f(a)"""
    on_whole_vectors()
    if kind == TANH:
        for j in range(len(a)):
            s[j] = tanh(a[j])
    elif kind == SIGMOID:
        for j in range(len(a)):
            s[j] = sigmoid(a[j])
    else:
        zero = like(0.0, a[0])
        for j in range(len(a)):
            s[j] = a[j] if a[j] > 0 else zero


@njit(**FUSED)
def reach_through(kind, s, ds, carried, delta):
    """δ = (∂L/∂s + carried) ⊙ f′, with f′ from s"""
    on_whole_vectors()
    one, zero = like(1.0, s[0]), like(0.0, s[0])
    if kind == TANH:
        for j in range(len(s)):
            delta[j] = (ds[j] + carried[j]) * ((one - s[j]) * (one + s[j]))
    elif kind == SIGMOID:
        for j in range(len(s)):
            delta[j] = (ds[j] + carried[j]) * (s[j] * (one - s[j]))
    else:
        for j in range(len(s)):
            delta[j] = (ds[j] + carried[j]) * (one if s[j] > 0 else zero)
