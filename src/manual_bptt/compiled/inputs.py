"""The part of a layer that meets the input: U x_t + b for a block of steps, and its gradients.

    (1) u_t = U x_t + b
    (2) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t,  ∂L/∂x_t = Uᵀ δ_t

No step waits for another here, so all steps of a block go in one product. Class indices stand for
one-hot vectors: U x_t is a column of U, and what reaches it is added to that column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from manual_bptt._door import Array
from manual_bptt.compiled.blocks import add_rows, add_to, back, forth, parted, put, repeat, take
from manual_bptt.compiled.machine import TALLEST
from manual_bptt.compiled.product import columns, product


class Inputs(NamedTuple):
    """x of all steps, as vectors or as classes; the other of the two is empty."""

    x: Any  # T·B·D
    classes: Any  # T·B
    D: int


def inputs(x: Array, D: int, like: Array) -> Inputs:
    """From x (T, B, D), or class indices (T, B)."""
    if x.ndim == 2:
        return Inputs(np.empty(0, like.dtype), x.reshape(-1), D)
    return Inputs(x.reshape(-1), np.empty(0, np.intp), D)


def ahead(given: Inputs, U: Array, H: int, row: int) -> Array:
    """U as `project` reads it."""
    if len(given.classes):
        return np.ascontiguousarray(parted(U, H, row).T).reshape(-1)
    return forth(U, H, row, TALLEST)


def behind(given: Inputs, U: Array, H: int, row: int) -> Array:
    """U as `collect` reads it."""
    return U[:0, 0] if len(given.classes) else back(U, H, row, TALLEST)


@njit(inline="always")
def project(given, Ut, b, t, last, B, first_b, n, scratch, u):
    """(1) u_t = U x_t + b"""
    x, classes, D = given
    rows, wide = (last - t) * n, len(b)
    repeat(b, u, rows)
    if len(classes):
        r = 0
        for step in range(t, last):
            for k in range(n):
                chosen = classes[step * B + first_b + k] * wide
                add_to(u[r : r + wide], Ut[chosen : chosen + wide])
                r += wide
    else:
        take(x, t, last, B, first_b, n, 1, D, scratch, 0, D)
        product(scratch, 0, D, 1, Ut, 0, 0, u, 0, wide, rows, wide, D, TALLEST, True)


@njit(inline="always")
def collect(given, U, d, t, last, B, first_b, n, scratch, dU, db, dx):
    """(2) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t,  ∂L/∂x_t = Uᵀ δ_t"""
    x, classes, D = given
    rows, wide = (last - t) * n, len(db)
    add_rows(d, rows, db)
    if len(classes):
        r = 0
        for step in range(t, last):
            for k in range(n):
                chosen = classes[step * B + first_b + k] * wide
                add_to(dU[chosen : chosen + wide], d[r : r + wide])
                r += wide
    else:
        take(x, t, last, B, first_b, n, 1, D, scratch, 0, D)
        product(scratch, 0, 1, D, d, 0, wide, dU, 0, wide, D, wide, rows, TALLEST, True)
        whole = columns(d, D)
        product(d, 0, wide, 1, U, 0, 0, scratch, 0, whole, rows, whole, wide, TALLEST, False)
        put(scratch, 0, whole, dx, t, last, B, first_b, n, 1, D)
