"""A jaxpr evaluated to 60 digits: mpmath's numbers in NumPy's object arrays.

Every value carries, as its first axis, the points at which the function is evaluated, where those
of `bptt_verify.rounding` carry samples: what moves or compares values follows the same rules
here as there. Whole numbers and booleans stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import mpmath
import numpy as np
from jax.extend.core import ClosedJaxpr
from numpy.typing import NDArray

from bptt_verify.interpreter import Interpreter, left_to_jax
from bptt_verify.primitives import COMPARE, ELEMENTWISE, EXACT, ROUNDED, Rule, align

Array = NDArray[Any]

DIGITS = 60
MP: Any = mpmath.MPContext()  # a context of its own: nobody else's precision is changed
MP.dps = DIGITS

numbers = np.frompyfunc(MP.mpf, 1, 1)
"""Floats as mpmath's numbers, exactly."""


class AbstainError(Exception):
    """There is no value to be had, for the reason it gives."""


class Precise(Interpreter):
    """One evaluation, at so many points at once."""

    def run(self, closed: ClosedJaxpr, arguments: Sequence[Array]) -> list[Array]:
        """The outputs of the jaxpr; arguments and outputs have the points as first axis.

        Raises `AbstainError` for a primitive without a rule, and where the points would take
        different branches.
        """
        with jax.enable_x64(True):
            return self.evaluate(closed.jaxpr, closed.consts, arguments)

    def spread(self, value: Any) -> Array:
        """The same value at every point."""
        a = np.asarray(value)
        return self.cast(super().spread(a), a.dtype)

    def cast(self, a: Array, dtype: np.dtype[Any]) -> Array:
        """Floats as mpmath's numbers."""
        if dtype.kind != "f":
            return super().cast(a, dtype)
        return a if a.dtype == object else numbers(a)

    def primitive(self, eqn: Any, x: list[Array]) -> list[Array]:
        """What the primitive does at each point."""
        name, p = eqn.primitive.name, eqn.params
        if not x:
            return [self.spread(eqn.primitive.bind(**p))]
        if name in ELEMENTWISE:
            x = align(x)
        if not any(a.dtype == object for a in x):
            return [WHOLE[name](p, *x)] if name in WHOLE else left_to_jax(eqn, x, self.rows)
        if name in RULES:
            return [RULES[name](p, *x)]
        if name in MOVED and p.get("fill_value") is None:
            return [_moved(eqn, x)]
        raise AbstainError(f"no rule for {name}")

    def leading(self, x: Array) -> Array:
        """What decides for each point: the point itself."""
        return x

    def decide(self, out: Array, x: Sequence[Array]) -> Array:
        """Control flow, which calls this, goes one way: the points have to agree on it."""
        if (out != out[:1]).any():
            raise AbstainError("the step of the difference straddles a branch")
        return out


# --- the rules: those of `primitives`, but for what they do to floats


def _each(f: Callable[..., Any]) -> Rule:
    """The real function on every entry; NaN where it has no real value."""

    def entry(*x: Any) -> Any:
        try:
            y = f(*x)
        except (ZeroDivisionError, ValueError):
            return MP.nan
        return y if isinstance(y, MP.mpf) else MP.nan

    return lambda p, *x: np.frompyfunc(entry, len(x), 1)(*x)


def _divide(a: Any, b: Any) -> Any:
    """a / b, infinite at a pole as in floating point."""
    return a / b if b else a * MP.inf


def _integer_pow(p: dict[str, Any], x: Array) -> Array:
    y = p["y"]
    return _each(lambda a: a**y if y >= 0 else _divide(MP.one, a**-y))(p, x)


def _cumulative(f: np.ufunc) -> Rule:
    def along(p: dict[str, Any], x: Array) -> Array:
        axis = p["axis"] + 1
        if p["reverse"]:
            return np.flip(f.accumulate(np.flip(x, axis), axis), axis)
        return f.accumulate(x, axis)

    return along


_COMPARE: dict[str, Rule] = {n: lambda p, a, b, f=f: f(a, b) for n, f in COMPARE.items()}

WHOLE: dict[str, Rule] = {**EXACT, **ROUNDED, **_COMPARE}

RULES: dict[str, Rule] = {
    **EXACT,
    **_COMPARE,
    **{n: ROUNDED[n] for n in ("add", "add_any", "sub", "mul", "dot_general", "reduce_sum")},
    # by mpmath's function of the same name
    **{n: _each(getattr(MP, n)) for n in ("exp", "expm1", "log", "log1p", "sqrt", "erf", "erfc")},
    **{n: _each(getattr(MP, n)) for n in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2")},
    **{n: _each(getattr(MP, n)) for n in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    **{n: _each(getattr(MP, n)) for n in ("floor", "ceil", "sign")},
    "convert_element_type": lambda p, x: x,  # to whole numbers is `cast`'s business
    "cumprod": _cumulative(np.multiply),
    "cumsum": _cumulative(np.add),
    "cummax": _cumulative(np.maximum),
    "cummin": _cumulative(np.minimum),
    "div": _each(_divide),
    "exp2": _each(lambda x: MP.mpf(2) ** x),
    "integer_pow": _integer_pow,
    "is_finite": lambda p, x: np.frompyfunc(MP.isfinite, 1, 1)(x),
    "logistic": _each(lambda x: 1 / (1 + MP.exp(-x))),
    "pow": _each(lambda a, b: a**b),
    "reduce_prod": lambda p, x: x.prod(axis=tuple(a + 1 for a in p["axes"])),
    "rsqrt": _each(lambda x: _divide(MP.one, MP.sqrt(x))),
    "square": lambda p, x: x * x,
}

MOVED = {"gather", "scatter"}


def _moved(eqn: Any, x: list[Array]) -> Array:
    """JAX moves the places of the values, and the values follow."""
    results = []
    for i in range(len(x[0])):
        pool = np.array([MP.nan])  # at place 0, for what is out of bounds
        places = []
        for a in x:
            now = a[i, ...]  # an array, also when it is a scalar
            if a.dtype == object:
                now = np.arange(len(pool), len(pool) + now.size, dtype=float).reshape(now.shape)
                pool = np.append(pool, a[i, ...])
            places.append(now)
        moved = np.asarray(eqn.primitive.bind(*places, **eqn.params))
        results.append(pool[np.nan_to_num(moved).astype(int)])
    return np.stack(results)
