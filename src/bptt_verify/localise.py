"""Which step, which block, which term: what a failing case says about the mistake.

Three looks at the same arrays. End to end: which quantities leave their band, at which step first,
going backward, in which block of rows or gates. Step by step (`bptt_verify.local`): which of them
are wrong by themselves, and which only follow. And the likely term: the one misreading of the
twin (`bptt_verify.suspects`) that gives exactly the subject's gradients.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt_verify import local
from bptt_verify.compare import Wrong, compare, errors
from bptt_verify.draw import Case, Drawn
from bptt_verify.judge import Failed, Judge
from bptt_verify.oracle import Answer, Expected, Oracle
from bptt_verify.shapes import Shape
from bptt_verify.suspects import distinct, suspects
from bptt_verify.suspects.ends import factors_of

PATIENCE = 60.0
"""Seconds after which no further suspect is tried."""

ALONE = " alone)"
"""How a likely term ends that does not explain everything."""

TAP = "all gradients are right: the twin may add the tap in another place, or not just once"

TAPS = "a pair with taps, δ of each step, is told which step is wrong by itself: docs/verify.md"

NAMED = 3
"""As many likely terms are named, if so many explain the residual equally."""


@dataclass(frozen=True)
class Fault:
    """One quantity that is wrong."""

    name: str
    steps: str
    """At which steps, the first one going backward first; empty without an axis of time.

    Of what is wrong by itself, the steps in which the mistake is made; else, all it has come to.
    """
    block: str
    """Which part of the array, if not all of it; of the same steps."""
    by_itself: bool | None
    """Wrong in its own step, given the subject's δ; not only because δ is. None: cannot be told."""


@dataclass(frozen=True)
class Heat:
    """How far a quantity is off, over steps and units."""

    quantity: str
    steps: bool
    """Whether rows are steps; else rows and columns are those of a weight, or a single row."""
    errors: tuple[tuple[float, ...], ...]
    """In units of the tolerance."""
    folded: bool = False
    """Whether each is the worst along axes that are not shown, such as that of sequences."""


@dataclass(frozen=True)
class Diagnosis:
    """What is known about a mistake."""

    case: str
    """The case looked at: larger than the smallest one that fails, so that more can be told."""
    faults: tuple[Fault, ...]
    likely: tuple[str, ...]
    """Each explains every gradient of the case, or else the one named first; empty: none does."""
    tried: int
    """How many likely mistakes were tried."""
    heat: Heat | None = None
    """Of the first quantity that is wrong by itself, one with steps if there is such."""
    advice: str = ""
    """What would tell more, where nothing explains the mistake."""


def diagnose(judge: Judge, failed: Failed) -> Diagnosis | None:
    """Look at a case like the failing one, or at itself if the same row does not fail there.

    Sizes are all different, so more can be told there than in the smallest case.
    """
    oracle, dtype = judge.oracle, judge.dtype
    for case in (distinct(oracle, failed.case), failed.case):
        drawn = judge.drawn(case)
        answer = oracle.answer(case, drawn, dtype)
        if answer.out_of_range or answer.undecided:
            continue
        ran = judge.run(oracle.pair, case, drawn, dtype)
        wrong = _wrong(oracle, ran.arrays, answer, dtype)
        if failed.row not in wrong or isinstance(ran.arrays[failed.row], Wrong):
            continue
        alone = local.check(oracle, case, drawn, ran.arrays, dtype)
        faults = tuple(
            _fault(
                oracle,
                case,
                name,
                ran.arrays[name],
                answer.quantities[name],
                alone.get(name),
                dtype,
            )
            for name in wrong
        )
        likely, tried = _likely(oracle, case, drawn, ran.arrays, faults, dtype)
        if not likely or likely[0].endswith(ALONE):  # nothing explains everything
            likely = _patterns(oracle, case, faults, ran.arrays, answer, dtype) or likely
        if {fault.name for fault in faults} <= set(oracle.pair.taps):
            likely = (*likely, TAP)
        heat = _heat(oracle, faults, ran.arrays, answer, dtype)
        without_steps = oracle.pair.time in oracle.pair.letters() and not oracle.pair.taps
        advice = TAPS if without_steps and tried and not likely else ""
        return Diagnosis(str(case), faults, likely, tried, heat, advice)
    return None


