"""Before anything is timed: are these the right gradients?

Each contestant's loss and gradients are held against the twin, with the verifier's own band. For
the band the twin is run many times over in float64; where that would not fit into memory, twin and
contestants are held against each other on the first sequences of the batch alone.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

import jax_ref.readout
from bptt_verify.bench.contestants import CONTESTANTS, RIVALS
from bptt_verify.bench.work import BLOCKS, Work
from bptt_verify.compare import compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Oracle
from bptt_verify.pair import Index, Pair
from bptt_verify.pairs import CELLS
from bptt_verify.pairs.article import RNN
from bptt_verify.tolerance import multiplier

ENTRIES = 1_000_000
"""Of all gates of all steps: with the many runs of the twin about two gigabytes."""

OPTIONS: dict[str, dict[str, Any]] = {
    "rnn": {"activation": "tanh"},
    "lstm": {"forget_offset": 0.0},
    "gru": {},
}


class WrongGradientError(Exception):
    """A contestant's gradient is outside of its band."""


def checked(work: Work) -> Work:
    """The work on which the gradients are compared: the same, or fewer sequences of it."""
    T, B, D, H, C = work.sizes
    fits = ENTRIES // (T * H * BLOCKS[work.cell])
    return replace(work, sizes=(T, max(1, min(B, fits)), D, H, C))


def check(work: Work, found: dict[str, dict[str, Any]]) -> tuple[dict[str, float], dict[str, str]]:
    """The largest error of each contestant, in units of the band; of those outside, what is wrong.

    Raises `WrongGradientError` when that is one of ours.
    """
    pair = _pair(work)
    dtype = np.dtype(work.dtype)
    inputs = {**work.weights, "x": work.x, "targets": work.targets}
    drawn = Drawn(inputs, {"loss": np.ones((), dtype)})
    case = Case(dict(zip("TBDHC", work.sizes, strict=True)))
    expected = Oracle(pair, multiplier(dtype)).answer(case, drawn, dtype).quantities
    worst: dict[str, float] = {}
    wrong: dict[str, str] = {}
    for name, arrays in found.items():
        outcomes = {
            row: compare(value, expected[row], dtype)
            for quantity, value in arrays.items()
            for row in ["loss" if quantity == "loss" else f"d{quantity}"]
        }
        problems = [f"{row}: {each.problem}" for row, each in outcomes.items() if not each.ok]
        if not problems:
            worst[name] = max(outcome.error for outcome in outcomes.values())
        elif CONTESTANTS[name].side in RIVALS:
            wrong[name] = problems[0]
        else:
            raise WrongGradientError(f"{name}, {work}: {problems[0]}")
    return worst, wrong


def _pair(work: Work) -> Pair:
    """The loss of the layer under the readout; only its twin is asked."""
    cell = RNN if work.cell == "rnn" else CELLS[work.cell]
    weights = {name: shape for name, shape in cell.weights.items() if name in work.weights}

    def twin(i: dict[str, Any]) -> dict[str, Any]:
        T, B, _ = i["x"].shape
        H = i["W"].shape[1]
        params = SimpleNamespace(**{k: i.get(k) for k in cell.by_hand.Params._fields})
        starts = [jnp.zeros((B, H), i["x"].dtype) for _ in cell.states]
        taps = {
            k: jnp.zeros((T, B, int(shape[:-1] or 1) * H), i["x"].dtype)
            for k, shape in cell.taps.items()
        }
        states = cell.twin.forward(params, i["x"], *starts, **OPTIONS[work.cell], **taps)
        output = states[0] if isinstance(states, tuple) else states
        head = SimpleNamespace(V=i["V"], c=i["c"])
        return {"loss": jax_ref.readout.forward(head, output, i["targets"])[-1]}

    def forward(_: dict[str, Any]) -> Any:
        raise AssertionError("the contestants run elsewhere")

    return Pair(
        name=f"{work.cell}-bench",
        inputs={
            "x": "T B D",
            **weights,
            "V": "C H",
            "c": "C",
            "targets": Index("T B", below="C"),
        },
        outputs={"loss": ""},
        forward=forward,
        backward=forward,
        twin=twin,
    )
