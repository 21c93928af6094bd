"""The article's recurrent layer and its twin, for a backward pass that is to be judged."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify import Pair


def forward(i):
    """All states, the last one once more, and what the way back needs."""
    U, W, b, x, s0 = (i[name] for name in ("U", "W", "b", "x", "s0"))
    s = np.empty((*x.shape[:2], len(b)), x.dtype)  # (T, B, H)
    before = s0
    for t in range(len(x)):
        before = s[t] = np.tanh(x[t] @ U.T + before @ W.T + b)
    return {"s": s, "last": s[-1].copy()}, (U, W, x, s0, s)


def twin(i):
    """The same in JAX; what is added with delta is zero, and its cotangent is δ."""

    def step(before, now):
        x_t, delta_t = now
        a = x_t @ i["U"].T + before @ i["W"].T + i["b"] + delta_t
        s_t = jnp.tanh(a)
        return s_t, s_t

    last, s = jax.lax.scan(step, i["s0"], (i["x"], i["delta"]))
    return {"s": s, "last": last}


def pair(name, backward):
    """The layer with this backward pass, beside its twin."""
    return Pair(
        name=name,
        inputs={"x": "T B D", "s0": "B H", "U": "H D", "W": "H H", "b": "H"},
        outputs={"s": "T B H", "last": "B H"},
        taps={"delta": "T B H"},
        states={"s0": "s"},
        forward=forward,
        backward=backward,
        twin=twin,
    )