def _wrong(
    oracle: Oracle, arrays: Mapping[str, Any], answer: Answer, dtype: np.dtype[Any]
) -> list[str]:
    """The quantities that disagree, causes before effects."""
    return [
        name
        for name in oracle.pair.quantities()
        if name in arrays
        and name not in oracle.unread_taps
        and not compare(arrays[name], answer.quantities[name], dtype).ok
    ]


def _fault(
    oracle: Oracle,
    case: Case,
    name: str,
    array: Any,
    expected: Expected,
    alone: local.Alone | None,
    dtype: np.dtype[Any],
) -> Fault:
    by_itself = None if alone is None else not alone.comparison.ok
    if alone is not None and by_itself:  # where it is made, not where it has come to
        expected = alone.expected
    if not isinstance(array, np.ndarray) or array.shape != expected.value.shape:
        return Fault(name, "", "", by_itself)
    off = errors(array, expected, dtype) > 1
    axes = Shape(oracle.pair.shapes()[name]).axes
    letters = [letter for _, letter in axes]
    steps = ""
    pair = oracle.pair
    if pair.time and pair.time in letters:
        axis = letters.index(pair.time)
        steps = _steps(_any_but(off, axis))
        off = np.asarray(off.any(axis=axis))
        axes = [a for i, a in enumerate(axes) if i != axis]
    return Fault(name, steps, _block(off, axes, case, pair.batch), by_itself)


def _heat(
    oracle: Oracle,
    faults: tuple[Fault, ...],
    arrays: Mapping[str, Any],
    answer: Answer,
    dtype: np.dtype[Any],
) -> Heat | None:
    """The errors of one quantity as a matrix: steps by units, or as the array stands."""
    pair, shapes = oracle.pair, oracle.pair.shapes()

    def letters(fault: Fault) -> list[str]:
        return [letter or "" for _, letter in Shape(shapes[fault.name]).axes]

    def timed(fault: Fault) -> bool:
        return (pair.time or "no axis") in letters(fault)

    # causes before what only follows, and of these what has steps
    for fault in sorted(faults, key=lambda f: (f.by_itself is False, not timed(f))):
        array, expected = arrays[fault.name], answer.quantities[fault.name]
        axes = letters(fault)
        if not isinstance(array, np.ndarray) or array.shape != expected.value.shape or not axes:
            continue
        off = errors(array, expected, dtype)
        units = [i for i, letter in enumerate(axes) if letter not in (pair.time, pair.batch)]
        if timed(fault):
            kept = [axes.index(str(pair.time)), *units[-1:]]
        else:
            kept = units[-2:] or [len(axes) - 1]
        off = np.moveaxis(off, kept, range(len(kept)))
        folded = off.ndim > len(kept)
        off = off.max(axis=tuple(range(len(kept), off.ndim)))
        if off.ndim == 1:  # steps stand below each other
            off = off[:, None] if timed(fault) else off[None]
        return Heat(fault.name, timed(fault), tuple(map(tuple, off.tolist())), folded)
    return None


def _steps(wrong: NDArray[np.bool_]) -> str:
    """In words, the first one going backward first."""
    at = [int(t) + 1 for t in np.flatnonzero(wrong)]
    if len(at) == len(wrong):
        return f"all, from t={at[-1]} back" if len(at) > 1 else "t=1"
    if len(at) > 1 and at == list(range(1, at[-1] + 1)):
        return f"from t={at[-1]} back (T={len(wrong)})"
    return f"t={', '.join(map(str, reversed(at)))} (T={len(wrong)})"


