"""What each JAX primitive does to NumPy arrays, and how it rounds.

Every value carries the samples of `bptt_verify.rounding` as its first axis, which the axes of a
primitive's parameters do not count. Sorted by what rounding does to them: `EXACT` ones move or
choose values, `COMPARE` ones have to be decided, `ROUNDED` ones round each entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SAMPLES = 16


def align(x: list[Array]) -> list[Array]:
    """Scalars among arrays get trailing axes: NumPy would take the axis of the samples for one."""
    rank = max(a.ndim for a in x)
    return [a.reshape(a.shape + (1,) * (rank - a.ndim)) for a in x]


# --- primitives that move or choose values without rounding them

Rule = Callable[..., Array]


def _axes(axes: Sequence[int]) -> tuple[int, ...]:
    """Axes of a value, counted past the axis of the samples."""
    return tuple(int(a) + 1 for a in axes)


def _broadcast_in_dim(p: dict[str, Any], x: Array, *_: Array) -> Array:
    shape = [1] * len(p["shape"])
    for axis, n in zip(p["broadcast_dimensions"], x.shape[1:], strict=True):
        shape[axis] = n
    return np.broadcast_to(x.reshape(len(x), *shape), (len(x), *p["shape"]))


def _slice(p: dict[str, Any], x: Array) -> Array:
    strides = p["strides"] or (1,) * len(p["start_indices"])
    cut = map(slice, p["start_indices"], p["limit_indices"], strides)
    return x[(slice(None), *cut)]


def _dynamic_slice(p: dict[str, Any], x: Array, *starts: Array) -> Array:
    parts = [x[part] for part in _parts(x, p["slice_sizes"], starts)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _dynamic_update_slice(_: dict[str, Any], x: Array, update: Array, *starts: Array) -> Array:
    out = x.copy()
    for part in _parts(x, update.shape[1:], starts):
        out[part] = update[part[0]]
    return out


def _parts(x: Array, sizes: Sequence[int], starts: Sequence[Array]) -> list[tuple[slice, ...]]:
    """Where such sizes begin at the starts, which are moved inside: of all rows, or of each."""
    firsts = [
        np.clip(np.asarray(start, np.intp), 0, n - size)
        for start, size, n in zip(starts, sizes, x.shape[1:], strict=True)
    ]
    alike = all((first == first[0]).all() for first in firsts)
    rows = [slice(None)] if alike else [slice(row, row + 1) for row in range(len(x))]
    return [
        (which, *(slice(first[k], first[k] + n) for first, n in zip(firsts, sizes, strict=True)))
        for k, which in enumerate(rows)
    ]


def _pad(p: dict[str, Any], x: Array, value: Array) -> Array:
    shape, source, target = [len(x)], [slice(None)], [slice(None)]
    for n, (low, high, interior) in zip(x.shape[1:], p["padding_config"], strict=True):
        step = interior + 1
        length = low + high + n + max(n - 1, 0) * interior
        # a negative low or high cuts: entry i goes to low + i step, if that is in range
        first = max(0, -(low // step)) if low < 0 else 0
        last = min(n, (length - 1 - low) // step + 1)
        shape.append(length)
        source.append(slice(first, max(first, last)))
        start = low + first * step
        target.append(slice(start, start + max(last - first, 0) * step, step))
    out = np.empty(shape, x.dtype)
    out[...] = value[(...,) + (None,) * (x.ndim - 1)]
    out[tuple(target)] = x[tuple(source)]
    return out


def _select_n(_: dict[str, Any], which: Array, *cases: Array) -> Array:
    if len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    return np.choose(np.broadcast_to(which, cases[0].shape), cases)


def _clamp(_: dict[str, Any], low: Array, x: Array, high: Array) -> Array:
    return np.clip(x, low, high)


EXACT: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _clamp,
    "concatenate": lambda p, *x: np.concatenate(x, axis=p["dimension"] + 1),
    "convert_element_type": lambda p, x, *_: x.astype(p["new_dtype"]),
    "copy": lambda p, x: x,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "iota": lambda p: _broadcast_in_dim(
        {"shape": p["shape"], "broadcast_dimensions": (p["dimension"],)},
        np.arange(p["shape"][p["dimension"]], dtype=p["dtype"])[None],
    )[0],
    "and": lambda p, a, b: a & b,
    "or": lambda p, a, b: a | b,
    "xor": lambda p, a, b: a ^ b,
    "not": lambda p, a: ~a,
    "abs": lambda p, x: np.abs(x),
    "max": lambda p, a, b: np.maximum(a, b),
    "min": lambda p, a, b: np.minimum(a, b),
    "pad": _pad,
    "neg": lambda p, x: -x,
    "reduce_max": lambda p, x: x.max(axis=_axes(p["axes"])),
    "reduce_min": lambda p, x: x.min(axis=_axes(p["axes"])),
    "reduce_and": lambda p, x: x.all(axis=_axes(p["axes"])),
    "reduce_or": lambda p, x: x.any(axis=_axes(p["axes"])),
    "reshape": lambda p, x, *_: x.reshape(len(x), *p["new_sizes"]),
    "rev": lambda p, x: np.flip(x, _axes(p["dimensions"])),
    "select_n": _select_n,
    "slice": _slice,
    "squeeze": lambda p, x: x.squeeze(_axes(p["dimensions"])),
    "stack": lambda p, *x: np.stack(x, axis=p["axis"] + 1),
    "stop_gradient": lambda p, x: x,
    "transpose": lambda p, x: x.transpose(0, *_axes(p["permutation"])),
}

COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": lambda a, b: a == b,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "le": lambda a, b: a <= b,
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: a != b,
}


# --- primitives whose result is rounded


def _dot_general(p: dict[str, Any], a: Array, b: Array) -> Array:
    (a_sum, b_sum), (a_batch, b_batch) = p["dimension_numbers"]
    a_sum, b_sum, a_batch, b_batch = map(_axes, (a_sum, b_sum, a_batch, b_batch))
    a_free = [i for i in range(1, a.ndim) if i not in (*a_sum, *a_batch)]
    b_free = [i for i in range(1, b.ndim) if i not in (*b_sum, *b_batch)]
    batch = [len(a), *(a.shape[i] for i in a_batch)]
    terms = math.prod(a.shape[i] for i in a_sum)
    rows, columns = (math.prod(x.shape[i] for i in free) for x, free in ((a, a_free), (b, b_free)))
    left = a.transpose(0, *a_batch, *a_free, *a_sum).reshape(*batch, rows, terms)
    right = b.transpose(0, *b_batch, *b_sum, *b_free).reshape(*batch, terms, columns)
    out = np.matmul(left, right)
    return out.reshape(*batch, *(a.shape[i] for i in a_free), *(b.shape[i] for i in b_free))


def _logistic(_: dict[str, Any], x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _div(_: dict[str, Any], a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))  # integers round towards zero


ROUNDED: dict[str, Rule] = {
    "add": lambda p, a, b: a + b,
    "add_any": lambda p, a, b: a + b,
    "sub": lambda p, a, b: a - b,
    "mul": lambda p, a, b: a * b,
    "div": _div,
    "dot_general": _dot_general,
    "exp": lambda p, x: np.exp(x),
    "expm1": lambda p, x: np.expm1(x),
    "integer_pow": lambda p, x: x ** float(p["y"]) if x.dtype.kind == "f" else x ** p["y"],
    "log": lambda p, x: np.log(x),
    "log1p": lambda p, x: np.log1p(x),
    "logistic": _logistic,
    "pow": lambda p, a, b: a**b,
    "reduce_sum": lambda p, x: x.sum(axis=_axes(p["axes"])),
    "rsqrt": lambda p, x: 1 / np.sqrt(x),
    "sign": lambda p, x: np.sign(x),
    "sin": lambda p, x: np.sin(x),
    "cos": lambda p, x: np.cos(x),
    "sqrt": lambda p, x: np.sqrt(x),
    "square": lambda p, x: np.square(x),
    "tanh": lambda p, x: np.tanh(x),
}


# Functions such as tanh are not rounded correctly: libraries are right to one or two units in the
# last place, which is 4u. Where f′ is all rounding, saturated, a product of many of them would else
# leave any band.
FUNCTIONS = {
    *("tanh", "logistic", "exp", "exp2", "expm1", "log", "log1p", "pow", "sin", "cos", "tan"),
    *("erf", "erfc", "erf_inv", "lgamma", "digamma", "igamma", "bessel_i0e", "bessel_i1e", "cbrt"),
    *("sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "rsqrt"),
}

# Whose result may be too small for any number but 0, though no operand is 0.
VANISHING = {"exp", "exp2", "logistic", "mul", "div", "square", "integer_pow", "pow"}

# Exact for numbers of few digits.
SUMMING = {"add", "add_any", "sub", "reduce_sum"}
MULTIPLYING = {"mul", "dot_general"}

# Add up products of their operands' entries, one factor of each operand: of squares they make the
# squares of such terms, of ones where an entry is not 0 they count them.
ADDING = {
    *("reduce_sum", "dot_general", "conv_general_dilated", "cumsum", "reduce_window_sum"),
    *("scatter-add", "scatter_add"),
}

# Left to JAX, and exact: they move or choose values.
MOVED = {
    *("gather", "scatter"),
    *("sort", "top_k", "cummax", "cummin", "reduce_window_max", "reduce_window_min"),
    *("name", "optimization_barrier", "device_put"),
}
# Discrete functions of floats: exact, but on which step they stand has to be decided.
STEPPED = {"floor", "ceil", "round", "sign"}

# Infinite at finite points: an infinity from them is no overflow.
POLES = {"div", "log", "log1p", "rsqrt", "pow", "integer_pow", "atanh", "lgamma", "digamma"}
# Left to JAX, and of known rounding: these round each entry once, or add up.
KNOWN = {
    *MOVED,
    *STEPPED,
    *("erf", "erfc", "erf_inv", "lgamma", "digamma", "igamma", "bessel_i0e", "bessel_i1e"),
    *("sinh", "cosh", "tan", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2"),
    *("cbrt", "exp2", "rem", "nextafter", "is_finite", "argmax", "argmin", "population_count"),
    *("cumlogsumexp", "reduce_precision"),
}

ELEMENTWISE = {
    *COMPARE,
    *("add", "add_any", "sub", "mul", "div", "pow"),
    *("and", "or", "xor", "max", "min", "clamp", "select_n"),
}
