"""The article's whole model: the recurrent layer under the softmax readout, in its seven steps.

    step 1  forward: every x_t, s_t, o_t, and L   equations (1) to (5)
    step 2  the gradient of V                     (6), (7)
    step 3  the error at the last step, δ_T       (8)
    step 4  the recursion, δ_{T-1} … δ_1          (9)
    step 5  the gradient of W                     (10)
    step 6  the gradient of U                     (11)
    step 7  the update                            (13), in `manual_bptt.training`

The equations stand in `manual_bptt.rnn` and `manual_bptt.readout`; here they meet.
Letters: T steps, B batch, D input size, H hidden size, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, engines, readout, rnn
from manual_bptt._door import Array
from manual_bptt.activations import Activation


class Params(NamedTuple):
    """The article's parameters; `b` and `c` may be None."""

    U: Array  # (H, D)
    W: Array  # (H, H)
    V: Array  # (C, H)
    b: Array | None = None  # (H,)
    c: Array | None = None  # (C,)


class Cache(NamedTuple):
    """What `backward` needs: the caches of the two layers. `rnn.states` holds s_1 … s_T."""

    rnn: rnn.Cache
    readout: readout.Cache


class Grads(NamedTuple):
    """∂L/∂ of everything the model takes, and the errors ∂L/∂z_t and δ_t = ∂L/∂a_t."""

    U: Array  # (H, D)
    W: Array  # (H, H)
    V: Array  # (C, H)
    b: Array | None  # (H,)
    c: Array | None  # (C,)
    x: Array | None  # (T, B, D), None for class indices
    s0: Array  # (B, H)
    z: Array  # (T, B, C)
    delta: Array  # (T, B, H)


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    bias: bool = True,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights: U and V uniform in ±1/√(columns), W orthogonal, biases zero.

    Raises as `manual_bptt.rnn.init`.
    """
    U, W, b = rnn.init(rng, input_size, hidden_size, bias=bias, dtype=dtype)
    V, c = readout.init(rng, hidden_size, output_size, bias=bias, dtype=dtype)
    return Params(U, W, V, b, c)


def forward(
    params: Params,
    x: Array,
    targets: Array,
    *,
    s0: Array | None = None,
    mask: Array | None = None,
    activation: str | Activation = "tanh",
    engine: str | None = None,
) -> tuple[Any, Cache]:
    """Step 1, equations (1) to (5): the loss L, summed over steps and batch, and the cache.

    Args:
        params: U (H, D), W (H, H), V (C, H), b (H,) or None, c (C,) or None.
        x, s0, activation, engine: as in `manual_bptt.rnn.forward`.
        targets, mask: as in `manual_bptt.readout.forward`.

    Raises `TypeError` or `ValueError` that names the argument, and `OverflowError` when a state
    grows beyond the range of the dtype (relu can do that).
    """
    layer, output = _split(params)
    states, below = rnn.forward(layer, x, s0, activation, engine=engine)
    if not _door.all_finite(states):
        raise OverflowError(f"a state left the range of {states.dtype}")
    loss, above = readout.forward(output, states, targets, mask)
    return loss, Cache(below, above)


def backward(params: Params, cache: Cache, dloss: float = 1.0) -> Grads:
    """Steps 2 to 6, equations (6) to (12): the gradient of L for all parameters, x and s_0.

    Everything is multiplied by `dloss`, the cotangent of L, as in `manual_bptt.readout.backward`.

    Raises `TypeError` or `ValueError` for a cache or weights of another model or shape.
    """
    layer, output = _split(params)
    below, above = _door.instance("cache", cache, Cache)
    # step 2
    head = readout.backward(output, above, dloss)
    # steps 3 to 6; ∂L/∂s_t is Vᵀ(o_t - y_t), and s_T has no further cotangent
    body = rnn.backward(layer, below, head.states)
    return Grads(
        U=body.U,
        W=body.W,
        V=head.V,
        b=body.b,
        c=head.c,
        x=body.x,
        s0=body.s0,
        z=head.z,
        delta=body.delta,
    )


def loss_and_grads(
    params: Params,
    x: Array,
    targets: Array,
    *,
    s0: Array | None = None,
    mask: Array | None = None,
    activation: str | Activation = "tanh",
    engine: str | None = None,
) -> tuple[Any, Grads]:
    """The loss and its gradients: steps 1 to 6 in one call. Arguments as in `forward`.

    The compiled code for class indices keeps no errors of all steps: `z` and `delta` are None.
    """
    if fast := engines.compiled(engine, "model", _lacking(targets, activation)):
        return fast.loss_and_grads(params, x, targets, s0=s0, mask=mask, activation=activation)
    loss, cache = forward(
        params, x, targets, s0=s0, mask=mask, activation=activation, engine=engine
    )
    return loss, backward(params, cache)


def _lacking(targets: Array, activation: str | Activation) -> str:
    """What the compiled model has not."""
    if not _door.holds_indices("targets", targets):
        return "probabilities as targets"
    return rnn._lacking(activation)


def _split(params: Params) -> tuple[rnn.Params, readout.Params]:
    """The weights of the two layers, of one dtype and fitting sizes."""
    U, W, V, b, c = _door.instance("params", params, Params)
    shapes = _door.Shapes()
    U = shapes.floats("params.U", U, "H D", finite=False)
    V = shapes.floats("params.V", V, "C H", U.dtype, finite=False)
    return rnn.Params(U, W, b), readout.Params(V, c)
