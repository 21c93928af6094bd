"""A gradient in use, held against the twin: one window of a real training run."""

from __future__ import annotations

import numpy as np

from bptt_verify.compare import Comparison, compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.network import Parts, network_pair
from bptt_verify.oracle import Oracle
from bptt_verify.pairs.cells import Cell
from bptt_verify.tolerance import multiplier
from manual_bptt.charlm import Settings, Step


class Live:
    """The twin of a character model in training.

    Args:
        settings: what is trained.
        cell: its cell, with the twin.
    """

    def __init__(self, settings: Settings, cell: Cell) -> None:
        self.settings = settings
        self.dtype = np.dtype(np.float32)
        self.parts = Parts(cell, settings.layers)
        pair = network_pair(cell, settings.layers, residual=settings.residual)
        self.oracle = Oracle(pair, multiplier(self.dtype))

    def compare(self, step: Step) -> dict[str, Comparison]:
        """Every gradient and δ of the step against the twin on the same window.

        Quantities within rounding of a kink (of relu, minGRU's g, sLSTM's max) are judged like all
        others: a disagreement there is reported, and its band says how near it was.
        """
        params, (T, B) = step.before.params, step.x.shape
        C, H = params.readout.V.shape
        case = Case(
            sizes={"T": T, "B": B, "D": C, "H": H, "C": C},
            options=self.settings.network.options,
            seed=step.before.step,
        )
        inputs = {
            **self.parts.inputs(params, step.before.states),
            "x": step.x,
            "targets": step.targets,
        }
        drawn = Drawn(inputs, {"loss": np.asarray(1 / step.x.size)})
        expected = self.oracle.answer(case, drawn, self.dtype).quantities
        taps = self.oracle.pair.taps
        found = {
            name if name in taps else f"d{name}": value
            for name, value in self.parts.gradients(step.grads).items()
        }
        return {row: compare(value, expected[row], self.dtype) for row, value in found.items()}
