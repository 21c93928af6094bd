"""An LSTM as users write it, and two twins of it: in a scan and in a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def forward(i):
    h, c, kept = i["h0"], i["c0"], []
    for x_t in i["x"]:
        a = x_t @ i["U"].T + h @ i["W"].T + i["b"]
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        gates = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        new = gates[1] * c + gates[0] * gates[2]
        h_new = gates[3] * np.tanh(new)
        kept.append((gates, h, c, new, h_new))
        h, c = h_new, new
    return {"h": np.stack([k[-1] for k in kept]), "c_last": c}, (i, kept)


def backward(cache, d):
    given, kept = cache
    x, U, W = given["x"], given["U"], given["W"]
    dU, dW, db, dx = (np.zeros_like(a) for a in (U, W, given["b"], x))
    after, dc_next = np.zeros_like(given["h0"]), d["c_last"]
    for t in reversed(range(len(x))):
        (i, f, g, o), h, c, new, _ = kept[t]
        dh = d["h"][t] + after
        tc = np.tanh(new)
        dc = dc_next + dh * o * (1 - tc * tc)
        da_i = dc * g * i * (1 - i)
        da_f = dc * c * f * (1 - f)
        da_g = dc * i * (1 - g * g)
        da_o = dh * tc * o * (1 - o)
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dU += da.T @ x[t]
        dW += da.T @ h
        db += da.sum(0)
        dx[t] = da @ U
        after = da @ W
        dc_next = dc * f
    return {"x": dx, "h0": after, "c0": dc_next, "U": dU, "W": dW, "b": db}


def step(i, h, c, x_t):
    a = x_t @ i["U"].T + h @ i["W"].T + i["b"]
    a_i, a_f, a_g, a_o = jnp.split(a, 4, axis=1)
    c = jax.nn.sigmoid(a_f) * c + jax.nn.sigmoid(a_i) * jnp.tanh(a_g)
    return jax.nn.sigmoid(a_o) * jnp.tanh(c), c


def scanned(i):
    def one(carry, x_t):
        h, c = step(i, *carry, x_t)
        return (h, c), h

    (_, c), h = jax.lax.scan(one, (i["h0"], i["c0"]), i["x"])
    return {"h": h, "c_last": c}


def looped(i):
    h, c, states = i["h0"], i["c0"], []
    for x_t in i["x"]:
        h, c = step(i, h, c, x_t)
        states.append(h)
    return {"h": jnp.stack(states), "c_last": c}


def pair_of(backward, twin=scanned):
    return Pair(
        name="lstm",
        inputs={
            **{"x": "T B D", "h0": "B H", "c0": "B H"},
            **{"U": "4H D", "W": "4H H", "b": "4H"},
        },
        outputs={"h": "T B H", "c_last": "B H"},
        forward=forward,
        backward=backward,
        twin=twin,
    )
