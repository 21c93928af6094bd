"""One array of the subject against what was expected of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt_verify.oracle import Expected
from bptt_verify.padding import inside, place
from bptt_verify.shapes import Shape
from bptt_verify.tolerance import multiplier
from bptt_verify.tolerance import sharp as sharpness


class Comparison(NamedTuple):
    """The worst entry of an array.

    `error` is in units of the tolerance, infinite where nothing but equality would do (a wrong
    shape, NaN, an entry that no rounding can move).
    """

    error: float
    problem: str
    """What is wrong, in words; empty when the array agrees."""
    sharp: bool = True
    """Some entry that is not 0 had a band narrow enough to see an error of 1 %."""
    exact: bool = False
    """No entry can be moved by rounding: all had to be equal."""
    excusable: bool = False
    """It disagrees in finite numbers only, as the other branch at a kink would."""
    undefined: bool = False
    """It disagrees only where both are NaN."""
    doubt: str = ""
    """Why nothing can be said, though it does not disagree."""

    @property
    def ok(self) -> bool:
        """Whether the array agrees."""
        return not self.problem


def worse(old: Comparison, new: Comparison) -> Comparison:
    """The worse of two of the same row; sharp if either is, exact if both are."""
    worst = new if new.error > old.error else old
    both = old.sharp or new.sharp, old.exact and new.exact, old.doubt or new.doubt
    if both == (worst.sharp, worst.exact, worst.doubt):
        return worst  # as nearly always: a new one would take several times as long
    sharp, exact, doubt = both
    return worst._replace(sharp=sharp, exact=exact, doubt=doubt)


class Wrong(NamedTuple):
    """Stands for a value that is no array of the declared shape and dtype."""

    problem: str


def compare(got: object, expected: Expected, dtype: np.dtype[Any]) -> Comparison:
    """Hold the subject's array, which should be of the dtype, against value and σ."""
    value, sigma = expected
    return compare_in_band(got, value, multiplier(dtype) * sigma, dtype)


def compare_in_band(
    got: object, value: NDArray[Any], tolerance: NDArray[Any], dtype: np.dtype[Any]
) -> Comparison:
    """Hold the array against value and tolerance: how far each entry may be off."""
    problem = got.problem if isinstance(got, Wrong) else mismatch(got, value.shape, dtype)
    if problem:
        return Comparison(np.inf, problem)

    exact = np.asarray(got, np.float64)
    error = errors_in_band(exact, value, tolerance)
    worst = float(error.max())
    if worst <= 1:
        sharp = bool(_sharp(value, tolerance, dtype).any())
        return Comparison(worst, "", sharp, not tolerance.any())
    at = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    where = f" at {at}" if at else ""
    digits = telling_apart(value[at], exact[at], 9)
    problem = f"got {exact[at]:.{digits}g}{where}"
    if np.isfinite(value[at]):
        problem = f"expected {value[at]:.{digits}g} ± {tolerance[at]:.1e}, {problem}"
    else:
        problem = f"the twin is {value[at]:g}, {problem}"
    wrong = error > 1
    finite = bool(np.isfinite(exact[wrong]).all())
    undefined = bool((np.isnan(exact) & np.isnan(value))[wrong].all())
    return Comparison(worst, problem, excusable=finite, undefined=undefined)


def compare_padded(
    got: Sequence[object],
    expected: Expected,
    shape: Shape,
    sizes: Sequence[Mapping[str, int]],
    ceiling: Mapping[str, int],
    dtype: np.dtype[Any],
) -> list[Comparison | None]:
    """`compare` for several cases, expected side by side; None where there is more to say.

    What the subject returned has the declared shape and dtype, or is `Wrong`.
    """
    arrays = [k for k, a in enumerate(got) if isinstance(a, np.ndarray)]
    if not arrays:
        return [None] * len(got)
    value, sigma = (a[arrays] for a in expected) if len(arrays) < len(got) else expected
    theirs = value.copy()  # beyond a case's own sizes there is nothing to compare
    own = [sizes[k] for k in arrays]
    place(theirs, [np.asarray(got[k]) for k in arrays], shape, own, ceiling)
    there = inside(shape, own, ceiling)
    error = np.where(there, errors(theirs, Expected(value, sigma), dtype), 0)
    worst = error.reshape(len(own), -1).max(axis=1, initial=0)
    sharp = there & _sharp(value, multiplier(dtype) * sigma, dtype)
    moved = there & (sigma != 0)
    found: list[Comparison | None] = [None] * len(got)
    for k, e, is_sharp, is_moved in zip(
        arrays,
        worst.tolist(),
        np.asarray(sharp.reshape(len(own), -1).any(axis=1)).tolist(),
        np.asarray(moved.reshape(len(own), -1).any(axis=1)).tolist(),
        strict=True,
    ):
        if e <= 1:
            found[k] = Comparison(e, "", is_sharp, not is_moved)
    return found


def _sharp(value: NDArray[Any], tolerance: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """The entries that are not 0 and whose band is narrow enough to see an error of 1 %."""
    return (tolerance <= sharpness(dtype) * np.abs(value)) & (value != 0)


def errors(got: NDArray[Any], expected: Expected, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """The error of each entry in units of the tolerance; infinite where only equality would do."""
    value, sigma = expected
    return errors_in_band(got, value, multiplier(dtype) * sigma)


def errors_in_band(
    got: NDArray[Any], value: NDArray[Any], tolerance: NDArray[Any]
) -> NDArray[np.float64]:
    """`errors`, given the tolerance itself."""
    got = np.asarray(got, np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # 0/0 where nothing is rounded and nothing is off
        error = np.abs(got - value) / tolerance
        equal = got == value  # never so for NaN
        error = np.where(equal, 0.0, error)
        return np.where(np.isnan(error) | ~np.isfinite(got) & ~equal, np.inf, error)


def telling_apart(a: float, b: float, least: int) -> int:
    """How many digits show that two numbers are not the same, and no fewer than the least."""
    return next((n for n in range(least, 17) if f"{a:.{n}g}" != f"{b:.{n}g}"), 17)


def mismatch(got: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """In what a value is not an array of NumPy of this shape and dtype; empty when it is one."""
    # of NumPy's own types: a subclass (masked, matrix) computes in its own way
    if type(got) is not np.ndarray and type(got) not in {*_SCALARS, dtype.type}:
        scalar = "" if shape else " or NumPy scalar"
        return f"expected an array {shape}{scalar} of dtype {dtype}, got {_kind(got)}"
    array = np.asarray(got)
    if array.shape != shape:
        return f"expected shape {shape}, got {array.shape}"
    if array.dtype != dtype:
        return f"expected dtype {dtype}, got {array.dtype}"
    return ""


_SCALARS = {np.dtype(code).type for code in np.typecodes["All"]}


def _kind(value: object) -> str:
    if value is None:
        return "None"
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
