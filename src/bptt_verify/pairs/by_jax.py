"""The layers on the engine "jax" beside the twins of the readable ones."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import manual_bptt.by_jax.gru
import manual_bptt.by_jax.gru_before
import manual_bptt.by_jax.lstm
import manual_bptt.by_jax.rnn
from bptt_verify.pair import Pair
from bptt_verify.pairs.article import RNN, RNN_SHOWN
from bptt_verify.pairs.cells import Cell


def pairs(cells: dict[str, Cell]) -> dict[str, Pair]:
    """One pair for each layer that the engine has, of the readable cell's description."""

    def on_jax(cell: Cell, layer: ModuleType) -> Pair:
        return replace(cell, name=f"{cell.name}-jax").pair(layer)

    made = (
        on_jax(replace(RNN, shown=RNN_SHOWN), manual_bptt.by_jax.rnn),
        on_jax(cells["lstm"], manual_bptt.by_jax.lstm),
        on_jax(cells["gru"], manual_bptt.by_jax.gru),
        on_jax(cells["gru-before"], manual_bptt.by_jax.gru_before),
    )
    return {pair.name: pair for pair in made}
