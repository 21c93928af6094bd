"""How far the error travels: ‖δ_t‖ along the sequence, and the Jacobian of each step on its way.

The article's conclusion, measured: δ passes through Wᵀ and f′ once a step, so over a long sequence
it vanishes or explodes. (The carried state is no residual path: nothing of s_{t-1} reaches s_t
except through W and f.) LSTM and GRU have a path beside W, through f_t and z_t, and are measured in
the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door, gru, initial, lstm, rnn
from manual_bptt._cells import each_state, grouped, starts, tupled
from manual_bptt._door import Array
from manual_bptt.activations import ACTIVATIONS
from manual_bptt.stack import Layer

LAYERS: Mapping[str, tuple[ModuleType, int, Mapping[str, Any]]] = {
    **{name: (rnn, 1, {"activation": name}) for name in ACTIVATIONS},
    "lstm": (lstm, 4, {"forget_offset": 1.0}),
    "gru": (gru, 3, {}),
}
"""What can be looked at: the cell, how many blocks its W has, the options of its `forward`."""


class Drawn(NamedTuple):
    """A layer, sequences for it, and a cotangent of norm 1 for the last output of each."""

    layer: Layer
    x: Array  # (T, B, H)
    dlast: Array  # (B, H)


def drawn(
    layer: str,
    steps: int,
    scale: float = 1.0,
    *,
    hidden: int = 64,
    batch: int = 16,
    seed: int = 0,
) -> Drawn:
    """Random weights, inputs and cotangent, all float64; the same for the same seed.

    Random normal inputs, U of their size, each block of W orthogonal times `scale`. No bias, but an
    offset of 1 at the forget gate of the LSTM.

    Raises `TypeError` or `ValueError` for an unknown layer, a size that is no int of at least 1, or
    a scale that is no finite number of at least 0.
    """
    cell, blocks, options = _known(layer)
    T, H, B = (
        _door.size(name, n) for name, n in (("steps", steps), ("hidden", hidden), ("batch", batch))
    )
    scale = _door.number("scale", scale, low=0)
    rng = np.random.default_rng(seed)
    W = scale * initial.orthogonal_blocks(rng, blocks, H, np.dtype(np.float64))
    U = initial.fan_in(rng, blocks * H, H, np.dtype(np.float64))
    dlast = rng.standard_normal((B, H))
    dlast /= np.linalg.norm(dlast, axis=1, keepdims=True)
    x = rng.standard_normal((T, B, H))
    return Drawn(Layer(cell, cell.Params(U, W), options), x, dlast)


def error_norms(
    layer: str,
    steps: int,
    scale: float = 1.0,
    *,
    hidden: int = 64,
    batch: int = 16,
    seed: int = 0,
) -> Array:
    """‖δ_t‖ for t = 1 … T, when the loss reaches the last output only.

    Of what `drawn` draws; `norms` of all blocks of δ. All infinite where a state left the range of
    float64. Shape (T,), float64.

    Args:
        layer: "tanh", "sigmoid" or "relu" for the recurrent layer with it; "lstm" or "gru".
        steps, hidden, batch: T, H and B.
        scale: what each orthogonal block of W is multiplied by: its spectral radius.
        seed: of weights, inputs and cotangent.

    Raises as `drawn` does.
    """
    found = drawn(layer, steps, scale, hidden=hidden, batch=batch, seed=seed)
    cell, params, options = found.layer
    others = [None] * (len(starts(cell)) - 1)  # states that no loss reaches
    with np.errstate(over="ignore", invalid="ignore"):  # an explosion is a result here
        states, cache = cell.forward(params, found.x, **options)
        if not _finite(tupled(states)):
            return np.full(len(found.x), np.inf)
        each, last = grouped(cell, [None, *others]), grouped(cell, [found.dlast, *others])
        return norms(cell.backward(params, cache, each, last).delta)


def norms(delta: Array) -> Array:
    """‖δ_t‖ of each step, (T,): the root mean square over the batch of (T, B, N).

    Infinite where an entry is infinite or NaN.
    """
    beyond = np.asarray(~np.isfinite(delta).all(axis=(1, 2)))  # (T,)
    delta = np.where(beyond[:, None, None], 0, delta)
    # each step on its own scale: squares of a vanished error would underflow
    largest = np.abs(delta).max(axis=(1, 2))
    unit = np.where(largest > 0, largest, 1)
    norm = largest * np.sqrt(np.mean(np.sum((delta / unit[:, None, None]) ** 2, axis=2), axis=1))
    return np.where(beyond, np.inf, norm)


def step_jacobians(layer: Layer, x: Array, before: Sequence[Array]) -> Array:
    """∂s_t/∂s_{t-1} of each of several steps by itself, (T, B, N, N).

    s is all states of the cell, one behind another: N = H for the recurrent layer, whose Jacobian
    is diag(f′(a_t)) W, and 2H for the LSTM, which has h and c. Row i is what the cell's own way
    back makes of the i-th unit vector.

    Args:
        layer: a cell, its weights and the options of its `forward`.
        x: (T, B, D), the inputs of the steps, or what else the cell takes.
        before: the states s_{t-1} of each of these steps, (T, B, ·) each.

    Raises `TypeError` or `ValueError` as the cell does.
    """
    cell, params, options = layer
    before = each_state(cell, "before", before)
    T, B = x.shape[:2]
    sizes = [s.shape[-1] for s in before]
    N = sum(sizes)
    # one step of T B N sequences, the same N times over but for the cotangent
    x = x.reshape(1, T * B, *x.shape[2:]).repeat(N, axis=1)
    start = [s.reshape(T * B, -1).repeat(N, axis=0) for s in before]
    _, cache = cell.forward(params, x, *start, **options)
    units = np.tile(np.eye(N, dtype=before[0].dtype), (T * B, 1))
    last = grouped(cell, np.split(units, np.cumsum(sizes)[:-1], axis=1))
    grads = cell.backward(params, cache, grouped(cell, [None] * len(sizes)), last)
    rows = np.concatenate([getattr(grads, name) for name in starts(cell)], axis=1)
    return rows.reshape(T, B, N, N)


def spectral_radii(
    layer: str,
    steps: int,
    scale: float = 1.0,
    *,
    hidden: int = 64,
    seed: int = 0,
    every: int = 1,
) -> Array:
    """The largest |eigenvalue| of ∂s_t/∂s_{t-1}, for t = 1, 1 + every, 1 + 2 every … up to T.

    In the first of the sequences of which `error_norms` is, whose arguments these are. NaN where a
    state left the range of float64.

    Raises as `drawn` does.
    """
    every = _door.size("every", every)
    found = drawn(layer, steps, scale, hidden=hidden, seed=seed)
    (cell, params, options), x = found.layer, found.x[:, :1]
    radii = np.full(len(range(0, len(x), every)), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # an explosion is a result here
        states = tupled(cell.forward(params, x, **options)[0])
        before = [np.concatenate([np.zeros_like(s[:1]), s[:-1]]) for s in states]  # s_{t-1}
        for n, t in enumerate(range(0, len(x), every)):
            now = [s[t : t + 1] for s in before]
            if _finite(now):
                J = step_jacobians(found.layer, x[t : t + 1], now)[0, 0]  # (N, N)
                if _finite([J]):
                    radii[n] = np.abs(np.linalg.eigvals(J)).max()
    return radii


def _known(layer: str) -> tuple[ModuleType, int, Mapping[str, Any]]:
    names = ", ".join(LAYERS)
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected one of {names}, got {type(layer).__name__}")
    if layer not in LAYERS:
        raise ValueError(f"layer: expected one of {names}, got {layer!r}")
    return LAYERS[layer]


def _finite(arrays: Sequence[Array]) -> bool:
    return all(np.isfinite(a).all() for a in arrays)
