"""The output layer: logits, softmax and cross-entropy, with the derivative of each.

    (3) z_t = V s_t + c
    (4) o_t = softmax(z_t)
    (5) L_t = -Σ_k y_{t,k} log o_{t,k},  L = Σ_t L_t

    (6) ∂L/∂z_t = o_t - y_t
    (7) ∂L/∂V = Σ_t (o_t - y_t) s_tᵀ,  ∂L/∂c = Σ_t (o_t - y_t)
        ∂L/∂s_t = Vᵀ (o_t - y_t), which enters (8) and (9)

L is summed over the batch too. A step without loss has target -1 or is False in the mask: it adds
nothing to L and its o_t - y_t is 0. Letters: T steps, B batch, H hidden size, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, initial
from manual_bptt._door import Array
from manual_bptt._flat import flat


class Params(NamedTuple):
    """The weights of the readout; `c` is None for a readout without bias."""

    V: Array  # (C, H)
    c: Array | None = None  # (C,)


class Cache(NamedTuple):
    """What `backward` needs."""

    states: Array  # (T, B, H)
    o: Array  # (T, B, C)
    targets: Array  # class indices (T, B), or probabilities (T, B, C)
    counts: Array  # (T, B), True where the step has a loss
    sizes: dict[str, int]  # of T, B, H, C


class Grads(NamedTuple):
    """∂L/∂ of the weights, of the states, and of the logits."""

    V: Array  # (C, H)
    c: Array | None  # (C,)
    states: Array  # (T, B, H)
    z: Array  # (T, B, C)


def init(
    rng: np.random.Generator,
    hidden_size: int,
    output_size: int,
    *,
    bias: bool = True,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: V uniform in ±1/√H, c zero. Raises as `manual_bptt.rnn.init`."""
    _door.generator("rng", rng)
    H, C = _door.size("hidden_size", hidden_size), _door.size("output_size", output_size)
    kind = _door.float_dtype("dtype", dtype)
    return Params(initial.fan_in(rng, C, H, kind), np.zeros(C, kind) if bias else None)


def logits(params: Params, states: Array) -> Array:
    """Equation (3): z (T, B, C) from states (T, B, H)."""
    shapes = _door.Shapes()
    V, c = _weights(params, shapes)
    return _logits(V, c, shapes.floats("states", states, "T B H", V.dtype))


def _logits(V: Array, c: Array | None, states: Array) -> Array:
    # (3) z_t = V s_t + c, for all steps in one product
    z = (flat(states) @ V.T).reshape(*states.shape[:2], len(V))  # (T, B, C)
    return z if c is None else z + c


def log_softmax(z: Array) -> Array:
    """The logarithm of equation (4), for logits z (T, B, C) of any size."""
    return _log_softmax(_door.Shapes().floats("z", z, "T B C"))


def _log_softmax(z: Array) -> Array:
    z = z - z.max(axis=-1, keepdims=True)  # e^z cannot overflow; softmax does not change
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def forward(
    params: Params, states: Array, targets: Array, mask: Array | None = None
) -> tuple[Any, Cache]:
    """The loss: equations (3) to (5).

    Args:
        params: V (C, H), c (C,) or None.
        states: (T, B, H) of the dtype of the weights.
        targets: class indices (T, B), integers in [0, C), or -1 for a step without loss; or
            one-hot or other probabilities (T, B, C) that sum to 1.
        mask: booleans (T, B), False for a step without loss; None counts every step.

    Returns:
        L, summed over steps and batch, a scalar of the dtype of the weights; and the cache.

    Raises `TypeError` or `ValueError` that names the argument, as `manual_bptt.rnn.forward`.
    """
    shapes = _door.Shapes()
    V, c = _weights(params, shapes)
    states = shapes.floats("states", states, "T B H", V.dtype)
    targets, counts = _targets(targets, mask, shapes, V.dtype)

    z = _logits(V, c, states)  # (T, B, C)
    # (4) o_t = softmax(z_t)
    log_o = _log_softmax(z)  # (T, B, C)
    o = np.exp(log_o)  # (T, B, C)
    # (5) L_t = -Σ_k y_{t,k} log o_{t,k},  L = Σ_t L_t
    at = np.nonzero(counts)  # the steps with a loss
    if targets.ndim == 2:
        loss = -log_o[(*at, targets[at])].sum()
    else:
        loss = -(targets[at] * log_o[at]).sum()
    return loss, Cache(states, o, targets, counts, shapes.size)


