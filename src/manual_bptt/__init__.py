"""Backpropagation through time, derived and written by hand. NumPy only."""

from manual_bptt import activations, model, readout, rnn, training

__all__ = ["activations", "model", "readout", "rnn", "training"]
