"""Priya's solution to week 1 of an online course: features first, examples, then time."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def rnn_cell_forward(xt, a_prev, parameters):
    Wax, Waa, ba = parameters["Wax"], parameters["Waa"], parameters["ba"]
    a_next = np.tanh(np.dot(Wax, xt) + np.dot(Waa, a_prev) + ba)
    return a_next, (a_next, a_prev, xt, parameters)


def rnn_forward(x, a0, parameters):
    n_a, m = a0.shape
    a = np.zeros((n_a, m, x.shape[2]), x.dtype)
    a_next, caches = a0, []
    for t in range(x.shape[2]):
        a_next, cache = rnn_cell_forward(x[:, :, t], a_next, parameters)
        a[:, :, t] = a_next
        caches.append(cache)
    return a, caches


def rnn_cell_backward(da_next, cache):
    (a_next, a_prev, xt, parameters) = cache
    dtanh = (1 - a_next**2) * da_next
    return {
        "dxt": np.dot(parameters["Wax"].T, dtanh),
        "dWax": np.dot(dtanh, xt.T),
        "da_prev": np.dot(parameters["Waa"], dtanh),
        "dWaa": np.dot(dtanh, a_prev.T),
        "dba": np.sum(dtanh, axis=1, keepdims=True),
    }


def rnn_backward(da, caches):
    parameters = caches[0][3]
    n_x, m = caches[0][2].shape
    dx = np.zeros((n_x, m, da.shape[2]), da.dtype)
    total = {f"d{name}": np.zeros_like(value) for name, value in parameters.items()}
    da_prevt = np.zeros(da.shape[:2], da.dtype)
    for t in reversed(range(da.shape[2])):
        gradients = rnn_cell_backward(da[:, :, t] + da_prevt, caches[t])
        dx[:, :, t] = gradients["dxt"]
        da_prevt = gradients["da_prev"]
        for name in total:
            total[name] += gradients[name]
    return {"dx": dx, "da0": da_prevt, **total}


def forward(inputs):
    parameters = {name: inputs[name] for name in ("Wax", "Waa", "ba")}
    a, caches = rnn_forward(inputs["x"], inputs["a0"], parameters)
    return {"a": a}, caches


def backward(caches, cotangents):
    gradients = rnn_backward(cotangents["a"], caches)
    return {name[1:]: value for name, value in gradients.items()}


def twin(inputs):
    def cell(a, xt):
        a = jnp.tanh(inputs["Wax"] @ xt + inputs["Waa"] @ a + inputs["ba"])
        return a, a

    _, a = jax.lax.scan(cell, inputs["a0"], jnp.moveaxis(inputs["x"], 2, 0))
    return {"a": jnp.moveaxis(a, 0, 2)}


pair = Pair(
    name="course-rnn",
    inputs={"x": "D B T", "a0": "H B", "Wax": "H D", "Waa": "H H", "ba": "H 1"},
    outputs={"a": "H B T"},
    forward=forward,
    backward=backward,
    twin=twin,
)

FIX = ('np.dot(parameters["Waa"], dtanh)', 'np.dot(parameters["Waa"].T, dtanh)')
STEP = "da0"
TERM = "Waa is transposed"
LINE = 'inputs["Waa"] @ a'
