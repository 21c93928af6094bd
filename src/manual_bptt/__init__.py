"""Backpropagation through time, derived and written by hand. NumPy only."""

from manual_bptt import (
    activations,
    checkpointed,
    gru,
    gru_before,
    lstm,
    mingru,
    model,
    network,
    ragged,
    readout,
    rnn,
    schedules,
    slstm,
    training,
)

__all__ = [
    "activations",
    "checkpointed",
    "gru",
    "gru_before",
    "lstm",
    "mingru",
    "model",
    "network",
    "ragged",
    "readout",
    "rnn",
    "schedules",
    "slstm",
    "training",
]
