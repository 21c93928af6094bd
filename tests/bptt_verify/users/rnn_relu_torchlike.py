"""Sam's replica of `torch.nn.RNN(nonlinearity="relu")` for a small device; torch's letters."""

from typing import NamedTuple

import jax
import numpy as np

from bptt_verify import Pair


class Saved(NamedTuple):
    x: np.ndarray  # (L, N, I)
    h: np.ndarray  # (L + 1, N, H), h_0 first
    w_ih: np.ndarray
    w_hh: np.ndarray


def relu(a):
    return np.maximum(a, 0)


def forward(args):
    h, pre = [args["h_0"]], []
    for x_t in args["x"]:
        pre.append(x_t @ args["w_ih"].T + args["b_ih"] + h[-1] @ args["w_hh"].T + args["b_hh"])
        h.append(relu(pre[-1]))
    out = {"output": np.stack(h[1:]), "h_n": h[-1].copy(), "pre": np.stack(pre)}
    return out, Saved(args["x"], np.stack(h), args["w_ih"], args["w_hh"])


def backward(saved, grad):
    x, h, w_ih, w_hh = saved
    delta = np.zeros_like(h[1:])
    grad_h = grad["h_n"]
    for t in reversed(range(len(x))):
        delta[t] = grad_h + grad["output"][t] * (h[t + 1] > 0)
        grad_h = delta[t] @ w_hh
    flat = delta.reshape(-1, delta.shape[-1])
    return {
        "x": delta @ w_ih,
        "h_0": grad_h,
        "w_ih": flat.T @ x.reshape(len(flat), -1),
        "w_hh": flat.T @ h[:-1].reshape(len(flat), -1),
        "b_ih": flat.sum(0),
        "b_hh": flat.sum(0),
        "delta": delta,
    }


def twin(args):
    def step(h, now):
        x_t, delta_t = now
        a = x_t @ args["w_ih"].T + args["b_ih"] + h @ args["w_hh"].T + args["b_hh"] + delta_t
        h = jax.nn.relu(a)
        return h, (h, a)

    h_n, (output, pre) = jax.lax.scan(step, args["h_0"], (args["x"], args["delta"]))
    return {"output": output, "h_n": h_n, "pre": pre}


pair = Pair(
    name="relu-rnn",
    inputs={
        **{"x": "L N I", "h_0": "N H"},
        **{"w_ih": "H I", "w_hh": "H H", "b_ih": "H", "b_hh": "H"},
    },
    outputs={"output": "L N H", "h_n": "N H"},
    probes={"pre": "L N H"},
    taps={"delta": "L N H"},
    states={"h_0": "output"},
    time="L",
    batch="N",
    forward=forward,
    backward=backward,
    twin=twin,
)

FIX = ('grad_h + grad["output"][t] * (', '(grad_h + grad["output"][t]) * (')
STEP = "delta"
TERM = "the derivative of relu is missing in what is carried back"
LINE = "h = jax.nn.relu(a)"
