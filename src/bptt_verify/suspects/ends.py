"""Mistakes in what comes in, the cotangents and options, and in what goes out, one gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Answer, Expected, Oracle
from bptt_verify.shapes import Shape
from bptt_verify.suspects.suspect import Suspect, swaps

# --- mistakes in what comes in: the cotangents


def of_cotangents(
    oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]
) -> Iterator[Suspect]:
    """A cotangent dropped, of the other sign, or read at another step."""
    pair = oracle.pair
    for name, cotangent in drawn.cotangents.items():
        letters = [letter for _, letter in Shape(pair.outputs[name]).axes]
        found = {"was dropped": np.zeros_like(cotangent), "has the wrong sign": -cotangent}
        if pair.time and pair.time in letters:
            axis = letters.index(pair.time)
            n = cotangent.shape[axis]
            steps = np.moveaxis(cotangent, axis, 0)
            late, early, last = (np.zeros_like(steps) for _ in range(3))
            late[1:], early[:-1], last[-1] = steps[:-1], steps[1:], steps[-1]
            kinds = {
                "is read one step too late": early,
                "is read one step too early": late,
                "counts at the last step only": last,
                "counts at all but the last step": steps - last,
                "is read in reverse order": steps[::-1],
                "is read one step too late, around the end": np.roll(steps, -1, 0),
                "is read one step too early, around the end": np.roll(steps, 1, 0),
            }
            found |= {k: np.moveaxis(v, 0, axis) for k, v in kinds.items() if n > 1}
        for text, wrong in found.items():
            other = Drawn(drawn.inputs, {**drawn.cotangents, name: np.ascontiguousarray(wrong)})
            yield Suspect(
                f"the cotangent of {name} {text}",
                partial(oracle.answer, case, other, dtype),
                "cotangent",
            )


# --- another setting


def of_options(oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]) -> Iterator[Suspect]:
    """The gradients of another value of an option, or of the next whole number."""
    for name, values in oracle.pair.options.items():
        now = case.options[name]
        near = [now - 1, now + 1] if type(now) is int else []
        for value in dict.fromkeys([*near, *values]):
            if value != now and not (type(value) is int and value < 0):
                other = replace(case, options={**case.options, name: value})
                yield Suspect(
                    f"the gradients are those of {name}={value}",
                    partial(oracle.answer, other, drawn, dtype),
                    "option",
                )


# --- mistakes in what goes out: one gradient


def of_results(oracle: Oracle, case: Case, right: Answer) -> Iterator[Suspect]:
    """One gradient zero, turned about, scaled, or in the place of another."""
    pair = oracle.pair
    gradients = [f"d{name}" for name in pair.differentiable]

    def put(wrong: dict[str, Expected]) -> Callable[[], Answer]:
        return lambda: right._replace(quantities={**right.quantities, **wrong})

    for name in [*gradients, *pair.taps]:
        value, sigma = right.quantities[name]
        axes = Shape(pair.shapes()[name]).axes
        kinds = {"is zero": (np.zeros_like(value), sigma * 0)}
        if value.ndim == 2 and value.shape[0] == value.shape[1]:
            kinds["is transposed"] = value.T, sigma.T
        for i, (_, letter) in enumerate(axes):
            if value.shape[i] > 1:
                along = f"along {letter or i}"
                kinds[f"is in reverse order {along}"] = np.flip(value, i), np.flip(sigma, i)
                for shift in (1, -1):
                    kinds[f"is shifted by {shift} {along}"] = (
                        np.roll(value, shift, i),
                        np.roll(sigma, shift, i),
                    )
        for text, factor in factors_of(case, pair.time, pair.batch):
            kinds[f"is {text} what it should be"] = factor * value, abs(factor) * sigma
        for text, (wrong, spread) in kinds.items():
            yield Suspect(f"{name} {text}", put({name: Expected(wrong, spread)}), "result")
    yield from _of_blocks(oracle, right)
    for one, two in combinations(gradients, 2):
        a, b = right.quantities[one], right.quantities[two]
        if a.value.shape == b.value.shape:
            yield Suspect(f"{one} and {two} are swapped", put({one: b, two: a}), "result")
            yield Suspect(f"{one} holds {two}", put({one: b}), "result")
            yield Suspect(f"{two} holds {one}", put({two: a}), "result")


def _of_blocks(oracle: Oracle, right: Answer) -> Iterator[Suspect]:
    """Gates in another order, in everything that has an axis of gates."""
    axes = {k: Shape(text).axes for k, text in oracle.pair.shapes().items()}
    gates = {axis for k in right.quantities for axis in axes[k] if axis[0] > 1 and axis[1]}

    def in_order(gate: tuple[int, str | None], order: list[int]) -> Answer:
        def swapped(a: Any, axes: list[tuple[int, str | None]]) -> Any:
            for axis in (k for k, found in enumerate(axes) if found == gate):
                parts = np.split(a, len(order), axis)
                a = np.concatenate([parts[k] for k in order], axis)
            return a

        wrong = {
            k: Expected(*(swapped(a, axes[k]) for a in both))
            for k, both in right.quantities.items()
        }
        return right._replace(quantities=wrong)

    for gate in sorted(gates, key=str):
        for i, j, order in swaps(gate[0]):
            text = f"blocks {i} and {j} along {gate[0]}{gate[1]} are swapped"
            yield Suspect(text, partial(in_order, gate, order), "blocks")


def of_sequences(
    oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any], right: Answer
) -> Iterator[Suspect]:
    """One sequence of the batch counts, not the sum over all of them."""
    pair = oracle.pair
    axes = {k: [x for _, x in Shape(pair.outputs[k]).axes] for k in drawn.cotangents}
    size = case.sizes.get(pair.batch or "", 1)
    if size < 2 or not all(pair.batch in letters for letters in axes.values()):
        return
    summed = [
        f"d{name}"
        for name in pair.differentiable
        if pair.batch not in Shape(pair.floats[name]).letters
    ]

    @cache
    def alone(which: int) -> Answer:
        only = {
            name: _only(cotangent, axes[name].index(pair.batch), which)
            for name, cotangent in drawn.cotangents.items()
        }
        return oracle.answer(case, Drawn(drawn.inputs, only), dtype)

    def with_one(name: str, which: int) -> Answer:
        found = alone(which).quantities[name]
        return right._replace(quantities={**right.quantities, name: found})

    for which, word in ((0, "first"), (size - 1, "last")):
        for name in summed:
            text = f"only the {word} sequence of the batch counts in {name}"
            yield Suspect(text, partial(with_one, name, which), "sequence")


def _only(cotangent: NDArray[Any], axis: int, at: int) -> NDArray[Any]:
    """Zero but at one place along the axis."""
    found = np.zeros_like(cotangent)
    np.moveaxis(found, axis, 0)[at] = np.moveaxis(cotangent, axis, 0)[at]
    return found


LONGEST = 16
"""Steps of the longest case in which windows are tried."""


def of_windows(
    oracle: Oracle,
    case: Case,
    drawn: Drawn,
    dtype: np.dtype[Any],
    right: Answer,
    cut: Callable[[int], Callable[[dict[str, Any]], dict[str, Any]]],
) -> Iterator[Suspect]:
    """Truncation: each output is carried back over so many steps, the sum of the outputs' own.

    `cut(t)` is the twin with nothing carried back into step t.
    """
    pair = oracle.pair
    length = case.sizes.get(pair.time or "", 1)
    axes = {k: [x for _, x in Shape(pair.outputs[k]).axes] for k in drawn.cotangents}

    def at(t: int) -> Drawn:
        """The cotangents of one step; what has no axis of time comes from the last."""
        only = {}
        for name, cotangent in drawn.cotangents.items():
            if pair.time in axes[name]:
                only[name] = _only(cotangent, axes[name].index(pair.time), t)
            else:
                only[name] = cotangent if t == length - 1 else np.zeros_like(cotangent)
        return Drawn(drawn.inputs, only)

    def windowed(back: int) -> Answer:
        parts = [
            oracle.answer(case, at(t), dtype, twin=cut(t - back) if t >= back else None).quantities
            for t in range(length)
        ]
        summed = {
            k: Expected(
                np.sum([part[k].value for part in parts], axis=0),
                np.sqrt(np.sum([part[k].sigma ** 2 for part in parts], axis=0)),
            )
            for k in parts[0]
        }
        forward = {k: right.quantities[k] for k in (*pair.outputs, *pair.probes)}
        return right._replace(quantities={**summed, **forward})

    # each asks once for every step
    if pair.time and length <= LONGEST and any(pair.time in found for found in axes.values()):
        for back in range(1, length - 1):
            steps = f"{back} step{'s' * (back > 1)}"
            yield Suspect(
                f"each output is carried back over {steps} only (a window)",
                partial(windowed, back),
                "window",
            )


def factors_of(case: Case, time: str | None, batch: str | None) -> Iterator[tuple[str, float]]:
    """Factors that gradients are off by, and what each is called."""
    n = {letter: case.sizes[letter] for letter in (time, batch) if letter and letter in case.sizes}
    if time in n and batch in n and n[str(time)] > 1 and n[str(batch)] > 1:
        both = n[str(time)] * n[str(batch)]
        yield f"1/{time}{batch} (a mean for a sum) of", 1 / both
    for letter, size in n.items():
        if size > 1:
            yield f"1/{letter} (a mean for a sum) of", 1 / size
            yield f"{letter} times", float(size)
    yield from (("-1 times", -1.0), ("twice", 2.0), ("half", 0.5))
