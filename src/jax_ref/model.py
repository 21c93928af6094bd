"""The article's whole model from its forward equations: the recurrent layer under the readout."""

from typing import Any

from jax import Array

from jax_ref import readout, rnn


def forward(
    params: Any,
    x: Array,
    s0: Array,
    targets: Array,
    mask: Array | None = None,
    *,
    activation: str = "tanh",
    perturb_a: Array | None = None,
    perturb_z: Array | None = None,
) -> tuple[Array, Array, Array, Array, Array]:
    """Step 1: a (T, B, H), s (T, B, H), z (T, B, C), o (T, B, C) and the loss L.

    Args:
        params: anything with fields U, W, V, b and c (b and c may be None).
        x, s0, activation, perturb_a: as in `jax_ref.rnn.forward`.
        targets, mask, perturb_z: as in `jax_ref.readout.forward`.
    """
    a, s = rnn.forward(params, x, s0, activation, perturb_a)
    z, o, loss = readout.forward(params, s, targets, mask, perturb_z)
    return a, s, z, o, loss