def _any_but(off: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Along one axis, whether any entry is true."""
    return np.asarray(off.any(axis=tuple(i for i in range(off.ndim) if i != axis)))


def _block(
    off: NDArray[np.bool_], axes: list[tuple[int, str | None]], case: Case, batch: str | None
) -> str:
    """Which part is wrong, if it has a structure: gates first, then single rows and columns."""
    if off.all():
        return ""
    for axis, (times, letter) in enumerate(axes):
        along = _any_but(off, axis)
        if times > 1 and letter:
            gates = along.reshape(times, -1).any(axis=1)
            if not gates.all():
                which = ", ".join(str(int(i) + 1) for i in np.flatnonzero(gates))
                return f"block {which} of {times} along {times}{letter}"
        if not along.all():
            what = "sequence" if batch and letter == batch else f"{letter or 'axis'} ="
            which = ", ".join(str(int(i)) for i in np.flatnonzero(along))
            return f"{what} {which} of {len(along)}"
    if off.ndim == 2 and off.shape[0] == off.shape[1]:
        diagonal = np.eye(len(off), dtype=np.bool_)
        if not (off & diagonal).any():
            return "off the diagonal"
        if not (off & ~diagonal).any():
            return "on the diagonal"
    return f"{int(off.sum())} of {off.size} entries"


def _likely(
    oracle: Oracle,
    case: Case,
    drawn: Drawn,
    arrays: Mapping[str, Any],
    faults: tuple[Fault, ...],
    dtype: np.dtype[Any],
) -> tuple[tuple[str, ...], int]:
    """The misreadings that give what the subject gave, and how many were tried."""
    pair = oracle.pair
    if any(fault.name in {**pair.outputs, **pair.probes} for fault in faults):
        return (), 0  # the forward pass is wrong: the backward pass may be the right one for it
    backward = [*(k for k in pair.taps if k not in oracle.unread_taps)]
    backward += [f"d{name}" for name in pair.differentiable]
    all_of_it: list[str] = []
    first_only: list[str] = []
    first = next((f.name for f in faults if f.by_itself), faults[0].name)
    if isinstance(arrays[first], Wrong) or not np.isfinite(arrays[first]).all():
        return (), 0  # no misreading makes that
    tried, start, kind = 0, time.perf_counter(), ""
    for suspect in suspects(oracle, case, drawn, dtype):
        # once one explains everything, only others of its kind can say more
        enough = all_of_it and suspect.kind != kind
        if time.perf_counter() - start > PATIENCE or len(all_of_it) == NAMED or enough:
            break
        kind = suspect.kind
        tried += 1
        try:
            found = suspect.answer().quantities
        except Exception:  # an option the twin does not have, or a change it cannot be traced with
            continue
        if not compare(arrays[first], found[first], dtype).ok:
            continue
        if all(compare(arrays[k], found[k], dtype).ok for k in backward):
            all_of_it.append(suspect.text)
        elif len(first_only) < NAMED:
            first_only.append(f"{suspect.text} (explains {first}{ALONE}")
    return tuple(dict.fromkeys(all_of_it or first_only)), tried


def _patterns(
    oracle: Oracle,
    case: Case,
    faults: tuple[Fault, ...],
    arrays: Mapping[str, Any],
    answer: Answer,
    dtype: np.dtype[Any],
) -> tuple[str, ...]:
    """What the wrong arrays have in common with the right ones, where no misreading explains them.

    A factor, that of a mean over some of the entries or of a clipped norm; or clipped entries.
    """
    pair = oracle.pair
    factors: dict[str, float] = {}
    found = []
    for name in (fault.name for fault in faults if fault.by_itself is not False):
        value, sigma = answer.quantities[name]
        if not isinstance(arrays[name], np.ndarray) or value.size < 2:
            continue
        got = arrays[name].astype(np.float64)
        if got.shape != value.shape or not np.isfinite(got).all() or not value.any():
            continue
        factor = float((got * value).sum() / (value * value).sum())
        scaled = Expected(factor * value, abs(factor) * sigma)
        if factor and f"{factor:.4g}" != "1" and compare(arrays[name], scaled, dtype).ok:
            factors[name] = factor
            continue
        bound = np.abs(got).max()
        clipped = Expected(np.clip(value, -bound, bound), sigma)
        at_it = np.abs(got) == bound
        some = at_it.sum() > 1 and got[~at_it].any()  # if all were, it would be a sign
        if some and compare(arrays[name], clipped, dtype).ok:
            found.append(f"{name} is clipped at ±{bound:.6g}")
    known = {f"{value:.4g}": words for words, value in factors_of(case, pair.time, pair.batch)}
    for text in dict.fromkeys(f"{factor:.4g}" for factor in factors.values()):
        alike = [name for name, factor in factors.items() if f"{factor:.4g}" == text]
        is_are, it = ("is", "it") if len(alike) == 1 else ("are", "they")
        words = known.get(text, f"{text} times")
        found.append(f"{', '.join(alike)} {is_are} {words} what {it} should be")
    return tuple(found[:NAMED])
