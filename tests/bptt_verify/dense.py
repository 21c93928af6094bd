"""A small right pair, which tests change to make wrong ones."""

import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def forward(i):
    y = np.tanh(i["x"] @ i["w"].T)
    return {"y": y}, (i["x"], i["w"], y)


def backward(cache, d):
    x, w, y = cache
    delta = d["y"] * (1 - y * y)
    return {"x": delta @ w, "w": delta.T @ x}


def twin(i):
    return {"y": jnp.tanh(i["x"] @ i["w"].T)}


PAIR = Pair(
    name="dense",
    inputs={"x": "B D", "w": "H D"},
    outputs={"y": "B H"},
    forward=forward,
    backward=backward,
    twin=twin,
)
