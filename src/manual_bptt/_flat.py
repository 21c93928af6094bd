"""Sequences as matrices."""

from manual_bptt._door import Array


def flat(sequence: Array) -> Array:
    """(T, B, N) as (T·B, N), all steps of all sequences under each other.

    A sum over steps and batch is then one matrix product.
    """
    return sequence.reshape(-1, sequence.shape[-1])
