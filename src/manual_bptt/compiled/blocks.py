"""Blocks of steps: rows of some sequences taken out of (T, B, N), worked on, and put back.

A thread owns the sequences first_b … first_b + n of the batch and goes through time in blocks of
steps. In a block the rows are one under another, n for each step; each is `row` numbers long, a
whole number of vectors, and 0 beyond its own N. The entries of a row may be in G parts of N, such
as the gates of a cell: then a block has all rows of one part, behind them those of the next, and
what is done with a gate is done with all sequences at once. Weights get the same parts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from manual_bptt._door import Array
from manual_bptt.compiled.machine import PLAIN
from manual_bptt.compiled.product import columns, pack


@njit(**PLAIN)
def _copy(line, target):
    # two stretches, each from 0 on: with a place added to j the loop would not run on vectors
    for j in range(len(line)):
        target[j] = line[j]


@njit(inline="always")
def take(source, t, last, B, first_b, n, N, block, at, row):
    """Steps t … last of the sequences, from (T, B, N) into the block."""
    numbers = np.intp(t), np.intp(last), np.intp(B), np.intp(first_b), np.intp(n)
    _take(source, numbers, np.intp(0), np.intp(N), np.intp(N), block, np.intp(at), np.intp(row))


@njit(inline="always")
def take_parts(source, t, last, B, first_b, n, G, N, block, row):
    """The same, from (T, B, G N), part by part into a block of G parts."""
    numbers = np.intp(t), np.intp(last), np.intp(B), np.intp(first_b), np.intp(n)
    for p in range(G):
        at = p * (len(block) // G)
        _take(source, numbers, p * N, np.intp(G * N), np.intp(N), block, at, np.intp(row))


@njit(**PLAIN)
def _take(source, numbers, first, of, N, block, at, row):
    """From entry `first` on, N of the `of` that each sequence has at each step."""
    t, last, B, first_b, n = numbers
    for step in range(t, last):
        for b in range(n):
            here = (step * B + first_b + b) * of + first
            _copy(source[here : here + N], block[at : at + N])
            at += row


@njit(inline="always")
def take_from_before(start, states, t, last, B, first_b, n, N, block, row):
    """The states of steps t … last, behind those of the step before, which may be the start."""
    if t:
        take(states, t - 1, last, B, first_b, n, N, block, 0, row)
    else:
        take(start, 0, 1, B, first_b, n, N, block, 0, row)
        take(states, 0, last, B, first_b, n, N, block, n * row, row)


@njit(inline="always")
def put(block, at, row, target, t, last, B, first_b, n, N):
    """The other way: from the block into (T, B, N)."""
    put_part(block, at, row, target, t, last, B, first_b, n, 0, 1, N)


@njit(inline="always")
def put_part(block, at, row, target, t, last, B, first_b, n, p, G, N):
    """The same for part p, into its place in (T, B, G N)."""
    numbers = np.intp(t), np.intp(last), np.intp(B), np.intp(first_b), np.intp(n)
    first, of = np.intp(p * N), np.intp(G * N)
    _put(block, np.intp(at), np.intp(row), target, numbers, first, of, np.intp(N))


@njit(inline="always")
def put_parts(block, row, target, t, last, B, first_b, n, G, N):
    """The same for a block of G parts, into (T, B, G N)."""
    for p in range(G):
        put_part(block, p * (len(block) // G), row, target, t, last, B, first_b, n, p, G, N)


@njit(**PLAIN)
def _put(block, at, row, target, numbers, first, of, N):
    t, last, B, first_b, n = numbers
    for step in range(t, last):
        for b in range(n):
            here = (step * B + first_b + b) * of + first
            _copy(block[at : at + N], target[here : here + N])
            at += row


@njit(**PLAIN)
def carry_over(rows, here, there, many):
    """As many numbers, from one place to another of the same rows."""
    _copy(rows[here : here + many], rows[there : there + many])


@njit(**PLAIN)
def repeat(vector, rows, block):
    """The vector in each of so many rows of the block."""
    row = len(vector)
    for r in range(rows):
        _copy(vector, block[r * row : (r + 1) * row])


@njit(**PLAIN)
def add_to(target, more):
    """target + more, in its place"""
    for j in range(len(target)):
        target[j] += more[j]


@njit(**PLAIN)
def add_rows(rows, total):
    """The rows, added to the vector `total`."""
    row = len(total)
    for at in range(0, len(rows), row):
        add_to(total, rows[at : at + row])


@njit(**PLAIN)
def forth(W, G, tall, out):
    """Wᵀ of W (G H, N), part by part, packed: what takes rows of N to rows of each part."""
    GH, N = W.shape
    pack(W.reshape(-1), G, 1, N, N, GH // G, tall, out)


@njit(**PLAIN)
def back(W, G, tall, out):
    """W (G H, N), part by part, packed: what takes rows of each part to rows of N."""
    GH, N = W.shape
    pack(W.reshape(-1), G, N, 1, GH // G, N, tall, out)


@njit(**PLAIN)
def parted(b, G):
    """A bias (G H,) with zeros behind each part."""
    H = len(b) // G
    row = columns(b, H)
    out = np.zeros(G * row, b.dtype)
    for p in range(G):
        _copy(b[p * H : (p + 1) * H], out[p * row : p * row + H])
    return out


def bias(b: Array | None, N: int, like: Array) -> Array:
    """A bias (N,); zeros for none."""
    return np.zeros(N, like.dtype) if b is None else of_ours(b)


def without_padding(padded: Array, G: int, H: int) -> Array:
    """(G H,) of G parts."""
    return padded.reshape(G, -1)[:, :H].flatten()


def narrow(padded: Array, rows: int, N: int) -> Array:
    """Of so many rows, one after the other, the first N numbers, moved together where they are."""
    width = padded.size // rows
    if width != N:
        _move_together(padded, width, N)
    return padded[: rows * N].reshape(rows, N)


@njit(**PLAIN)
def _move_together(rows, width, N):
    for r in range(1, len(rows) // width):
        for j in range(N):
            rows[r * N + j] = rows[r * width + j]


def of_ours(array: Array) -> Array:
    """One that may be written to: numba would compile everything anew for one that may not."""
    return array if array.flags.writeable else array.copy()


def flat(array: Array) -> Array:
    """Its numbers one after the other, in the same memory if it may be written to."""
    return of_ours(array).reshape(-1)
