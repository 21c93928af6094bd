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
from manual_bptt.compiled.blocks import add_rows, add_to, back, forth, narrow, put, repeat, take
from manual_bptt.compiled.machine import PLAIN, TALLEST
from manual_bptt.compiled.parts import back_from, gather, onto
from manual_bptt.compiled.product import columns


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


@njit(**PLAIN)
def ahead(given, U, G, out):
    """U as `project` reads it."""
    if not len(given.classes):
        forth(U, G, TALLEST, out)
        return
    GH, D = U.shape
    H = GH // G
    row = columns(U, H)
    for chosen in range(D):
        for p in range(G):
            for j in range(H):
                out[(chosen * G + p) * row + j] = U[p * H + j, chosen]


@njit(**PLAIN)
def behind(given, U, G, out):
    """U as `collect` reads it."""
    if not len(given.classes):
        back(U, G, TALLEST, out)


def start(given: Inputs, G: int, H: int, row: int, like: Array) -> Array:
    """∂L/∂U as `collect` adds to it."""
    numbers = given.D * G * row if len(given.classes) else G * H * columns(like, given.D)
    return np.zeros(numbers, like.dtype)


def end(given: Inputs, summed: Array, G: int, H: int, row: int) -> Array:
    """∂L/∂U (G H, D), of what was added."""
    if len(given.classes):
        parts = summed.reshape(given.D, G, row)[:, :, :H]  # (D, G, H)
        return np.ascontiguousarray(parts.transpose(1, 2, 0)).reshape(-1, given.D)
    return narrow(summed, G * H, given.D)


@njit(inline="always")
def project(given, Ut, b, row, t, last, B, first_b, n, scratch, u):
    """(1) u_t = U x_t + b"""
    x, classes, D = given
    rows, wide = (last - t) * n, len(b)
    G = wide // row
    apart = len(u) // G
    for p in range(G):
        repeat(b[p * row : (p + 1) * row], rows, u[p * apart : p * apart + rows * row])
    if len(classes):
        for p in range(G):
            at = p * apart
            for step in range(t, last):
                for k in range(n):
                    chosen = classes[step * B + first_b + k] * wide + p * row
                    add_to(u[at : at + row], Ut[chosen : chosen + row])
                    at += row
    else:
        width = columns(u, D)
        take(x, t, last, B, first_b, n, D, scratch, 0, width)
        onto(scratch, 0, width, D, Ut, u, 0, apart, G, row, rows, TALLEST, True)


@njit(inline="always")
def collect(given, U, d, H, row, t, last, B, first_b, n, scratch, dU, db, dx):
    """(2) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t,  ∂L/∂x_t = Uᵀ δ_t"""
    x, classes, D = given
    rows, wide = (last - t) * n, len(db)
    G = wide // row
    apart = len(d) // G
    for p in range(G):
        add_rows(d[p * apart : p * apart + rows * row], db[p * row : (p + 1) * row])
    if len(classes):
        for p in range(G):
            at = p * apart
            for step in range(t, last):
                for k in range(n):
                    chosen = classes[step * B + first_b + k] * wide + p * row
                    add_to(dU[chosen : chosen + row], d[at : at + row])
                    at += row
    else:
        width = columns(d, D)
        take(x, t, last, B, first_b, n, D, scratch, 0, width)
        gather(d, apart, G, H, row, scratch, 0, width, dU, 0, rows)
        back_from(d, 0, apart, G, H, row, U, scratch, 0, width, rows, TALLEST, False)
        put(scratch, 0, width, dx, t, last, B, first_b, n, D)
