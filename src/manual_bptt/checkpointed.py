"""Backpropagation through a long sequence in bounded memory, for any cell.

The sequence is cut into pieces of so many steps, but no gradient is cut:

    (1)  s of piece p = cell(x of piece p, from the last state of piece p - 1)
    (2)  L = Σ_p L_p(s of piece p)

    (3)  ∂L/∂θ = Σ_p ∂L/∂θ of piece p, from the last piece on
    (4)  ∂L/∂(last state of piece p - 1) = what it has in L_{p-1} + ∂L/∂(start of piece p)

The way back takes the pieces from the last to the first, and makes the states of each again, from a
state that was kept: which ones are kept a schedule says (`manual_bptt.schedules`). Each piece is
computed from the same numbers by the same calls whatever the schedule, so that all of them give the
same gradients to the last bit. Letters: T steps, B batch, D input size, N size of a state.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door
from manual_bptt._cells import a_cell, each_state, grouped, starts, steps, tupled
from manual_bptt._door import Array
from manual_bptt.schedules import Advance, Reverse, Schedule, uniform

Loss = Callable[[int, Any], tuple[float, Any]]
"""L_p: the number of the first step of a piece and its states, as the cell gives them, to the loss
of the piece and the cotangents of these states, as the cell's `backward` takes them."""


class Result(NamedTuple):
    """L and its gradients; θ as the cell's `Params`, 0 where that is None."""

    loss: float
    params: Any
    start: tuple[Array, ...]  # of each state before the first step, (B, N)
    x: Array | None  # (T, B, D), if asked for


def loss_and_grads(
    cell: ModuleType,
    params: Any,
    x: Array,
    loss: Loss,
    *start: Array,
    piece: int = 128,
    schedule: Schedule = uniform,
    inputs: bool = False,
    **options: Any,
) -> Result:
    """The loss of a sequence and its gradients: (1) to (4).

    Args:
        cell: a module of this package with `forward` and `backward`.
        params: its weights.
        x: (T, B, D), or class indices (T, B). It may be a `numpy.memmap`.
        loss: L_p, called once for each piece, from the last to the first.
        start: the states before the first step, (B, N) each; none for zeros.
        piece: steps of a piece, the last of which may be shorter; at least 1.
        schedule: which states to keep: `schedules.uniform`, `schedules.everything`,
            `schedules.binomial(states)`, or one of your own.
        inputs: whether ∂L/∂x is wanted, which is as large as x.
        options: of the cell's `forward`.

    Raises `TypeError` or `ValueError` as the cell does; `OverflowError` when a state leaves the
    range of its dtype; and `TypeError` or `ValueError` for a piece that is no int of at least 1,
    for a loss that returns no pair, for the inputs' gradient of class indices, and for a schedule
    that does not go back through every piece, from the last to the first.
    """
    cell = a_cell("cell", cell)
    k = _door.size("piece", piece)
    x, T, _ = steps(x)
    _callable("loss", loss)
    _callable("schedule", schedule)
    if inputs and x.dtype.kind != "f":
        raise ValueError(f"inputs: expected False for class indices, got {inputs!r}")
    n = -(-T // k)  # pieces
    kept = {0: each_state(cell, "start", start)}

    def run(p: int, now: list[Any]) -> tuple[Any, Any, list[Any]]:
        # (1) s of piece p, from the last state of piece p - 1
        try:
            states, cache = cell.forward(params, x[p * k : (p + 1) * k], *now, **options)
        except _door.NotFiniteError as error:
            raise _door.NotFiniteError(f"{error} of the piece from step {p * k} on") from None
        # a copy: the last state alone is kept, not the piece it ends
        after = [s[-1].copy() for s in tupled(states)]
        if not all(_door.all_finite(s) for s in after):
            raise OverflowError(
                f"states: left the range of {after[0].dtype} before step {min(T, (p + 1) * k)}"
            )
        return states, cache, after

    total, back = 0.0, _Back(cell, params, np.empty_like(x) if inputs else None)
    behind = n
    for action in schedule(n):
        _check(action, behind)
        now = _kept(kept, action.first)
        if isinstance(action, Advance):
            for p in range(action.first, action.behind):
                now = run(p, now)[-1]
            kept[action.behind] = now
            continue
        if action.behind != behind:
            raise ValueError(f"schedule: expected piece {behind - 1} next, got {action}")
        whole = []
        for p in range(action.first, action.behind):
            states, cache, now = run(p, now)
            whole.append((states, cache))
        for p in reversed(range(action.first, action.behind)):
            states, cache = whole.pop()
            # (2) L = Σ_p L_p(s of piece p)
            value, dstates = _pair(loss(p * k, states))
            total += value
            back.through(cache, dstates, p * k)
        del kept[action.first]
        behind = action.first
    if behind:
        raise ValueError(f"schedule: expected all of {n} pieces, got none before piece {behind}")
    return Result(total, cell.Params(**back.weights), tuple(back.carried), back.x)


class _Back:
    """The way back: what has been added up so far, and what goes on to the piece before."""

    def __init__(self, cell: ModuleType, params: Any, x: Array | None) -> None:
        self.cell = cell
        self.params = params
        self.x = x
        self.weights: dict[str, Array | None] = {}
        self.carried: list[Any] = [None] * len(starts(cell))

    def through(self, cache: Any, dstates: Any, at: int) -> None:
        """Through one piece, which begins at this step."""
        cell = self.cell
        g = cell.backward(self.params, cache, dstates, grouped(cell, self.carried))
        # (3) ∂L/∂θ = Σ_p ∂L/∂θ of piece p
        for name in cell.Params._fields:
            part, known = getattr(g, name), self.weights.get(name)
            self.weights[name] = part if known is None else np.add(known, part, out=known)
        # (4) what goes on to the last state of the piece before
        self.carried = [getattr(g, name) for name in starts(cell)]
        if self.x is not None:
            self.x[at : at + len(g.x)] = g.x


def _callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {type(value).__name__}")


def _check(action: object, behind: int) -> None:
    """An action on pieces that nobody went back through yet."""
    if not isinstance(action, Advance | Reverse):
        raise TypeError(f"schedule: expected Advance or Reverse, got {type(action).__name__}")
    if not 0 <= action.first < action.behind <= behind:
        raise ValueError(f"schedule: expected pieces of the first {behind}, got {action}")


def _kept(kept: dict[int, list[Any]], piece: int) -> list[Any]:
    if piece not in kept:
        raise ValueError(f"schedule: expected one of the states kept, {sorted(kept)}, got {piece}")
    return kept[piece]


def _pair(found: Any) -> tuple[float, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"loss: expected (loss of the piece, cotangents of its states), "
            f"got {type(found).__name__}"
        )
    return found
