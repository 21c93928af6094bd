"""Products with weights whose rows come in G parts, such as the gates of a cell.

    a = a + W s,  s̄ = Wᵀ δ,  W̄ = Σ δ sᵀ

Rows of a and δ, `row` numbers long, lie part by part, each part `apart` numbers behind the one
before, as in `manual_bptt.compiled.blocks`; so do the packed weights.
"""

from __future__ import annotations

from numba import njit

from manual_bptt.compiled.machine import TALLEST
from manual_bptt.compiled.product import product


@njit(inline="always")
def onto(s, at, width, k, Wt, a, here, apart, G, row, n, tall, add):
    """a = W s, or a + W s where `add`: k entries of each of n rows of s, `width` apart."""
    for p in range(G):
        product(
            s, at, width, 1, Wt, p * k * row, 0,
            a, here + p * apart, row, n, row, k, tall, add,
        )  # fmt: skip


@njit(inline="always")
def back_from(d, here, apart, G, H, row, W, s, at, width, n, tall, add):
    """s̄ = Wᵀ δ, or s̄ + Wᵀ δ where `add`: `width` entries of each of n rows of s̄."""
    for p in range(G):
        product(
            d, here + p * apart, row, 1, W, p * H * width, 0,
            s, at, width, n, width, H, tall, add or p > 0,
        )  # fmt: skip


@njit(inline="always")
def gather(d, apart, G, H, row, s, at, width, dW, there, rows):
    """W̄ (G H, width) = W̄ + Σ δ sᵀ over as many rows; it begins at `there`."""
    for p in range(G):
        product(
            d, p * apart, 1, row, s, at, width,
            dW, there + p * H * width, width, H, width, rows, TALLEST, True,
        )  # fmt: skip
