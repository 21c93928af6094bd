"""The compiled layers beside the twins of the readable ones: the same equations, compiled."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax_ref.gru
import jax_ref.gru_before
import jax_ref.lstm
import jax_ref.model
import manual_bptt.compiled.gru
import manual_bptt.compiled.gru_before
import manual_bptt.compiled.lstm
import manual_bptt.compiled.model
import manual_bptt.compiled.rnn
from bptt_verify.pair import Pair
from bptt_verify.pairs.article import RNN, RNN_SHOWN, model_pair
from bptt_verify.pairs.cells import Cell
from manual_bptt.compiled import threads

Arrays = dict[str, Any]

CELLS = {
    cell.name: cell
    for cell in (
        replace(
            RNN,
            name="rnn-numba",
            by_hand=manual_bptt.compiled.rnn,
            shown=RNN_SHOWN,
        ),
        Cell(
            name="lstm-numba",
            by_hand=manual_bptt.compiled.lstm,
            twin=jax_ref.lstm,
            weights={"U": "4H D", "W": "4H H", "b": "4H"},
            states={"h": "H", "c": "H"},
            taps={"delta": "4H"},
            options={"forget_offset": (0.0, 1.0)},
            shown={4: "c", 6: "h", 11: "delta", 13: "dW", 14: "dU db", 17: "dx dh0 dc0"},
        ),
        Cell(
            name="gru-numba",
            by_hand=manual_bptt.compiled.gru,
            twin=jax_ref.gru,
            weights={"U": "3H D", "W": "3H H", "b": "3H", "b_n": "H"},
            states={"h": "H"},
            taps={"delta": "3H", "epsilon": "3H"},
            shown={
                **{5: "h", 7: "delta", 10: "epsilon", 11: "dW db_n", 12: "dU db"},
                13: "dx dh0",
            },
        ),
        Cell(
            name="gru-before-numba",
            by_hand=manual_bptt.compiled.gru_before,
            twin=jax_ref.gru_before,
            weights={"U": "3H D", "W": "3H H", "b": "3H"},
            states={"h": "H"},
            taps={"delta": "3H"},
            shown={5: "h", 7: "delta", 11: "dW", 12: "dU db", 13: "dx dh0"},
        ),
    )
}


CUTS = ((6, 3), (threads.ROWS, 1), (20, 2))
"""Rows of a block and threads."""


def finely(pair: Pair) -> Pair:
    """The pair with its work cut in several ways, by the shape of x.

    So small cases too have borders between blocks, and between the threads' parts of a batch.
    """

    def forward(i: Arrays, **options: Any) -> tuple[Arrays, Any]:
        T, B, *_ = i["x"].shape
        cut = CUTS[(T + B) % len(CUTS)]
        with threads.finely(*cut):
            outputs, kept = pair.forward(i, **options)
        return outputs, (cut, kept)

    def backward(kept: Any, d: Arrays) -> Arrays:
        assert pair.backward is not None
        cut, kept = kept
        with threads.finely(*cut):
            found: Arrays = pair.backward(kept, d)
        return found

    return replace(pair, forward=forward, backward=backward)


def loss_pair(*, indices: bool = False) -> Pair:
    """Forward, readout and the way back in one go, on vectors or on class indices."""
    pair = model_pair(indices=indices)
    module = manual_bptt.compiled.model

    def run(i: Arrays, activation: str, dloss: float) -> tuple[Any, Any]:
        return module.loss_and_grads(
            manual_bptt.model.Params(U=i["U"], W=i["W"], V=i["V"], b=i["b"], c=i["c"]),
            i["x"],
            i["targets"],
            s0=i["s0"],
            mask=i["mask"],
            activation=activation,
            dloss=dloss,
        )

    def forward(i: Arrays, activation: str) -> tuple[Arrays, Any]:
        return {"loss": run(i, activation, 1.0)[0]}, (i, activation)

    def backward(kept: Any, d: Arrays) -> Arrays:
        i, activation = kept
        g = run(i, activation, d["loss"][()])[1]
        return {k: getattr(g, k) for k in ("U", "W", "V", "b", "c", "x", "s0")}

    def twin(i: Arrays, activation: str) -> Arrays:
        params = SimpleNamespace(U=i["U"], W=i["W"], V=i["V"], b=i["b"], c=i["c"])
        found = jax_ref.model.forward(
            params, i["x"], i["s0"], i["targets"], i["mask"], activation=activation
        )
        return {"loss": found[-1]}

    shown = {k: e for k, e in pair.equations.items() if k == "loss" or k in ("dV", "dc", "dW")}
    return replace(
        pair,
        name=f"{pair.name}-numba",
        probes={},
        states={},
        taps={},
        forward=forward,
        backward=backward,
        twin=twin,
        equations=shown,
    )


PAIRS: dict[str, Pair] = {
    pair.name: finely(pair)
    for pair in (
        *(cell.pair() for cell in CELLS.values()),
        loss_pair(),
        loss_pair(indices=True),
    )
}
