"""What all contestants do: the loss of one layer under a softmax readout, and all its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from manual_bptt import gru, lstm, readout, rnn

MODULES = {"rnn": rnn, "lstm": lstm, "gru": gru}
BLOCKS = {"rnn": 1, "lstm": 4, "gru": 3}

Sizes = tuple[int, int, int, int, int]
"""T, B, D, H, C."""

GRID: tuple[Sizes, ...] = (
    (50, 1, 8, 16, 8),
    (100, 1, 64, 64, 64),
    (100, 8, 64, 64, 64),
    (100, 32, 64, 64, 64),
    (100, 32, 128, 128, 128),
    (100, 64, 256, 256, 256),
    (50, 128, 512, 512, 512),
    (1000, 8, 64, 128, 64),
    (35, 20, 650, 650, 1000),
)
QUICK: tuple[Sizes, ...] = (GRID[0], GRID[2], GRID[4])

GROWTH: dict[str, tuple[Sizes, ...]] = {
    "T": tuple((T, 16, 128, 128, 128) for T in (25, 50, 100, 200, 400)),
    "B": tuple((100, B, 128, 128, 128) for B in (4, 8, 16, 32, 64)),
    "H": tuple((100, 16, 128, H, 128) for H in (32, 64, 128, 256, 512)),
}
"""One letter grows, the others stay."""


@dataclass(frozen=True)
class Work:
    """A cell at sizes T, B, D, H, C; the loss is summed over steps and batch."""

    cell: str
    sizes: Sizes
    dtype: str = "float32"

    @cached_property
    def weights(self) -> dict[str, Any]:
        """Those of the layer and V and c, by name; drawn the same in every process."""
        _, _, D, H, C = self.sizes
        rng = np.random.default_rng(0)
        layer = MODULES[self.cell].init(rng, D, H, dtype=self.dtype)
        above = readout.init(rng, H, C, dtype=self.dtype)
        drawn = {**layer._asdict(), **above._asdict()}
        return {name: value for name, value in drawn.items() if value is not None}

    @cached_property
    def x(self) -> Any:
        """(T, B, D)"""
        T, B, D, _, _ = self.sizes
        return np.random.default_rng(1).standard_normal((T, B, D)).astype(self.dtype)

    @cached_property
    def targets(self) -> Any:
        """Class indices (T, B)."""
        T, B, _, _, C = self.sizes
        return np.random.default_rng(2).integers(0, C, (T, B))

    @property
    def products(self) -> list[tuple[int, int, int, int]]:
        """(m, k, n) of the matrix products that the mathematics asks for, and how many of each."""
        T, B, D, H, C = self.sizes
        G, TB = BLOCKS[self.cell], T * B
        return [
            (TB, D, G * H, 1),  # U x
            (B, H, G * H, T),  # W s, step by step
            (TB, H, C, 1),  # V s
            (C, TB, H, 1),  # ∂L/∂V
            (TB, C, H, 1),  # ∂L/∂s
            (B, G * H, H, T),  # Wᵀ δ, step by step
            (G * H, TB, H, 1),  # ∂L/∂W
            (G * H, TB, D, 1),  # ∂L/∂U
            (TB, G * H, D, 1),  # ∂L/∂x
        ]

    @property
    def operations(self) -> int:
        """Multiplications and additions of these products."""
        return sum(2 * m * k * n * times for m, k, n, times in self.products)

    @property
    def bytes(self) -> int:
        """Of x, the weights and their gradients once each, and of the states to and fro."""
        T, B, D, H, _ = self.sizes
        numbers = 2 * sum(a.size for a in self.weights.values()) + 2 * T * B * (D + H)
        return int(numbers) * np.dtype(self.dtype).itemsize
