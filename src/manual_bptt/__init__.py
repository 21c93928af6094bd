"""Backpropagation through time, derived and written by hand. NumPy only."""

from manual_bptt import (
    activations,
    gru,
    gru_before,
    lstm,
    mingru,
    model,
    network,
    ragged,
    readout,
    rnn,
    slstm,
    training,
)

__all__ = [
    "activations",
    "gru",
    "gru_before",
    "lstm",
    "mingru",
    "model",
    "network",
    "ragged",
    "readout",
    "rnn",
    "slstm",
    "training",
]
