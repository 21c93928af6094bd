"""A file as a user would write it: the README's example, one right pair and one wrong."""

from dataclasses import replace

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


def forgets_tanh(cache, d):
    x, w, _ = cache
    return {"x": d["y"] @ w, "w": d["y"].T @ x}


right = Pair(
    name="right",
    inputs={"x": "B D", "w": "H D"},
    outputs={"y": "B H"},
    forward=forward,
    backward=backward,
    twin=lambda i: {"y": jnp.tanh(i["x"] @ i["w"].T)},
)
wrong = replace(right, name="wrong", backward=forgets_tanh)
