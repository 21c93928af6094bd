"""Initial weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from manual_bptt._door import Array


def fan_in(rng: np.random.Generator, rows: int, columns: int, dtype: np.dtype[Any]) -> Array:
    """Uniform in ±1/√columns, shape (rows, columns): keeps a_t and z_t of order one."""
    limit = 1 / np.sqrt(columns)
    return rng.uniform(-limit, limit, (rows, columns)).astype(dtype)


def orthogonal(rng: np.random.Generator, n: int, dtype: np.dtype[Any]) -> Array:
    """A random orthogonal (n, n) matrix: W of this kind neither shrinks nor grows δ by itself."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return (q * np.sign(np.diag(r))).astype(dtype)


def orthogonal_blocks(rng: np.random.Generator, blocks: int, n: int, dtype: np.dtype[Any]) -> Array:
    """A random orthogonal matrix for each of several gates, (blocks * n, n)."""
    return np.concatenate([orthogonal(rng, n, dtype) for _ in range(blocks)])
