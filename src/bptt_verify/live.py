"""A gradient in use, held against the twin: one window of a real training run."""

from __future__ import annotations

from typing import Any

import numpy as np

from bptt_verify.compare import Comparison, compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Oracle
from bptt_verify.pairs import model_pair
from bptt_verify.tolerance import multiplier
from manual_bptt.charlm import Settings, Step


class Live:
    """The twin of a character model in training."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dtype = np.dtype(np.float32)
        self.oracle = Oracle(model_pair(indices=True), multiplier(self.dtype))

    def compare(self, step: Step) -> dict[str, Comparison]:
        """Every gradient and δ of the step against the twin on the same window.

        Quantities within rounding of a kink of relu are judged like all others: a disagreement
        there is reported, and its band says how near it was.
        """
        params, (T, B) = step.before.params, step.x.shape
        C, H = params.V.shape
        case = Case(
            sizes={"T": T, "B": B, "D": C, "H": H, "C": C},
            options={"activation": self.settings.activation},
            seed=step.before.step,
        )
        inputs: dict[str, Any] = {
            **params._asdict(),
            "x": step.x,
            "s0": step.before.s,
            "targets": step.targets,
            "mask": np.ones((T, B), np.bool_),
        }
        drawn = Drawn(inputs, {"loss": np.asarray(1 / step.x.size)})
        expected = self.oracle.answer(case, drawn, self.dtype).quantities
        found = {**step.grads._asdict(), "delta_T": step.grads.delta[-1], "delta_z": step.grads.z}
        of = {"delta": "delta", "delta_T": "delta_T", "delta_z": "delta_z"}
        of |= {f"d{name}": name for name in (*params._fields, "s0")}
        return {row: compare(found[name], expected[row], self.dtype) for row, name in of.items()}
