from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import jax_ref.gru
import jax_ref.lstm
import jax_ref.rnn
from bptt_verify.adapters import autograd_function_pair, custom_vjp_pair
from bptt_verify.verify import verify_each
from manual_bptt import jax as in_jax
from manual_bptt import torch as in_torch

# The layers inside JAX and PyTorch, as those differentiate them, beside the twins of the readable
# ones. Each case has its own shape, which JAX compiles: so there are few of them.

GRU_WEIGHTS = {"U": "3H D", "W": "3H H", "b": "3H", "b_n": "H"}
LSTM_WEIGHTS = {"U": "4H D", "W": "4H H", "b": "4H"}
RNN_WEIGHTS = {"U": "H D", "W": "H H", "b": "H"}


@partial(jax.jit, static_argnames="activation")
def rnn(x, s0, U, W, b, activation):
    return in_jax.rnn(SimpleNamespace(U=U, W=W, b=b), x, s0, activation)


@jax.jit
def lstm(x, h0, c0, U, W, b):
    return in_jax.lstm(SimpleNamespace(U=U, W=W, b=b), x, h0, c0)


@jax.jit
def gru(x, h0, U, W, b, b_n):
    return in_jax.gru(SimpleNamespace(U=U, W=W, b=b, b_n=b_n), x, h0)


def rnn_twin(i, activation):
    params = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"])
    return {"s": jax_ref.rnn.forward(params, i["x"], i["s0"], activation)[1]}


def lstm_twin(i):
    params = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"], p=None, P=None)
    delta = jnp.zeros((*i["x"].shape[:2], len(i["U"])))
    h, c = jax_ref.lstm.forward(params, i["x"], i["h0"], i["c0"], delta=delta)
    return {"h": h, "c": c}


def gru_twin(i):
    params = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"], b_n=i["b_n"])
    zeros = jnp.zeros((*i["x"].shape[:2], len(i["U"])))
    return {"h": jax_ref.gru.forward(params, i["x"], i["h0"], delta=zeros, epsilon=zeros)}


def torch_lstm(x, h0, c0, U, W, b):
    """Through the module's own function; the second bias is 0."""
    module = in_torch.LSTM(x.shape[2], h0.shape[1], dtype=x.dtype)
    run = in_torch._runner(module.cell, None, {})
    y, h, c = in_torch._Cell.apply(run, 2, x, h0, c0, U, W, b)
    return y, h, c


def torch_lstm_twin(i):
    found = lstm_twin(i)
    return {"h": found["h"], "h_last": found["h"][-1], "c_last": found["c"][-1]}


PAIRS = (
    custom_vjp_pair(
        "rnn-jax",
        rnn,
        inputs={"x": "T B D", "s0": "B H", **RNN_WEIGHTS},
        outputs={"s": "T B H"},
        options={"activation": ("tanh", "sigmoid", "relu")},
        twin=rnn_twin,
    ),
    custom_vjp_pair(
        "lstm-jax",
        lstm,
        inputs={"x": "T B D", "h0": "B H", "c0": "B H", **LSTM_WEIGHTS},
        outputs={"h": "T B H", "c": "T B H"},
        twin=lstm_twin,
    ),
    custom_vjp_pair(
        "gru-jax",
        gru,
        inputs={"x": "T B D", "h0": "B H", **GRU_WEIGHTS},
        outputs={"h": "T B H"},
        twin=gru_twin,
    ),
    autograd_function_pair(
        "lstm-torch",
        torch_lstm,
        inputs={"x": "T B D", "h0": "B H", "c0": "B H", **LSTM_WEIGHTS},
        outputs={"h": "T B H", "h_last": "B H", "c_last": "B H"},
        twin=torch_lstm_twin,
    ),
)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_drop_ins_pass(pair):
    for report in verify_each(pair, ["float32", "float64"], cases=4, seed=2):
        assert report.verdict == "pass", report.first_failure


@pytest.mark.parametrize("pair", [p for p in PAIRS if "jax" in p.name], ids=lambda pair: pair.name)
def test_those_in_jax_pass_in_bfloat16(pair):
    # with eight bits a number, some draws tell nothing: so there are more
    (report,) = verify_each(pair, ["bfloat16"], cases=12, seed=2)
    assert report.verdict == "pass", report.first_failure
