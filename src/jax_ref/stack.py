"""Layers of cells from their forward equations alone.

(1)  y⁰_t = x_t,  vˡ_t = Mˡ_t ⊙ yˡ⁻¹_t
(2)  hˡ = cell(vˡ), all steps;  yˡ_t = hˡ_t + yˡ⁻¹_t
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from jax import Array

from jax_ref._cells import tupled


def forward(
    cells: Sequence[ModuleType],
    params: Sequence[Any],
    x: Array,
    starts: Sequence[Sequence[Array]],
    more: Sequence[dict[str, Any]],
    *,
    masks: Sequence[Array] | None = None,
    residual: bool = False,
) -> tuple[Array, list[tuple[Array, ...]]]:
    """The output of the top layer (T, B, N), and all states of all layers.

    Args:
        cells: modules of this package, from the bottom up.
        params: their weights.
        x: (T, B, D).
        starts: for each layer its states before the first step, (B, ·) each.
        more: for each layer the options and taps of its cell.
        masks: Mˡ (T, B, N) of each layer but the first; 1 when None.
        residual: whether each layer above the first adds its input.
    """
    y, states = x, []
    for at, cell in enumerate(cells):
        v = masks[at - 1] * y if masks is not None and at else y  # (1)
        found = tupled(cell.forward(params[at], v, *starts[at], **more[at]))
        y = found[0] + y if residual and at else found[0]  # (2)
        states.append(found)
    return y, states
