"""A way back with one mistake in it."""

import numpy as np
from layer import pair


def backward(kept, d):
    """δ of every step, and the gradients made of it."""
    U, W, x, s0, s = kept
    before = np.concatenate([s0[None], s[:-1]])
    delta = np.empty_like(s)
    carried = np.zeros_like(s0)
    for t in reversed(range(len(x))):
        delta[t] = (d["s"][t] + carried) * (1 - s[t] ** 2)
        carried = delta[t] @ W
    dU = np.einsum("tbh,tbd->hd", delta, x)
    dW = np.einsum("tbh,tbk->hk", delta, before)
    db = delta.sum(axis=(0, 1))
    return {"x": delta @ U, "s0": carried, "U": dU, "W": dW, "b": db, "delta": delta}


bug6 = pair("bug6", backward)
