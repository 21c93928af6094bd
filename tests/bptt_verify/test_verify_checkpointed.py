"""Long sequences in pieces, held against the twin of the whole."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

import jax_ref.lstm
import jax_ref.rnn
from bptt_verify import Pair, verify
from manual_bptt import checkpointed, lstm, rnn

PIECE = 2


def in_pieces(cell, params, x, starts, cotangents, **options):
    """The gradients of Σ_t ⟨cotangent of s_t, s_t⟩."""

    def loss(first, _):
        parts = [d[first : first + PIECE] for d in cotangents]
        return 0.0, parts[0] if cell is rnn else lstm.States(*parts)

    found = checkpointed.loss_and_grads(
        cell, params, x, loss, *starts, piece=PIECE, inputs=True, **options
    )
    grads = {k: v for k, v in found.params._asdict().items() if v is not None}
    return {**grads, "x": found.x}, found.start


def rnn_pair(engine="numpy"):
    def forward(i):
        params = rnn.Params(i["U"], i["W"], i["b"])
        return {"s": rnn.forward(params, i["x"], i["s0"], engine=engine)[0]}, (params, i)

    def backward(kept, d):
        params, i = kept
        grads, (s0,) = in_pieces(rnn, params, i["x"], [i["s0"]], [d["s"]], engine=engine)
        return {**grads, "s0": s0}

    def twin(i):
        params = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"])
        return {"s": jax_ref.rnn.forward(params, i["x"], i["s0"])[1]}

    return Pair(
        name="rnn in pieces",
        inputs={"x": "T B D", "s0": "B H", "U": "H D", "W": "H H", "b": "H"},
        outputs={"s": "T B H"},
        forward=forward,
        backward=backward,
        twin=twin,
    )


def lstm_pair():
    def forward(i):
        params = lstm.Params(i["U"], i["W"], i["b"])
        states, _ = lstm.forward(params, i["x"], i["h0"], i["c0"])
        return {"h": states.h, "c": states.c}, (params, i)

    def backward(kept, d):
        params, i = kept
        starts, cotangents = [i["h0"], i["c0"]], [d["h"], d["c"]]
        grads, (h0, c0) = in_pieces(lstm, params, i["x"], starts, cotangents)
        return {**grads, "h0": h0, "c0": c0}

    def twin(i):
        params = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"], p=None, P=None)
        delta = jnp.zeros((*i["x"].shape[:2], len(i["U"])))
        h, c = jax_ref.lstm.forward(params, i["x"], i["h0"], i["c0"], delta=delta)
        return {"h": h, "c": c}

    return Pair(
        name="lstm in pieces",
        inputs={
            **{"x": "T B D", "h0": "B H", "c0": "B H"},
            **{"U": "4H D", "W": "4H H", "b": "4H"},
        },
        outputs={"h": "T B H", "c": "T B H"},
        forward=forward,
        backward=backward,
        twin=twin,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pair", [rnn_pair(), lstm_pair()], ids=lambda pair: pair.name)
def test_in_pieces_it_is_the_gradient_of_the_whole(pair, dtype):
    assert verify(pair, 40, dtype=dtype).ok


def test_the_compiled_layer_in_pieces_has_the_gradient_of_the_whole():
    assert verify(rnn_pair("numba"), 30, dtype="float32").ok


def test_a_carry_that_is_dropped_between_pieces_is_seen(monkeypatch):
    through = checkpointed._Back.through

    def dropped(self, *arguments):
        self.carried = [None]
        through(self, *arguments)

    monkeypatch.setattr(checkpointed._Back, "through", dropped)
    report = verify(rnn_pair(), 20)
    assert {row.name for row in report.rows if row.verdict == "fail"} >= {"dW", "dx"}
