"""The GRU, equations (1) to (13) of `manual_bptt.gru`, run by JAX."""

from __future__ import annotations

import numpy as np

from manual_bptt import gru, jax
from manual_bptt._door import Array

Params, Grads, init = gru.Params, gru.Grads, gru.init

_forth = jax.on_numpy(jax.keeping_the_last(jax._gru_forward))
_back = jax.on_numpy(jax._gru_back)


def forward(params: gru.Params, x: Array, h0: Array | None = None) -> tuple[Array, gru.Cache]:
    """Equations (1) to (5), as `manual_bptt.gru.forward`."""
    sizes, (U, W, b, b_n), x, h0 = gru._opened(params, x, h0)
    H = W.shape[1]
    b = np.zeros(3 * H, U.dtype) if b is None else b
    b_n = np.zeros(H, U.dtype) if b_n is None else b_n
    h, (*gates, q) = _forth(U, W, b, b_n, x, h0)
    h.flags.writeable = False
    return h, gru.Cache(x, h0, np.concatenate(gates, axis=-1), q, h, sizes, "jax")


def backward(
    params: gru.Params, cache: gru.Cache, dstates: Array | None, dlast: Array | None = None
) -> gru.Grads:
    """Equations (6) to (13), as `manual_bptt.gru.backward`."""
    (U, W, b, b_n), dstates, dlast = gru._opened_backward(params, cache, dstates, dlast)
    x, h0, gates, q, h, *_ = cache
    kept = U, W, x, h0, h, (*np.split(gates, 3, axis=-1), q)
    (dU, dW, db, db_n, dx, dh0), (delta, epsilon) = _back(kept, dstates, dlast)
    db, db_n = None if b is None else db, None if b_n is None else db_n
    return gru.Grads(dU, dW, db, db_n, dx, dh0, delta, epsilon)
