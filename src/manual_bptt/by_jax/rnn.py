"""The recurrent layer, equations (1), (2) and (8) to (12) of `manual_bptt.rnn`, run by JAX."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from manual_bptt import jax, rnn
from manual_bptt._door import Array
from manual_bptt._flat import one_hot
from manual_bptt.activations import Activation

Params, Grads, init = rnn.Params, rnn.Grads, rnn.init

_forth = cache(lambda f: jax.on_numpy(lambda *given: jax._rnn_forward(f, *given)[0]))
_back = cache(lambda f: jax.on_numpy(partial(jax._rnn_back, f)))


def forward(
    params: rnn.Params, x: Array, s0: Array | None = None, activation: str | Activation = "tanh"
) -> tuple[Array, rnn.Cache]:
    """Equations (1) and (2), as `manual_bptt.rnn.forward`."""
    if lacks := rnn._lacking(activation):
        raise ValueError(f"activation: expected one of this package, got {lacks}")
    f, sizes, (U, W, b), x, s0 = rnn._opened(params, x, s0, activation)
    b = np.zeros(len(W), W.dtype) if b is None else b
    states = _forth(f.name)(U, W, b, _vectors(x, U), s0)
    states.flags.writeable = False
    return states, rnn.Cache(x, s0, states, f, sizes, "jax")


def backward(
    params: rnn.Params, cache: rnn.Cache, dstates: Array | None, dlast: Array | None = None
) -> rnn.Grads:
    """Equations (8) to (12), as `manual_bptt.rnn.backward`."""
    (U, W, b), dstates, dlast = rnn._opened_backward(params, cache, dstates, dlast)
    x, s0, states, f, *_ = cache
    kept = U, W, _vectors(x, U), s0, states
    grads, delta = _back(f.name)(kept, dstates, dlast)
    dU, dW, db, dx, ds0 = grads
    unset: Any = None
    return rnn.Grads(dU, dW, unset if b is None else db, dx if x.ndim == 3 else None, ds0, delta)


def _vectors(x: Array, U: Array) -> Array:
    """Class indices as one-hot vectors."""
    return x if x.ndim == 3 else one_hot(x, U.shape[1], U.dtype)
