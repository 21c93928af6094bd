"""Noor's notebook, "GRU from the paper": reset before the product, greek letters spelled out."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair

# %% the cell


def sig(a):
    return np.exp(-np.logaddexp(0, -a))


def fw(w):
    h, hist = w["h0"], []
    for x in w["x"]:
        prev = h
        r = sig(x @ w["Ur"] + prev @ w["Wr"] + w["br"])
        z = sig(x @ w["Uz"] + prev @ w["Wz"] + w["bz"])
        n = np.tanh(x @ w["Un"] + (r * prev) @ w["Wn"] + w["bn"])
        h = (1 - z) * n + z * prev
        hist.append([x, prev, r, z, n, h])
    return {"hs": np.array([step[-1] for step in hist])}, (w, hist)


# %% and backwards


def bw(kept, up):
    w, hist = kept
    grads = {k: np.zeros_like(v) for k, v in w.items()}
    deltas = {f"delta_{gate}": np.zeros_like(up["hs"]) for gate in "rzn"}
    dh = np.zeros_like(w["h0"])
    for t, (x, prev, r, z, n, _) in reversed(list(enumerate(hist))):
        dh = dh + up["hs"][t]
        delta_n = dh * (1 - z) * (1 - n**2)
        delta_z = dh * (n - prev) * z * (1 - z)
        d_reset = delta_n @ w["Wn"].T  # of r * prev
        delta_r = d_reset * prev * r * (1 - r)
        dh = dh * z + d_reset * r + delta_r @ w["Wr"].T + delta_z @ w["Wz"].T
        for gate, delta, state in (
            ("r", delta_r, prev),
            ("z", delta_z, prev),
            ("n", delta_n, r * prev),
        ):
            deltas[f"delta_{gate}"][t] = delta
            grads[f"U{gate}"] += x.T @ delta
            grads[f"W{gate}"] += state.T @ delta
            grads[f"b{gate}"] += delta.sum(0)
            grads["x"][t] += delta @ w[f"U{gate}"].T
    return {**grads, **deltas, "h0": dh}


# %% the same in JAX


def jx(w):
    def step(h, inp):
        x, delta_r, delta_z, delta_n = inp
        r = jax.nn.sigmoid(x @ w["Ur"] + h @ w["Wr"] + w["br"] + delta_r)
        z = jax.nn.sigmoid(x @ w["Uz"] + h @ w["Wz"] + w["bz"] + delta_z)
        n = jnp.tanh(x @ w["Un"] + (r * h) @ w["Wn"] + w["bn"] + delta_n)
        h = (1 - z) * n + z * h
        return h, h

    seq = (w["x"], w["delta_r"], w["delta_z"], w["delta_n"])
    return {"hs": jax.lax.scan(step, w["h0"], seq)[1]}


# %% check

pair = Pair(
    name="gru",
    inputs={
        **{"x": "T B D", "h0": "B H"},
        **{f"U{gate}": "D H" for gate in "rzn"},
        **{f"W{gate}": "H H" for gate in "rzn"},
        **{f"b{gate}": "H" for gate in "rzn"},
    },
    outputs={"hs": "T B H"},
    taps={f"delta_{gate}": "T B H" for gate in "nzr"},
    states={"h0": "hs"},
    forward=fw,
    backward=bw,
    twin=jx,
)

FIX = ("dh * (n - prev) * z", "dh * (prev - n) * z")
STEP = "delta_z"
TERM = "wrong sign"
LINE = "z = jax.nn.sigmoid("
