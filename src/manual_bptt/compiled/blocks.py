"""Blocks of steps: rows of some sequences taken out of (T, B, N), worked on, and put back.

A thread owns the sequences first_b … first_b + n of the batch and goes through time in blocks of
steps. In a block the rows are one under another, n for each step. The entries of a row may be in G
parts of N, such as the gates of a cell; in the block each part is `row` numbers long, a whole
number of vectors, and 0 beyond its own N. Weights get the same parts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from manual_bptt._door import Array
from manual_bptt.compiled.machine import PLAIN
from manual_bptt.compiled.product import packed


@njit(**PLAIN)
def _copy(line, target):
    # two stretches, each from 0 on: with a place added to j the loop would not run on vectors
    for j in range(len(line)):
        target[j] = line[j]


@njit(inline="always")
def take(source, t, last, B, first_b, n, G, N, block, at, row):
    """Steps t … last of the sequences, from (T, B, G N) into the block."""
    numbers = np.intp(t), np.intp(last), np.intp(B), np.intp(first_b), np.intp(n)
    _take(source, numbers, np.intp(G), np.intp(N), block, np.intp(at), np.intp(row))


@njit(**PLAIN)
def _take(source, numbers, G, N, block, at, row):
    t, last, B, first_b, n = numbers
    for step in range(t, last):
        for b in range(n):
            here = (step * B + first_b + b) * G * N
            for _ in range(G):
                _copy(source[here : here + N], block[at : at + N])
                at += row
                here += N


@njit(inline="always")
def take_from_before(start, states, t, last, B, first_b, n, N, block, row):
    """The states of steps t … last, behind those of the step before, which may be the start."""
    if t:
        take(states, t - 1, last, B, first_b, n, 1, N, block, 0, row)
    else:
        take(start, 0, 1, B, first_b, n, 1, N, block, 0, row)
        take(states, 0, last, B, first_b, n, 1, N, block, n * row, row)


@njit(inline="always")
def put(block, at, row, target, t, last, B, first_b, n, G, N):
    """The other way: from the block into (T, B, G N)."""
    numbers = np.intp(t), np.intp(last), np.intp(B), np.intp(first_b), np.intp(n)
    _put(block, np.intp(at), np.intp(row), target, numbers, np.intp(G), np.intp(N))


@njit(**PLAIN)
def _put(block, at, row, target, numbers, G, N):
    t, last, B, first_b, n = numbers
    for step in range(t, last):
        for b in range(n):
            here = (step * B + first_b + b) * G * N
            for _ in range(G):
                _copy(block[at : at + N], target[here : here + N])
                at += row
                here += N


@njit(**PLAIN)
def carry_over(rows, here, there, many):
    """As many numbers, from one place to another of the same rows."""
    _copy(rows[here : here + many], rows[there : there + many])


@njit(**PLAIN)
def repeat(vector, block, rows):
    """The vector in each row."""
    row = len(vector)
    for r in range(rows):
        line = block[r * row : (r + 1) * row]
        for j in range(row):
            line[j] = vector[j]


@njit(**PLAIN)
def add_to(target, more):
    """target + more, in its place"""
    for j in range(len(target)):
        target[j] += more[j]


@njit(**PLAIN)
def add_rows(block, rows, total):
    """The rows, added to the vector `total`."""
    row = len(total)
    for r in range(rows):
        add_to(total, block[r * row : (r + 1) * row])


def parted(W: Array, H: int, row: int) -> Array:
    """Weights (G H, N) as (G row, N), with zeros behind each part."""
    if row == H:
        return W
    G, N = len(W) // H, W.shape[1]
    out = np.zeros((G, row, N), W.dtype)
    out[:, :H] = W.reshape(G, H, N)
    return out.reshape(-1, N)


def forth(W: Array, H: int, row: int, tall: int) -> Array:
    """Wᵀ, packed: what takes rows of N to rows of G parts."""
    W = parted(W, H, row)
    GH, N = W.shape
    return packed(W.reshape(-1), 1, N, N, GH, tall)


def back(W: Array, H: int, row: int, tall: int) -> Array:
    """W, packed: what takes rows of G parts to rows of N."""
    W = parted(W, H, row)
    GH, N = W.shape
    return packed(W.reshape(-1), N, 1, GH, N, tall)


def bias(b: Array | None, G: int, H: int, row: int, like: Array) -> Array:
    """The bias (G H,) in parts; zeros for none."""
    if b is None:
        return np.zeros(G * row, like.dtype)
    return parted(b[:, None], H, row).reshape(-1).copy()


def whole(summed: Array, N: int, H: int, row: int) -> Array:
    """(N, G row), a sum of xᵀ δ over rows, as the gradient (G H, N)."""
    rows = summed.reshape(N, -1)
    if row == H:
        return np.ascontiguousarray(rows.T)
    parts = rows.reshape(N, -1, row)[:, :, :H]  # (N, G, H)
    return np.ascontiguousarray(parts.transpose(1, 2, 0)).reshape(-1, N)
