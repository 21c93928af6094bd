"""The public doors: every argument is checked once, and a wrong one is named.

Each check says which argument it was, what was expected and what came. Shapes are written as
letters ("T B D", "4H"); a letter takes its size from the first argument that carries it, and every
later argument has to agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
P = TypeVar("P")

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class NotFiniteError(ValueError):
    """Of the right type and shape, but with NaN or infinity in it."""


class Shapes:
    """The sizes of the shape letters seen so far in one call.

    With `sizes`, those that are known from `source`: a cache remembers the forward pass.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None, source: str = "cache") -> None:
        self.size: dict[str, int] = dict(sizes or {})
        self._seen_in: dict[str, str] = dict.fromkeys(self.size, source)

    def equate(self, letter: str, known: str) -> None:
        """Give a letter the size of another one."""
        self.size[letter], self._seen_in[letter] = self.size[known], self._seen_in[known]

    def floats(
        self,
        name: str,
        value: object,
        letters: str,
        dtype: np.dtype[Any] | None = None,
        *,
        finite: bool = True,
    ) -> Array:
        """A float array of the shape; of the given dtype, or of float32 or float64."""
        array = ndarray(name, value)
        wanted = FLOATS if dtype is None else (dtype,)
        if array.dtype not in wanted:
            raise TypeError(f"{name}: expected dtype {_either(wanted)}, got {array.dtype}")
        self._shape(name, array, letters)
        if finite and not all_finite(array):
            raise NotFiniteError(f"{name}: expected finite values, got {_first_not_finite(array)}")
        return _plain(array)

    def cotangents(self, name: str, value: object, letters: str, like: Array) -> Array:
        """A float array as `floats`, of shape and dtype of the values it is about; None is zero."""
        if value is None:
            return np.zeros_like(like)
        for (times, letter), n in zip(_axes(letters), like.shape, strict=True):
            self.size.setdefault(letter, n // times)
            self._seen_in.setdefault(letter, "cache")
        return self.floats(name, value, letters, like.dtype)

    def integers(
        self,
        name: str,
        value: object,
        letters: str,
        *,
        low: int = 0,
        below: int,
        what: str = "class indices",
    ) -> Array:
        """An integer array of the shape with low <= entry < below."""
        array = ndarray(name, value)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer dtype, got {array.dtype}")
        self._shape(name, array, letters)
        wrong = (array < low) | (array >= below)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name}: expected {what} from {low} to {below - 1}, got {array[at]} at {at}"
            )
        return _plain(array.astype(np.intp, copy=False))

    def booleans(self, name: str, value: object, letters: str) -> Array:
        """A boolean array of the shape."""
        array = ndarray(name, value)
        if array.dtype != np.bool_:
            raise TypeError(f"{name}: expected dtype bool, got {array.dtype}")
        self._shape(name, array, letters)
        return _plain(array)

    def _shape(self, name: str, array: Array, letters: str) -> None:
        axes, shape = _axes(letters), array.shape
        new: dict[str, int] = {}
        fits = len(shape) == len(axes)
        if fits:
            for (times, letter), n in zip(axes, shape, strict=True):
                size = self.size.get(letter) or new.setdefault(letter, n // times)
                fits = fits and n == times * size
        if not fits:
            raise ValueError(f"{name}: expected shape {self._spell(letters)}, got {shape}")
        if array.size == 0:
            raise ValueError(f"{name}: expected no empty axis, got shape {shape}")
        for letter, size in new.items():
            self.size[letter] = size
            self._seen_in[letter] = name

    def _spell(self, letters: str) -> str:
        known = [
            f"{letter} = {self.size[letter]} from {self._seen_in[letter]}"
            for letter in dict.fromkeys(letter for _, letter in _axes(letters))
            if letter in self.size
        ]
        wanted = letters.split()
        comma = "," if len(wanted) == 1 else ""
        return f"({', '.join(wanted)}{comma})" + (f" with {', '.join(known)}" if known else "")


@cache
def _axes(letters: str) -> tuple[tuple[int, str], ...]:
    """An axis "4H" is 4 times H long."""
    found = []
    for text in letters.split():
        letter = text.lstrip("0123456789")
        found.append((int(text.removesuffix(letter) or 1), letter))
    return tuple(found)


def ndarray(name: str, value: object) -> Array:
    """A plain NumPy array: nothing is converted, masked or moved from a device in silence."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray) or not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {_kind(value)}")
    return np.asarray(value)


def holds_indices(name: str, value: object) -> bool:
    """Whether the argument is meant as class indices (T, B), not as vectors (T, B, N)."""
    array = ndarray(name, value)
    return array.dtype.kind in "iu" and array.ndim != 3


def _plain(array: Array) -> Array:
    """The same numbers in the plain layout, on which the last bits of a product depend."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    return np.require(array, requirements=["C_CONTIGUOUS", "ALIGNED"])


def all_finite(array: Array) -> bool:
    """Whether there is no NaN and no infinity in it."""
    return np.count_nonzero(np.isfinite(array)) == array.size  # twice as fast as all()


def instance(name: str, value: object, kind: type[P]) -> P:
    """A params or cache object of this layer, not of another one."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {_type_name(kind)}, got {_kind(value)}")
    return value


def generator(name: str, value: object) -> np.random.Generator:
    """A NumPy random generator."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(f"{name}: expected a numpy.random.Generator, got {_kind(value)}")
    return value


def size(name: str, value: object) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {_kind(value)}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
    return int(value)


def number(name: str, value: object, *, low: float = -np.inf, high: float = np.inf) -> float:
    """A finite real number with low <= value < high."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {_kind(value)}")
    try:
        finite = np.isfinite(float(value))
    except OverflowError:  # an int beyond every float
        finite = False
    if not (finite and low <= value < high):
        limits = [f"of at least {low:g}"] if np.isfinite(low) else []
        limits += [f"below {high:g}"] if np.isfinite(high) else []
        wanted = " ".join(["a finite number", " and ".join(limits)]).strip()
        raise ValueError(f"{name}: expected {wanted}, got {value}")
    return float(value)


def float_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):
        raise TypeError(f"{name}: expected {_either(FLOATS)}, got {value!r}") from None
    if value is None:  # NumPy takes it for float64
        raise TypeError(f"{name}: expected {_either(FLOATS)}, got None")
    if dtype not in FLOATS:
        raise TypeError(f"{name}: expected {_either(FLOATS)}, got {dtype}")
    return dtype


def _first_not_finite(array: Array) -> str:
    at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f"{array[at]} at {at}"


def _either(dtypes: Sequence[np.dtype[Any]]) -> str:
    return " or ".join(str(dtype) for dtype in dtypes)


def _kind(value: object) -> str:
    return "None" if value is None else _type_name(type(value))


def _type_name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
