"""Radek ported his C kernel line by line into Python: flat buffers, loops, offsets."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def sigm(v):
    return 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v))


def lstm_forward(h, c, gates, x, wx, wh, b, T, D, H):
    # h, c: (T + 1) * H with the initial state first; gates: T * 4 * H, order i f o g
    for t in range(T):
        for r in range(4 * H):
            acc = b[r]
            for k in range(D):
                acc += wx[r * D + k] * x[t * D + k]
            for k in range(H):
                acc += wh[r * H + k] * h[t * H + k]
            gates[t * 4 * H + r] = sigm(acc) if r < 3 * H else math.tanh(acc)
        for j in range(H):
            i, f, o, g = (gates[t * 4 * H + n * H + j] for n in range(4))
            c[(t + 1) * H + j] = f * c[t * H + j] + i * g
            h[(t + 1) * H + j] = o * math.tanh(c[(t + 1) * H + j])


def lstm_backward(dx, dh, dc, dwx, dwh, db, dgates, h, c, gates, x, wx, wh, dout, T, D, H):
    # dh, dc: H, zero on entry, cotangent of the initial state on return
    for t in range(T - 1, -1, -1):
        for j in range(H):
            i, f, o, g = (gates[t * 4 * H + n * H + j] for n in range(4))
            th = math.tanh(c[(t + 1) * H + j])
            dhj = dh[j] + dout[t * H + j]
            dcj = dc[j] + dhj * o * (1 - th * th)
            dgates[j] = dcj * g * i * (1 - i)
            dgates[H + j] = dcj * c[t * H + j] * f * (1 - f)
            dgates[2 * H + j] = dhj * th * o * (1 - o)
            dgates[3 * H + j] = dcj * i * (1 - g * g)
            dc[j] = dcj * f
            dh[j] = 0
        for r in range(4 * H):
            db[r] += dgates[r]
            for k in range(D):
                dwx[r * D + k] += dgates[r] * x[t * D + k]
                dx[t * D + k] += dgates[r] * wx[r * D + k]
            for k in range(H):
                dwh[r * H + k] = dgates[r] * h[t * H + k]
                dh[k] += dgates[r] * wh[r * H + k]


def forward(p):
    (T, D), H = p["x"].shape, len(p["h0"])
    x, wx, wh, b = (p[n].ravel() for n in ("x", "wx", "wh", "b"))
    h, c, gates = (np.zeros(n, x.dtype) for n in ((T + 1) * H, (T + 1) * H, 4 * T * H))
    h[:H], c[:H] = p["h0"], p["c0"]
    lstm_forward(h, c, gates, x, wx, wh, b, T, D, H)
    return {"out": h[H:].reshape(T, H)}, (h, c, gates, x, wx, wh, T, D, H)


def backward(buffers, d):
    h, c, gates, x, wx, wh, T, D, H = buffers
    sizes = {"x": (T, D), "h0": H, "c0": H, "wx": (4 * H, D), "wh": (4 * H, H), "b": 4 * H}
    out = {name: np.zeros(np.prod(size), x.dtype) for name, size in sizes.items()}
    dgates = np.zeros(4 * H, x.dtype)
    lstm_backward(*out.values(), dgates, h, c, gates, x, wx, wh, d["out"].ravel(), T, D, H)
    return {name: out[name].reshape(size) for name, size in sizes.items()}


def twin(p):
    def step(state, x):
        h, c = state
        a = p["wx"] @ x + p["wh"] @ h + p["b"]
        i, f, o, g = jnp.split(a, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return {"out": jax.lax.scan(step, (p["h0"], p["c0"]), p["x"])[1]}


pair = Pair(
    name="lstm.c",
    inputs={"x": "T D", "h0": "H", "c0": "H", "wx": "4H D", "wh": "4H H", "b": "4H"},
    outputs={"out": "T H"},
    states={"h0": "out"},
    batch=None,
    forward=forward,
    backward=backward,
    twin=twin,
    without={"split and join"},
)

FIX = ("dwh[r * H + k] = dgates", "dwh[r * H + k] += dgates")
STEP = "dwh"
TERM = "= for +="
LINE = "jax.lax.scan(step"
