"""Layers of a cell under the readout beside their twin: what `bptt train` trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

import jax_ref.readout
import jax_ref.rnn
import jax_ref.stack
import manual_bptt.network
import manual_bptt.readout
import manual_bptt.rnn
from bptt_verify.pair import Index, Pair
from bptt_verify.pairs import CELLS
from bptt_verify.pairs.article import RNN
from bptt_verify.pairs.cells import Cell
from bptt_verify.pairs.sequences import Part
from manual_bptt.network import Grads, Network, Params

Arrays = dict[str, Any]


TRAINED: Mapping[str, Cell] = {
    "rnn": RNN,
    # those that can begin with weights of their own, and are no variant of another one
    **{
        name: cell
        for name, cell in CELLS.items()
        if cell.by_hand.__name__ == f"manual_bptt.{name.replace('-', '_')}"
        and hasattr(cell.by_hand, "init")
    },
}
"""The cells that can be trained, by name."""


class Parts:
    """The layers of a network by the names that their arrays have in its pair: U, or U_1, U_2 …

    Args:
        cell: the cell of all layers.
        layers: how many.
    """

    def __init__(self, cell: Cell, layers: int) -> None:
        marks = [f"_{n + 1}" for n in range(layers)] if layers > 1 else [""]
        self.each = [Part(cell, mark, "H" if n else "D") for n, mark in enumerate(marks)]

    def inputs(self, params: Params, states: Sequence[Sequence[Any]]) -> Arrays:
        """Weights and states before the first step."""
        found = {"V": params.readout.V, "c": params.readout.c}
        for part, layer, start in zip(self.each, params.layers, states, strict=True):
            names = list(part.cell.weights)
            values = (getattr(layer, name) for name in names)
            found |= zip(part.named(names), values, strict=True)
            found |= zip(part.starts, start, strict=True)
        return found

    def gradients(self, grads: Grads) -> Arrays:
        """Those of weights, starts and taps."""
        found = {"V": grads.readout.V, "c": grads.readout.c, "delta_z": grads.readout.z}
        for part, layer in zip(self.each, grads.layers, strict=True):
            found |= part.gradients(layer)
        return found


def network_pair(cell: Cell, layers: int = 1, *, residual: bool = False) -> Pair:
    """Class indices into layers of the cell, H units each, and the loss of the readout."""
    parts = Parts(cell, layers)

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        net = Network(cell.by_hand, residual, given)
        head = manual_bptt.readout.Params(i["V"], i["c"])
        params = Params(tuple(part.params(i) for part in parts.each), head)
        starts = [part.start(i) for part in parts.each]
        loss, cache = manual_bptt.network.forward(net, params, i["x"], i["targets"], starts)
        return {"loss": loss}, (net, params, cache)

    def backward(kept: Any, d: Arrays) -> Arrays:
        net, params, cache = kept
        dloss = d["loss"][()]
        return parts.gradients(manual_bptt.network.backward(net, params, cache, dloss))

    def twin(i: Arrays, **given: Any) -> Arrays:
        params = [part.twin_params(i) for part in parts.each]
        y, _ = jax_ref.stack.forward(
            [cell.twin] * layers,
            params,
            jax.nn.one_hot(i["x"], params[0].U.shape[1], dtype=params[0].U.dtype),
            [part.start(i) for part in parts.each],
            [{**given, **part.tapped(i)} for part in parts.each],
            residual=residual,
        )
        head = SimpleNamespace(V=i["V"], c=i["c"])
        *_, loss = jax_ref.readout.forward(
            head, y, jnp.asarray(i["targets"]), perturbation=i["delta_z"]
        )
        return {"loss": loss}

    return Pair(
        name=f"{cell.name}-network",
        inputs={
            "x": Index("T B", below="D"),
            **{name: shape for part in parts.each for name, shape in part.inputs.items()},
            "V": "C H",
            "c": "C",
            "targets": Index("T B", below="C", missing=True),
        },
        outputs={"loss": ""},
        taps={
            "delta_z": "T B C",
            **{name: shape for part in reversed(parts.each) for name, shape in part.taps.items()},
        },
        options=cell.options,
        forward=forward,
        backward=backward,
        twin=twin,
    )
