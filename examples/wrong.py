"""A recurrent layer with one mistake in its way back, to see what a report says of it.

    bptt verify examples/wrong.py --report wrong.html

Ends with exit code 1. What is wrong with the last line of the loop is in the report.
"""

import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def forward(i):
    s, states = i["s0"], []
    for x in i["x"]:
        s = np.tanh(x @ i["U"].T + s @ i["W"].T)
        states.append(s)
    return {"s": np.stack(states)}, (i, states)


def backward(kept, d):
    i, states = kept
    before, carried = np.stack([i["s0"], *states[:-1]]), 0
    delta = np.empty_like(d["s"])
    for t in reversed(range(len(states))):
        delta[t] = (d["s"][t] + carried) * (1 - states[t] ** 2)
        carried = delta[t] @ i["W"].T
    return {
        "x": delta @ i["U"],
        "s0": carried,
        "U": np.einsum("tbh,tbd->hd", delta, i["x"]),
        "W": np.einsum("tbh,tbk->hk", delta, before),
        "delta": delta,
    }


def twin(i):
    s, states = i["s0"], []
    for x, p in zip(i["x"], i["delta"], strict=True):
        s = jnp.tanh(x @ i["U"].T + s @ i["W"].T + p)
        states.append(s)
    return {"s": jnp.stack(states)}


wrong = Pair(
    name="wrong",
    inputs={"x": "T B D", "s0": "B H", "U": "H D", "W": "H H"},
    outputs={"s": "T B H"},
    taps={"delta": "T B H"},
    states={"s0": "s"},
    forward=forward,
    backward=backward,
    twin=twin,
)
