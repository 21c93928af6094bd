"""Text as class indices, and what a model that only counts makes of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manual_bptt._door import Array


class Split(NamedTuple):
    """A text as indices into its characters, the end held out."""

    characters: str
    train: Array  # (N,) indices
    held_out: Array  # (M,) indices


def split(text: str, held_out: float = 0.05) -> Split:
    """The text as indices, its last part (by default 5 %) held out.

    The characters are those of the whole text, so that nothing held out is unknown. Raises
    `ValueError` for a text too short to predict a character in either part.
    """
    if len(text) < 4:
        raise ValueError(f"text: expected at least 4 characters, got {len(text)}")
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    known, indices = np.unique(codes, return_inverse=True)
    last = max(2, round(held_out * len(indices)))
    characters = "".join(map(chr, known.tolist()))
    return Split(characters, indices[:-last], indices[-last:])


def streams(indices: Array, batch: int) -> Array:
    """The text cut into `batch` contiguous streams side by side, (N // batch, batch)."""
    length = len(indices) // batch
    return np.ascontiguousarray(indices[: length * batch].reshape(batch, length).T)


def unigram_bits(text: Split) -> float:
    """Bits per held-out character when each is guessed by how often it occurs (add-one)."""
    counts = np.bincount(text.train, minlength=len(text.characters)) + 1.0
    return float(-np.log2(counts / counts.sum())[text.held_out[1:]].mean())


def bigram_bits(text: Split) -> float:
    """Bits per held-out character when each is guessed by the one before.

    Counts of pairs, smoothed by adding one unigram guess to every row.
    """
    size = len(text.characters)
    unigrams = np.bincount(text.train, minlength=size) + 1.0
    unigrams /= unigrams.sum()
    before, after = text.held_out[:-1], text.held_out[1:]
    # only the pairs that are asked for: a text may have thousands of characters
    pairs, counts = np.unique(text.train[:-1] * size + text.train[1:], return_counts=True)
    asked = before * size + after
    at = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    together = np.where(pairs[at] == asked, counts[at], 0)
    rows = np.bincount(text.train[:-1], minlength=size)
    return float(-np.log2((together + unigrams[after]) / (rows[before] + 1)).mean())
