"""Mira's blog post "An LSTM in a hundred lines of NumPy": a matrix per gate, a dict of lists."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair

GATES = ["i", "f", "g", "o"]


def sigmoid(v):
    e = np.exp(-np.abs(v))
    return np.where(v >= 0, 1, e) / (1 + e)


def forward(p):
    h, c = p["h0"], p["c0"]
    memory = {name: [] for name in ["h_prev", "c_prev", *GATES, "c", "h"]}
    for x in p["x"]:
        memory["h_prev"].append(h)
        memory["c_prev"].append(c)
        now = {}
        for k in GATES:
            squash = np.tanh if k == "g" else sigmoid
            now[k] = squash(x @ p[f"U_{k}"].T + h @ p[f"W_{k}"].T + p[f"b_{k}"])
        c = now["f"] * c + now["i"] * now["g"]
        h = now["o"] * np.tanh(c)
        for name, value in {**now, "c": c, "h": h}.items():
            memory[name].append(value)
    return {"h": np.stack(memory["h"]), "c": np.stack(memory["c"])}, (p, memory)


def backward(kept, d):
    p, memory = kept
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    grads |= {f"da_{k}": np.zeros_like(d["h"]) for k in GATES}
    dh_next, dc_next = np.zeros_like(p["h0"]), np.zeros_like(p["c0"])
    for t in reversed(range(len(p["x"]))):
        step = {name: values[t] for name, values in memory.items()}
        i, f, g, o = (step[k] for k in GATES)
        tanh_c = np.tanh(step["c"])

        dh = d["h"][t] + dh_next
        dc = d["c"][t] + dc_next + dh * o * (1 - tanh_c**2)
        da = {
            "i": dc * g * i * (1 - i),
            "f": dc * step["c"] * f * (1 - f),
            "g": dc * i * (1 - g**2),
            "o": dh * tanh_c * o * (1 - o),
        }

        dh_next, dc_next = np.zeros_like(dh), dc * f
        for k in GATES:
            grads[f"da_{k}"][t] = da[k]
            grads[f"U_{k}"] += da[k].T @ p["x"][t]
            grads[f"W_{k}"] += da[k].T @ step["h_prev"]
            grads[f"b_{k}"] += da[k].sum(axis=0)
            grads["x"][t] += da[k] @ p[f"U_{k}"]
            dh_next = dh_next + da[k] @ p[f"W_{k}"]
    return {**grads, "h0": dh_next, "c0": dc_next}


def twin(p):
    def step(carry, now):
        h, c = carry
        x, *da = now
        a = {
            k: x @ p[f"U_{k}"].T + h @ p[f"W_{k}"].T + p[f"b_{k}"] + da_k
            for k, da_k in zip(GATES, da, strict=True)
        }
        i, f, o = (jax.nn.sigmoid(a[k]) for k in "ifo")
        c = f * c + i * jnp.tanh(a["g"])
        h = o * jnp.tanh(c)
        return (h, c), (h, c)

    _, (h, c) = jax.lax.scan(step, (p["h0"], p["c0"]), (p["x"], *(p[f"da_{k}"] for k in GATES)))
    return {"h": h, "c": c}


pair = Pair(
    name="blog-lstm",
    inputs={
        **{"x": "T B D", "h0": "B H", "c0": "B H"},
        **{f"U_{k}": "H D" for k in GATES},
        **{f"W_{k}": "H H" for k in GATES},
        **{f"b_{k}": "H" for k in GATES},
    },
    outputs={"h": "T B H", "c": "T B H"},
    taps={f"da_{k}": "T B H" for k in reversed(GATES)},
    states={"h0": "h", "c0": "c"},
    forward=forward,
    backward=backward,
    twin=twin,
)

FIX = ('dc * step["c"] * f', 'dc * step["c_prev"] * f')
STEP = "da_f"
TERM = "previous state is meant"
LINE = "c = f * c + i * jnp.tanh"
