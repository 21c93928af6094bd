"""The twin: the same forward equations in JAX, and no gradient formula anywhere."""

from jax_ref import model, readout, rnn, update

__all__ = ["model", "readout", "rnn", "update"]
