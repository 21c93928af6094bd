"""How far the error travels: ‖δ_t‖ along the sequence.

The article's conclusion, measured: δ passes through Wᵀ and f′ once a step, so over a long sequence
it vanishes or explodes. (The carried state is no residual path: nothing of s_{t-1} reaches s_t
except through W and f.)
"""

from __future__ import annotations

import numpy as np

from manual_bptt import _door, initial, rnn
from manual_bptt._door import Array


def error_norms(
    activation: str,
    steps: int,
    scale: float = 1.0,
    *,
    hidden: int = 64,
    batch: int = 16,
    seed: int = 0,
) -> Array:
    """‖δ_t‖ for t = 1 … T, when the loss reaches the last state only.

    Random normal inputs, U of their size, W orthogonal times `scale`, a random cotangent of norm 1
    at s_T; the root mean square over the batch, infinite where it left the range of float64. Shape
    (T,), float64.

    Raises `TypeError` or `ValueError` for an unknown activation, a size that is no int of at least
    1, or a scale that is no finite number of at least 0.
    """
    T, H, B = (
        _door.size(name, n) for name, n in (("steps", steps), ("hidden", hidden), ("batch", batch))
    )
    scale = _door.number("scale", scale, low=0)
    rng = np.random.default_rng(seed)
    W = scale * initial.orthogonal(rng, H, np.dtype(np.float64))
    U = initial.fan_in(rng, H, H, np.dtype(np.float64))
    params = rnn.Params(U, W, np.zeros(H))
    dlast = rng.standard_normal((B, H))
    dlast /= np.linalg.norm(dlast, axis=1, keepdims=True)
    x = rng.standard_normal((T, B, H))
    with np.errstate(over="ignore", invalid="ignore"):  # an explosion is a result here
        states, cache = rnn.forward(params, x, activation=activation)
        if not np.isfinite(states).all():
            return np.full(T, np.inf)
        delta = rnn.backward(params, cache, None, dlast).delta  # (T, B, H)
    beyond = ~np.isfinite(delta).all(axis=(1, 2))
    delta[beyond] = 0
    # each step on its own scale: squares of a vanished error would underflow
    largest = np.abs(delta).max(axis=(1, 2))
    unit = np.where(largest > 0, largest, 1)
    norms = largest * np.sqrt(np.mean(np.sum((delta / unit[:, None, None]) ** 2, axis=2), axis=1))
    return np.where(beyond, np.inf, norms)
