"""A way back with one mistake in it."""

import numpy as np
from layer import pair


def backward(kept, d):
    """δ of every step, and the gradients made of it on the way."""
    U, W, x, s0, s = kept
    dU, dW, db = np.zeros_like(U), np.zeros_like(W), np.zeros_like(W[0])
    dx, delta = np.empty_like(x), np.empty_like(s)
    carried = d["last"]
    for t in reversed(range(len(x))):
        delta[t] = (d["s"][t] + carried) * (1 - s[t] ** 2)
        dU = delta[t].T @ x[t]
        dW += delta[t].T @ (s[t - 1] if t else s0)
        db += delta[t].sum(axis=0)
        dx[t] = delta[t] @ U
        carried = delta[t] @ W
    return {"x": dx, "s0": carried, "U": dU, "W": dW, "b": db, "delta": delta}


bug4 = pair("bug4", backward)
