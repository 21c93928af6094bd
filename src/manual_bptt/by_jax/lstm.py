"""The LSTM, equations (1) to (14) and (17) of `manual_bptt.lstm`, run by JAX.

Without peepholes and projection, which are for `manual_bptt.lstm` alone.
"""

from __future__ import annotations

import numpy as np

from manual_bptt import jax, lstm
from manual_bptt._door import Array

Params, States, Grads, init = lstm.Params, lstm.States, lstm.Grads, lstm.init

_forth = jax.on_numpy(jax.keeping_the_last(jax._lstm_forward))
_back = jax.on_numpy(jax._lstm_back)


def forward(
    params: lstm.Params,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    forget_offset: float = 0.0,
) -> tuple[lstm.States, lstm.Cache]:
    """Equations (1) to (6), as `manual_bptt.lstm.forward`; φ is added to the bias."""
    if lacks := lstm._lacking(params):
        raise ValueError(f"params: expected none of {lacks}")
    sizes, (U, W, b, _, _), x, h0, c0, offset = lstm._opened(params, x, h0, c0, forget_offset)
    H = W.shape[1]
    b = np.zeros(4 * H, U.dtype) if b is None else b.copy()
    b[H : 2 * H] += offset
    (h, c), kept = _forth(U, W, b, x, h0, c0)
    gates = np.concatenate(kept, axis=-1)
    h.flags.writeable = c.flags.writeable = False
    return lstm.States(h, c), lstm.Cache(x, h0, c0, gates, h, c, sizes, "jax")


def backward(
    params: lstm.Params,
    cache: lstm.Cache,
    dstates: lstm.States,
    dlast: lstm.States | None = None,
) -> lstm.Grads:
    """Equations (8) to (17), as `manual_bptt.lstm.backward`."""
    weights, each, last = lstm._opened_backward(params, cache, dstates, dlast)
    x, h0, c0, gates, h, c, *_ = cache
    U, W, b, *_ = weights
    kept = U, W, x, h0, c0, h, c, tuple(np.split(gates, 4, axis=-1))
    (dU, dW, db, dx, dh0, dc0), delta = _back(kept, tuple(each), tuple(last))
    return lstm.Grads(dU, dW, None if b is None else db, None, None, dx, dh0, dc0, delta)
