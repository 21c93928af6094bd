"""Layers of any cell under the softmax readout, as the article's model has the recurrent layer.

    (1) y_t: the output of the top layer at x_1 … x_t
    (2) z_t = V y_t + c,  o_t = softmax(z_t),  L = -Σ_t Σ_k y*_{t,k} log o_{t,k}

    (3) ∂L/∂V, ∂L/∂c and ∂L/∂y_t by the readout
    (4) ∂L/∂ of the layers, from the top down

The equations of each stand in the modules of the cells, in `manual_bptt.stack` and in
`manual_bptt.readout`; here they meet. y* are the targets. Letters: T steps, B batch, D input size,
H hidden size, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from manual_bptt import _door, _tree, engines, readout, rnn, stack
from manual_bptt._door import Array
from manual_bptt._flat import one_hot

States = tuple[tuple[Array, ...], ...]
"""For each layer its states, of one step (B, ·) or of all (T, B, ·)."""


class Network(NamedTuple):
    """What a network is beside its weights: its cell, and how the layers are put together."""

    cell: ModuleType
    residual: bool = False
    options: Mapping[str, Any] = {}  # of the cell's `forward`


class Params(NamedTuple):
    """The weights: those of each layer, from the bottom up, and of the readout."""

    layers: tuple[Any, ...]
    readout: readout.Params


class Cache(NamedTuple):
    """What `backward` needs; and all states, of which the last carry on."""

    layers: stack.Cache
    readout: readout.Cache
    states: States  # (T, B, ·) each


class Grads(NamedTuple):
    """∂L/∂ of everything in each layer and in the readout, as they give them."""

    layers: tuple[Any, ...]
    readout: readout.Grads


def init(
    rng: np.random.Generator,
    cell: ModuleType,
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    layers: int = 1,
    dtype: DTypeLike = np.float64,
) -> Params:
    """Random weights, as the cell and `manual_bptt.readout` draw them. Raises as those do."""
    below = [input_size, *[hidden_size] * (_door.size("layers", layers) - 1)]
    each = tuple(cell.init(rng, size, hidden_size, dtype=dtype) for size in below)
    return Params(each, readout.init(rng, hidden_size, output_size, dtype=dtype))


def count(params: Params) -> int:
    """How many weights there are."""
    return sum(weights.size for _, weights in _tree.leaves(params))


def outputs(
    network: Network, params: Params, x: Array, starts: Sequence[Sequence[Array]] | None = None
) -> tuple[Array, States, stack.Cache]:
    """Equation (1): y (T, B, H), all states of all layers, and the cache of the layers.

    Arguments as in `forward`.
    """
    x = _taken(network, _door.instance("params", params, Params), x)
    y, states, cache = stack.forward(
        _stacked(network, params), x, starts, residual=network.residual
    )
    return y, tuple(states), cache


def forward(
    network: Network,
    params: Params,
    x: Array,
    targets: Array,
    starts: Sequence[Sequence[Array]] | None = None,
    *,
    mask: Array | None = None,
) -> tuple[Any, Cache]:
    """Equations (1) and (2): the loss L, summed over steps and batch, and the cache.

    Args:
        network: the cell and how its layers are put together.
        params: the weights of the layers and of the readout; all float32 or all float64.
        x: (T, B, D) of the dtype of the weights; or class indices (T, B), integers in [0, D),
            which stand for one-hot vectors.
        targets, mask: as in `manual_bptt.readout.forward`.
        starts: for each layer its states before the first step, (B, ·) each; those of the cell
            when None.

    Raises `TypeError` or `ValueError` that names the argument; `states` are not finite where those
    of a layer left the range of the dtype.
    """
    y, states, below = outputs(network, params, x, starts)
    loss, above = readout.forward(params.readout, y, targets, mask)
    return loss, Cache(below, above, states)


def backward(network: Network, params: Params, cache: Cache, dloss: float = 1.0) -> Grads:
    """All gradients: equations (3) and (4), multiplied by `dloss`, the cotangent of L.

    Raises `TypeError` or `ValueError` for a cache or weights of another network or shape.
    """
    below, above, _ = _door.instance("cache", cache, Cache)
    # (3) ∂L/∂V, ∂L/∂c and ∂L/∂y_t
    head = readout.backward(params.readout, above, dloss)
    # (4) ∂L/∂ of the layers; their last states have no further cotangent
    body = stack.backward(_stacked(network, params), below, head.states)
    return Grads(tuple(body.layers), head)


def loss_and_grads(
    network: Network,
    params: Params,
    x: Array,
    targets: Array,
    starts: Sequence[Sequence[Array]] | None = None,
    *,
    mask: Array | None = None,
    engine: str | None = None,
) -> tuple[Any, Grads]:
    """The loss and its gradients in one call; arguments as in `forward`.

    On a single layer with class indices as targets, the compiled code keeps no errors of all steps:
    those of the layer and of the readout are None.

    Args:
        engine: see `manual_bptt.engines`; None for the preferred one.
    """
    _door.instance("params", params, Params)
    name = network.cell.__name__.rpartition(".")[-1]
    runs = engines.compiled(engine, name)
    fast = engines.compiled(engine, "network") if runs else None
    if fast and len(params.layers) == 1 and _door.holds_indices("targets", targets):
        start = starts[0] if starts else ()
        given = {"mask": mask, **network.options}
        x = _taken(network, params, x)
        loss, body, dV, dc = fast.loss_and_grads(
            network.cell, params.layers[0], params.readout, x, targets, *start, **given
        )
        errors: Any = None
        return loss, Grads((body,), readout.Grads(dV, dc, errors, errors))
    if name in engines.CELLS:
        network = network._replace(options={**network.options, "engine": engine})
    loss, cache = forward(network, params, x, targets, starts, mask=mask)
    return loss, backward(network, params, cache)


def _stacked(network: Network, params: Params) -> list[stack.Layer]:
    cell, _, options = network
    return [stack.Layer(cell, layer, options) for layer in params.layers]


def _taken(network: Network, params: Params, x: Array) -> Array:
    """The input as the cell takes it: the recurrent layer alone looks class indices up."""
    if network.cell is rnn or not _door.holds_indices("x", x):
        return x
    U = params.layers[0].U  # (·, D)
    x = _door.Shapes().integers("x", x, "T B", below=U.shape[1])
    return one_hot(x, U.shape[1], U.dtype)
