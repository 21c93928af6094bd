"""A jaxpr evaluated to 60 digits: mpmath's numbers in NumPy's object arrays.

Every value carries, as its first axis, the points at which the function is evaluated, where those
of `bptt_verify.rounding` carry samples: what moves or compares values, and control flow, follow the
same rules here as there. Whole numbers and booleans stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import mpmath
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from numpy.typing import NDArray

from bptt_verify.primitives import COMPARE, ELEMENTWISE, EXACT, ROUNDED, Rule, align
from bptt_verify.rounding import CALLS, SEVERAL, _liveness, _one_by_one

Array = NDArray[Any]

DIGITS = 60
MP: Any = mpmath.MPContext()  # a context of its own: nobody else's precision is changed
MP.dps = DIGITS

numbers = np.frompyfunc(MP.mpf, 1, 1)
"""Floats as mpmath's numbers, exactly."""


class AbstainError(Exception):
    """There is no value to be had, for the reason it gives."""


class Precise:
    """One evaluation, at so many points at once."""

    def __init__(self, points: int) -> None:
        self.points = points

    def run(self, closed: ClosedJaxpr, arguments: Sequence[Array]) -> list[Array]:
        """The outputs of the jaxpr; arguments and outputs have the points as first axis.

        Raises `AbstainError` for a primitive without a rule, and where the points would take
        different branches.
        """
        with jax.enable_x64(True):
            return self._jaxpr(closed.jaxpr, closed.consts, list(arguments))

    def spread(self, value: Any) -> Array:
        """The same value at every point."""
        a = np.asarray(value)
        return _cast(np.broadcast_to(a, (self.points, *a.shape)), a.dtype)

    def _jaxpr(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: list[Array]) -> list[Array]:
        needed, _ = _liveness(jaxpr)
        values: dict[Var, Array] = dict(zip(jaxpr.invars, arguments, strict=True))
        values.update(zip(jaxpr.constvars, map(self.spread, consts), strict=True))

        def read(atom: Var | Literal) -> Array:
            return self.spread(atom.val) if isinstance(atom, Literal) else values[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            if needed[i]:
                results = self._equation(eqn, [read(atom) for atom in eqn.invars])
                for var, result in zip(eqn.outvars, results, strict=True):
                    declared: Any = var.aval
                    values[var] = _cast(result, declared.dtype)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, x: list[Array]) -> list[Array]:
        name, p = eqn.primitive.name, eqn.params
        if name in CALLS:
            inner = p[CALLS[name]]
            consts = inner.consts if isinstance(inner, ClosedJaxpr) else ()
            return self._jaxpr(getattr(inner, "jaxpr", inner), consts, x)
        if name in SEVERAL:
            return SEVERAL[name](self, p, x)
        if not x:
            return [self.spread(eqn.primitive.bind(**p))]
        if name in ELEMENTWISE:
            x = align(x)
        if not any(a.dtype == object for a in x):
            return [WHOLE[name](p, *x)] if name in WHOLE else _one_by_one(eqn, x, self.points)
        if name in RULES:
            return [RULES[name](p, *x)]
        if name in MOVED and p.get("fill_value") is None:
            return [_moved(eqn, x)]
        raise AbstainError(f"no rule for {name}")

    def note_sums(self, *_: Any) -> None:
        """Of no concern: nothing is rounded here."""

    def leading(self, x: Array) -> Array:
        """What decides for each point: the point itself."""
        return x

    def _decide(self, out: Array, _: list[Array]) -> None:
        """Control flow, which calls this, goes one way: the points have to agree on it."""
        if (out != out[:1]).any():
            raise AbstainError("the step of the difference straddles a branch")


def _cast(a: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind != "f":
        return a.astype(dtype, copy=False)
    return a if a.dtype == object else numbers(a)


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
    "convert_element_type": lambda p, x: x,  # to whole numbers is `_cast`'s business
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

MOVED = {"gather", "dynamic_slice", "dynamic_update_slice", "scatter"}


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
