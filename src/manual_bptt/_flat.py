"""Sequences as matrices, and class indices as vectors."""

from typing import Any

import numpy as np

from manual_bptt._door import Array


def flat(sequence: Array) -> Array:
    """(T, B, N) as (T·B, N), all steps of all sequences under each other.

    A sum over steps and batch is then one matrix product.
    """
    return sequence.reshape(-1, sequence.shape[-1])


def one_hot(indices: Array, size: int, dtype: np.dtype[Any]) -> Array:
    """Class indices (T, B) as the vectors (T, B, size) that they stand for."""
    hot = np.zeros((*indices.shape, size), dtype)
    np.put_along_axis(hot, indices[..., None], 1, axis=-1)
    return hot
