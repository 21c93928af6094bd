"""Tom's language-model tutorial: an output looks back over k steps, its own included."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def forward_propagation(i, bptt_truncate):
    T = len(i["x"])
    # one row more: the initial state is s[-1]
    s = np.zeros((T + 1, len(i["s0"])), i["s0"].dtype)
    s[-1] = i["s0"]
    for t in np.arange(T):
        s[t] = np.tanh(i["U"].dot(i["x"][t]) + i["W"].dot(s[t - 1]))
    return {"s": s[:-1].copy()}, (i, s, bptt_truncate)


def bptt(kept, d):
    i, s, bptt_truncate = kept
    dLdU, dLdW = np.zeros_like(i["U"]), np.zeros_like(i["W"])
    dLdx, dLds0 = np.zeros_like(i["x"]), np.zeros_like(i["s0"])
    deltas = np.zeros_like(d["s"])
    # for each output backwards ...
    for t in np.arange(len(i["x"]))[::-1]:
        delta_t = d["s"][t] * (1 - s[t] ** 2)
        # ... through the steps of its window
        for bptt_step in np.arange(max(0, t - bptt_truncate), t + 1)[::-1]:
            deltas[bptt_step] += delta_t
            dLdW += np.outer(delta_t, s[bptt_step - 1])
            dLdU += np.outer(delta_t, i["x"][bptt_step])
            dLdx[bptt_step] += i["U"].T.dot(delta_t)
            ds = i["W"].T.dot(delta_t)
            if bptt_step == 0:
                dLds0 += ds
            delta_t = ds * (1 - s[bptt_step - 1] ** 2)
    return {"x": dLdx, "s0": dLds0, "U": dLdU, "W": dLdW, "delta": deltas}


def twin(i, bptt_truncate):
    def step(s, t):
        return jnp.tanh(i["U"] @ i["x"][t] + i["W"] @ s + i["delta"][t])

    states, outputs = [], []
    for t in range(len(i["x"])):
        first = max(0, t - bptt_truncate + 1)  # of the k steps that end at t
        s = i["s0"] if first == 0 else jax.lax.stop_gradient(states[first - 1])
        for u in range(first, t + 1):
            s = step(s, u)
        states.append(s)
        outputs.append(s)
    return {"s": jnp.stack(outputs)}


pair = Pair(
    name="truncated",
    inputs={"x": "T D", "s0": "H", "U": "H D", "W": "H H"},
    outputs={"s": "T H"},
    taps={"delta": "T H"},
    options={"bptt_truncate": (1, 2, 4)},
    states={"s0": "s"},
    batch=None,
    forward=forward_propagation,
    backward=bptt,
    twin=twin,
    without={"split and join"},
)

FIX = ("max(0, t - bptt_truncate), t + 1)", "max(0, t - bptt_truncate + 1), t + 1)")
STEP = "delta"
TERM = "bptt_truncate="
LINE = ""
