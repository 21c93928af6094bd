"""The GRU with the reset first, equations (1) to (13) of `manual_bptt.gru_before`, run by JAX."""

from __future__ import annotations

import numpy as np

from manual_bptt import gru_before, jax
from manual_bptt._door import Array

Params, Grads, init = gru_before.Params, gru_before.Grads, gru_before.init

_forth = jax.on_numpy(jax.keeping_the_last(jax._gru_before_forward))
_back = jax.on_numpy(jax._gru_before_back)


def forward(
    params: gru_before.Params, x: Array, h0: Array | None = None
) -> tuple[Array, gru_before.Cache]:
    """Equations (1) to (5), as `manual_bptt.gru_before.forward`."""
    sizes, (U, W, b), x, h0 = gru_before._opened(params, x, h0)
    b = np.zeros(len(W), U.dtype) if b is None else b
    h, kept = _forth(U, W, b, x, h0)
    h.flags.writeable = False
    gates = np.concatenate(kept, axis=-1)
    return h, gru_before.Cache(x, h0, gates, h, sizes, "jax")


def backward(
    params: gru_before.Params,
    cache: gru_before.Cache,
    dstates: Array | None,
    dlast: Array | None = None,
) -> gru_before.Grads:
    """Equations (6) to (13), as `manual_bptt.gru_before.backward`."""
    (U, W, b), dstates, dlast = gru_before._opened_backward(params, cache, dstates, dlast)
    x, h0, gates, h, *_ = cache
    kept = U, W, x, h0, h, tuple(np.split(gates, 3, axis=-1))
    (dU, dW, db, dx, dh0), delta = _back(kept, dstates, dlast)
    return gru_before.Grads(dU, dW, None if b is None else db, dx, dh0, delta)