def backward(params: Params, cache: Cache, dloss: float = 1.0) -> Grads:
    """All gradients of the readout: equations (6) and (7), and ∂L/∂s_t.

    Args:
        params: the weights that `forward` had.
        cache: what `forward` returned.
        dloss: the cotangent of L; 1 gives the article's gradients, 1/(number of steps) those of the
            mean loss.

    Raises `TypeError` or `ValueError` for a cache or weights of another layer or shape, and for a
    `dloss` that is no finite number.
    """
    dloss = _door.number("dloss", dloss)
    states, o, targets, counts, sizes = _door.instance("cache", cache, Cache)
    V, c = _weights(params, _door.Shapes(sizes), states.dtype)

    # (6) ∂L/∂z_t = o_t - y_t, and 0 at a step without loss
    at = np.nonzero(counts)
    dz = np.zeros_like(o)  # (T, B, C)
    if targets.ndim == 2:
        dz[at] = o[at]
        dz[(*at, targets[at])] -= 1  # y_t is 1 at the target and 0 elsewhere
    else:
        dz[at] = o[at] - targets[at]
    dz *= dloss
    # (7) ∂L/∂V = Σ_t (o_t - y_t) s_tᵀ,  ∂L/∂c = Σ_t (o_t - y_t)
    dV = flat(dz).T @ flat(states)  # (C, H)
    dc = None if c is None else dz.sum(axis=(0, 1))  # (C,)
    # into (8), (9): Vᵀ (o_t - y_t)
    dstates = (flat(dz) @ V).reshape(states.shape)  # (T, B, H)
    return Grads(dV, dc, dstates, dz)


def _weights(params: Params, shapes: _door.Shapes, dtype: np.dtype[Any] | None = None) -> Params:
    V, c = _door.instance("params", params, Params)
    V = shapes.floats("params.V", V, "C H", dtype)
    return Params(V, None if c is None else shapes.floats("params.c", c, "C", V.dtype))


def _opened(
    params: Params, targets: Array, mask: Array | None, kind: np.dtype[Any], T: int, B: int, H: int
) -> tuple[Params, Array, Array]:
    """What `forward` is given for states (T, B, H), checked: weights, targets, steps that count."""
    shapes = _door.Shapes({"T": T, "B": B, "H": H}, "x")
    weights = _weights(params, shapes, kind)
    return weights, *_targets(targets, mask, shapes, kind)


def _targets(
    targets: Array, mask: Array | None, shapes: _door.Shapes, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    C = shapes.size["C"]
    if _door.holds_indices("targets", targets):
        targets = shapes.integers("targets", targets, "T B", low=-1, below=C)
        counts = targets >= 0
    else:
        targets = shapes.floats("targets", targets, "T B C", dtype)
        total = targets.sum(axis=-1)
        # rounding alone moves a sum of C entries, each rounded once, by at most about C + 1 units
        rounding = (C + 1) * np.finfo(dtype).eps
        wrong = (targets < 0).any(axis=-1) | (np.abs(total - 1) > rounding)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"targets: expected probabilities that sum to 1, got {targets[at]} at {at}"
            )
        counts = np.ones(targets.shape[:2], np.bool_)
    if mask is not None:
        counts = counts & shapes.booleans("mask", mask, "T B")
    return targets, counts
