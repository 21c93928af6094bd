"""Jonas, ML engineer: all gates in one product, delta kept, the weights in two einsums."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def logistic(a):
    return 0.5 * (np.tanh(0.5 * a) + 1)


def forward(inp):
    x, h, c, Wx, Wh, b = (inp[k] for k in ("x", "h0", "c0", "Wx", "Wh", "b"))
    H = h.shape[1]
    xa = x @ Wx.T + b  # every step at once
    hs, cs, gates = [h], [c], []
    for xa_t in xa:
        a = xa_t + h @ Wh.T
        gate = logistic(a)
        gate[:, 2 * H : 3 * H] = np.tanh(a[:, 2 * H : 3 * H])
        i, f, g, o = np.split(gate, 4, axis=1)
        c = f * c + i * g
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
        gates.append(gate)
    cache = (x, Wx, Wh, np.stack(hs), np.stack(cs), np.stack(gates))
    return {"h": cache[3][1:], "h_last": h, "c_last": c}, cache


def backward(cache, grad):
    x, Wx, Wh, hs, cs, gates = cache
    delta = np.empty_like(gates)
    dh, dc = grad["h_last"], grad["c_last"]
    H = dh.shape[1]
    for t in range(len(x) - 1, -1, -1):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        th = np.tanh(cs[t + 1])
        dh = dh + grad["h"][t]
        dc = dc + dh * o * (1 - th * th)
        dgate = np.concatenate([dc * i, dc * cs[t], dc * i, dh * th], axis=1)
        slope = gates[t] * (1 - gates[t])
        slope[:, 2 * H : 3 * H] = 1 - g * g
        delta[t] = dgate * slope
        dh = delta[t] @ Wh
        dc = dc * f
    return {
        "delta": delta,
        "x": delta @ Wx,
        "h0": dh,
        "c0": dc,
        "Wx": np.einsum("tbg,tbd->gd", delta, x),
        "Wh": np.einsum("tbg,tbh->gh", delta, hs[:-1]),
        "b": delta.sum((0, 1)),
    }


def twin(inp):
    def cell(hc, xs):
        h, c = hc
        x_t, delta_t = xs
        a_i, a_f, a_g, a_o = jnp.split(
            x_t @ inp["Wx"].T + h @ inp["Wh"].T + inp["b"] + delta_t, 4, axis=-1
        )
        i, f, o = logistic_(a_i), logistic_(a_f), logistic_(a_o)
        c = f * c + i * jnp.tanh(a_g)
        h = o * jnp.tanh(c)
        return (h, c), h

    def logistic_(a):
        return 0.5 * (jnp.tanh(0.5 * a) + 1)

    (h, c), hs = jax.lax.scan(cell, (inp["h0"], inp["c0"]), (inp["x"], inp["delta"]))
    return {"h": hs, "h_last": h, "c_last": c}


pair = Pair(
    name="fused-lstm",
    inputs={
        **{"x": "T B D", "h0": "B H", "c0": "B H"},
        **{"Wx": "4H D", "Wh": "4H H", "b": "4H"},
    },
    outputs={"h": "T B H", "h_last": "B H", "c_last": "B H"},
    taps={"delta": "T B 4H"},
    states={"h0": "h"},
    forward=forward,
    backward=backward,
    twin=twin,
    without={"split and join"},
)

FIX = ("[dc * i, dc * cs[t],", "[dc * g, dc * cs[t],")
STEP = "delta"
TERM = "a factor is multiplied by itself"
LINE = "c = f * c + i * jnp.tanh"
