"""The article's whole model, equations (1) to (12) of `manual_bptt.model`, compiled."""

from __future__ import annotations

from typing import Any

from manual_bptt import model, rnn
from manual_bptt._door import Array
from manual_bptt.activations import Activation
from manual_bptt.compiled import network


def loss_and_grads(
    params: model.Params,
    x: Array,
    targets: Array,
    *,
    s0: Array | None = None,
    mask: Array | None = None,
    activation: str | Activation = "tanh",
    dloss: float = 1.0,
) -> tuple[Any, model.Grads]:
    """As `manual_bptt.model.loss_and_grads`, for class indices; the errors z and delta are None.

    The gradients are multiplied by `dloss`, the cotangent of L.
    """
    below, above = model._split(params)
    loss, g, dV, dc = network.loss_and_grads(
        rnn, below, above, x, targets, s0, mask=mask, dloss=dloss, activation=activation
    )
    errors: Any = None
    grads = model.Grads(g.U, g.W, dV, g.b, dc, g.x, g.s0, z=errors, delta=errors)
    return loss, grads
