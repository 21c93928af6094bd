"""Wei's part-of-speech tagger: one tanh RNN from the left, one from the right, side by side."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def run(x, s, U, W, b):
    states = []
    for x_t in x:
        s = np.tanh(x_t @ U.T + s @ W.T + b)
        states.append(s)
    return np.stack(states)


def forward(i):
    left = run(i["x"], i["l0"], i["U_l"], i["W_l"], i["b_l"])
    right = run(i["x"][::-1], i["r0"], i["U_r"], i["W_r"], i["b_r"])[::-1]
    return {"y": np.concatenate([left, right], axis=2)}, (i, left, right)


def backward(cache, d):
    i, left, right = cache
    T, _, H = left.shape
    d_left, d_right = d["y"][..., :H], d["y"][..., H:]
    delta_l, delta_r = np.empty_like(left), np.empty_like(right)

    carry_l = np.zeros_like(i["l0"])
    for t in reversed(range(T)):
        delta_l[t] = (d_left[t] + carry_l) * (1 - left[t] ** 2)
        carry_l = delta_l[t] @ i["W_l"]

    # the right one read the sentence from its end, so its errors travel from the start
    carry_r = np.zeros_like(i["r0"])
    for t in range(T):
        delta_r[t] = d_right[t] * (1 - right[t] ** 2)
        carry_r = delta_r[t] @ i["W_r"]

    before_l = np.concatenate([i["l0"][None], left[:-1]])
    before_r = np.concatenate([right[1:], i["r0"][None]])
    return {
        "x": delta_l @ i["U_l"] + delta_r @ i["U_r"],
        **{"l0": carry_l, "delta_l": delta_l, "b_l": delta_l.sum(axis=(0, 1))},
        **{"r0": carry_r, "delta_r": delta_r, "b_r": delta_r.sum(axis=(0, 1))},
        "U_l": np.tensordot(delta_l, i["x"], ((0, 1), (0, 1))),
        "U_r": np.tensordot(delta_r, i["x"], ((0, 1), (0, 1))),
        "W_l": np.tensordot(delta_l, before_l, ((0, 1), (0, 1))),
        "W_r": np.tensordot(delta_r, before_r, ((0, 1), (0, 1))),
    }


def twin(i):
    def from_left(s, now):
        x_t, delta_t = now
        s = jnp.tanh(x_t @ i["U_l"].T + s @ i["W_l"].T + i["b_l"] + delta_t)
        return s, s

    def from_right(s, now):
        x_t, delta_t = now
        s = jnp.tanh(x_t @ i["U_r"].T + s @ i["W_r"].T + i["b_r"] + delta_t)
        return s, s

    _, left = jax.lax.scan(from_left, i["l0"], (i["x"], i["delta_l"]))
    _, right = jax.lax.scan(from_right, i["r0"], (i["x"], i["delta_r"]), reverse=True)
    return {"y": jnp.concatenate([left, right], axis=2)}


pair = Pair(
    name="bidirectional",
    inputs={
        **{"x": "T B D", "l0": "B H", "r0": "B H"},
        **{"U_l": "H D", "W_l": "H H", "b_l": "H"},
        **{"U_r": "H D", "W_r": "H H", "b_r": "H"},
    },
    outputs={"y": "T B 2H"},
    taps={"delta_l": "T B H", "delta_r": "T B H"},
    forward=forward,
    backward=backward,
    twin=twin,
    without={"causality"},
)

FIX = ("delta_r[t] = d_right[t] * (", "delta_r[t] = (d_right[t] + carry_r) * (")
STEP = "delta_r"
TERM = "r0 is not carried back"
LINE = "jax.lax.scan(from_right"
