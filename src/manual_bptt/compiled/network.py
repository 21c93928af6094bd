"""One layer of a cell under the readout, as `manual_bptt.network`, compiled.

A thread takes its sequences forward, then goes back through time in blocks of steps: the readout of
a block, δ through the block, its part of the sums. Of all steps nothing is kept but what the cell's
equations need. Where weights are large, all threads are through the way forward before one goes
back (`manual_bptt.compiled.layer`).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from manual_bptt import _door, engines, readout
from manual_bptt._door import Array
from manual_bptt.compiled.layer import Layer
from manual_bptt.compiled.readout import Readout


def loss_and_grads(
    cell: ModuleType,
    params: Any,
    output: readout.Params,
    x: Array,
    targets: Array,
    *start: Array | None,
    mask: Array | None = None,
    dloss: float = 1.0,
    **options: Any,
) -> tuple[Any, Any, Array, Array | None]:
    """The loss, the gradients of the cell but for its taps, ∂L/∂V and ∂L/∂c.

    Args:
        cell: the readable module, such as `manual_bptt.lstm`.
        params, x, start, options: of its `forward`.
        output, targets, mask: of `manual_bptt.readout.forward`; the targets are class indices.
        dloss: the cotangent of L.

    Raises `TypeError` or `ValueError` as those do, and `OverflowError` when a state leaves the
    range of its dtype.
    """
    name = cell.__name__.rpartition(".")[-1]
    layer: Layer = engines.module("numba", name).layer(params, x, *start, **options)
    states, *_ = layer.outputs()
    T, B, H = states.shape
    output, targets, counts = readout._opened(output, targets, mask, states.dtype, T, B, H)
    if mask is not None:  # without one, a step that does not count is -1 already
        targets = np.where(counts, targets, -1)
    above = Readout(output, targets, layer.row, _door.number("dloss", dloss))
    found = layer.from_the_loss(above)
    if not _door.all_finite(states):
        raise OverflowError(f"a state left the range of {states.dtype}")
    return found
