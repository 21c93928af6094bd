"""How far honest rounding may move each entry: stochastic arithmetic over a jaxpr.

The twin's computation (its values and its vjp) is a jaxpr. It is evaluated once in float64 as it
stands, and in the same pass `SAMPLES` more times with every floating-point operation perturbed by
a random relative amount of at most u, the unit roundoff of the dtype under test. The spread of an
entry over the samples, σ, is the scale of the error that a correct program in that dtype makes
there. What noise a sum gets, and where noise is shared: docs/tolerance.md.

NumPy evaluates the jaxpr: a fresh shape costs no compilation, and XLA is not trusted with its own
check. What NumPy has no rule for here is handed to JAX, one primitive at a time.

Every value carries cases and samples as its first axis: the samples of the first case, then those
of the second. The first sample of each case is the unperturbed run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from numpy.typing import NDArray

from bptt_verify.interpreter import Interpreter, inner, is_float, left_to_jax
from bptt_verify.noise import EVERY, Noise
from bptt_verify.primitives import (
    ADDING,
    COMPARE,
    ELEMENTWISE,
    EXACT,
    FUNCTIONS,
    KNOWN,
    MOVED,
    MULTIPLYING,
    POLES,
    ROUNDED,
    STEPPED,
    SUMMING,
    VANISHING,
    align,
)
from bptt_verify.sums import Sums
from bptt_verify.tolerance import LIBRARY

Array = NDArray[Any]

AT_HAND = 2**16
"""So many numbers are worked on in one go: what is made on the way stays in the cache."""

CANCELLED = 1e-3
"""A sum that is so much smaller than its terms may be 0 but for rounding."""


class Rounding(Interpreter):
    """One noisy evaluation of several cases; `undecided` and `peak` say how far to trust each.

    Args:
        dtype: the dtype under test.
        places: where the noise is read (`bptt_verify.noise.places`).
        margin: a comparison closer than this many σ counts as undecided.
        cases: how many cases are evaluated side by side, all of the same shapes.
        short: the inputs have few digits, so that sums and products of them may be exact: what is
            exact is not moved. Then a tie, at the kink of relu say, is one in every honest program;
            but σ is that of this very formula, and no band for another.
        follow: comparisons come out in every sample as in the unperturbed run.
        samples: the numbers of those to evaluate.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        places: Iterator[int],
        margin: float,
        *,
        cases: int = 1,
        short: bool = False,
        follow: bool = False,
        samples: Sequence[int] = EVERY,
    ) -> None:
        self.each = 1 + len(samples)
        """Rows of a case."""
        super().__init__(cases * self.each)
        self.dtype = dtype
        info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
        self.u = float(info.eps) / 2
        # Noise of the size of u would be rounded away in float64, where everything is computed:
        # there it is drawn larger, and σ is scaled back (both are small, so σ is linear in it).
        self.magnified = 16 if dtype == np.float64 else 1
        # The twin is computed in float64. Where that is the dtype under test, both sides round.
        self.unit = (math.sqrt(2) if dtype == np.float64 else 1.0) / self.magnified
        # Subnormal numbers may be taken for 0, as XLA and GPUs do, and as they come out where an
        # exponential overflows; float16 has too few numbers to do without them.
        flushed = dtype != np.float16
        self.smallest = float(info.smallest_normal if flushed else info.smallest_subnormal)
        self.margin = margin
        self.short = short
        self.follow = follow
        self.digits = round(-math.log2(self.u))
        self.cases = cases
        self.undecided = np.zeros(cases, np.bool_)
        """A comparison of floats came out within rounding of its tie (the kink of relu)."""
        self.peak = np.zeros(cases)
        """The largest magnitude met on the way."""
        self._noise = Noise(places, samples)
        self._operands: dict[int, list[Array]] = {}

    def loop(self) -> AbstractContextManager[Callable[[], None]]:
        """The steps of a loop, which share noise in some samples."""
        return self._noise.loop()

    def run(
        self, closed: ClosedJaxpr, arguments: Sequence[Array]
    ) -> list[tuple[Array, NDArray[np.float64]]]:
        """The outputs of the jaxpr, each with its σ; the first axis of all counts the cases."""
        self._sums = Sums(closed.jaxpr)
        with np.errstate(all="ignore"):  # infinities and NaN are looked at where they matter
            spread = [np.repeat(a, self.each, axis=0) for a in arguments]
            arrays = self.evaluate(closed.jaxpr, closed.consts, spread)
            return [(self.apart(a)[:, 0], self.sigma(a)) for a in arrays]

    def apart(self, x: Array) -> Array:
        """Cases and samples, which share the first axis, on axes of their own."""
        return x.reshape(self.cases, self.each, *x.shape[1:])

    def leading(self, x: Array) -> Array:
        """The first run of each case, in the place of all its samples."""
        return np.repeat(self.apart(x)[:, 0], self.each, axis=0)

    def sigma(self, x: Array) -> NDArray[np.float64]:
        """σ of each entry: the root mean square distance of the samples from the first run."""
        samples = self.apart(x)
        if x.dtype.kind != "f":
            return np.zeros((self.cases, *x.shape[1:]))
        base = samples[:, :1]
        distance = samples[:, 1:] - base
        np.abs(distance, out=distance)
        largest = distance.max(axis=1)
        if not np.isfinite(largest).all():
            distance[samples[:, 1:] == base] = 0  # infinities too
            # a sample that left the domain, of a root say: so may the subject, and no band tells
            astray = ~np.isfinite(distance) & np.isfinite(base)
            self.undecided |= self.any_entry(astray)
            distance[astray] = np.inf
            largest = distance.max(axis=1)
        small, large = largest.min(initial=1, where=largest > 0), largest.max(initial=0)
        if small < 1e-150 or large > 1e150:  # squares would leave the range
            scale = np.where((largest > 0) & np.isfinite(largest), largest, 1)
            distance /= scale[:, None]
            return largest * np.sqrt(np.mean(np.square(distance), axis=1)) * self.unit
        mean = np.mean(np.square(distance, out=distance), axis=1)
        return np.sqrt(mean, out=mean) * self.unit

    def any_entry(self, x: Array) -> NDArray[np.bool_]:
        """For each case, whether any entry is true."""
        return np.asarray(x.reshape(self.cases, -1).any(axis=1))

    def blur(
        self,
        x: Array,
        terms: NDArray[np.float64] | float = 1.0,
        exact: NDArray[np.bool_] | None = None,
        *,
        fresh: bool = False,
    ) -> Array:
        """Each sample but the first, moved relatively by up to u times √terms; zeros stay.

        So do the cases that are exact. A fresh array, which nobody else holds, is overwritten.
        """
        rows = self.apart(x)
        base = rows[:, 0]
        size = np.abs(base).reshape(self.cases, -1)
        self._note_peak(size)
        reach = self.magnified * self.u * np.sqrt(terms)
        if np.ndim(reach) and (reach == reach[0]).all():
            reach = reach[0]
        # no case looks at another, so they may share the noise
        noise = self._noise(rows.shape[1:])
        if np.ndim(reach):
            moved = noise * reach.reshape(self.cases, *(1,) * x.ndim)
        else:
            moved = (noise * reach)[None]
        tiny = (size < self.smallest / self.u) & (size > 0)
        some = tiny.any()
        if some:  # gradual underflow: the error there is absolute
            tiny = tiny.reshape(base.shape)
            absolute = np.moveaxis(np.broadcast_to(moved, rows.shape), 1, -1)[tiny]
        moved += 1
        kept = rows[exact] if exact is not None and exact.any() else None
        into = rows if fresh else moved if len(moved) == len(rows) else None
        out: Array = np.multiply(moved, rows, out=into)
        if some:
            np.moveaxis(out, 1, -1)[tiny] += absolute * (self.smallest / self.u)
        if kept is not None:
            out[exact] = kept
        return out.reshape(x.shape)

    def _blur_sums(
        self,
        x: Array,
        terms: NDArray[np.float64],
        summed: Sequence[Array],
        exact: NDArray[np.bool_] | None,
    ) -> Array:
        """Each sample but the first of these sums, moved by up to u times √terms of their size.

        Of their own and of that of their terms, the root of all squares: what a sum in any order
        rounds on its way is as large as its terms, however small the sum, and is different in every
        sum, also of the same numbers. The array, which nobody else holds, is overwritten.

        `summed` has the same root as the terms: the two terms of each sample, or for all samples
        of a case what its first run has.
        """
        rows = self.apart(x)
        root = _root_of_squares(*(a[:, :1] for a in summed))[:, 0]
        # no partial sum is larger than √terms root
        self._note_peak(np.sqrt(terms)[:, None] * root.reshape(self.cases, -1))
        unit = self.magnified * self.u * np.sqrt(terms)
        if exact is not None:
            unit = np.where(exact, 0, unit)
        noise = self._noise(rows.shape[1:])
        if same := (unit == unit[0]).all():
            noise *= unit[0]
        each = max(1, AT_HAND // max(1, noise.size))
        for start in range(0, self.cases, each):
            part = slice(start, start + each)
            sums = rows[part]
            reach = self._reach(sums, [a[part] for a in summed])
            if not same:
                reach *= unit[part].reshape(-1, *(1,) * (reach.ndim - 1))
            sums += np.multiply(noise, reach, out=reach if reach.shape == sums.shape else None)
        self._move_zeros(rows, rows, root)
        return rows.reshape(x.shape)

    def _reach(self, sums: Array, summed: Sequence[Array]) -> Array:
        """How large the sums and their terms are together, in all samples or for all of them."""
        reach = _root_of_squares(sums[:, : summed[0].shape[1]], *summed)
        first = reach[:, 0]
        tiny = (first < self.smallest / self.u) & (first > 0)
        if tiny.any():  # gradual underflow: the error there is absolute
            reach += np.where(tiny, self.smallest / self.u, 0)[:, None]
        if not np.isfinite(first).all():
            reach[~np.isfinite(reach)] = 0  # an infinity stays
        return reach

    def _move_zeros(self, rows: Array, sums: Array, root: NDArray[np.float64]) -> None:
        """Where a sum may be 0 but for rounding, rows move as far as it is off, in their own way.

        The subject may know that such a sum is 0, of deviations from a mean say, and leave it out;
        then its roundings do not cancel those of its terms.
        """
        small = (np.abs(sums[:, 0]) <= CANCELLED * root) & (root > 0)
        some = self.any_entry(small)
        if not some.any():
            return
        chosen = sums[some]
        off = chosen - chosen[:, :1]
        sigma = np.sqrt(np.mean(np.square(off[:, 1:]), axis=1)) * self.unit
        zero = np.abs(chosen[:, 0]) <= self.margin * sigma
        if zero.any():
            own = math.sqrt(3) * self._noise.alone(rows.shape[1:])
            rows[some] += np.where(zero[:, None], (own - 1) * off, 0)

    def _move_part_by_part(
        self, rows: Array, eqn: Any, evaluate: Callable[[list[Array]], list[Array]]
    ) -> None:
        """The sum of p + q may be that of p and that of q, of which one is 0 but for rounding."""
        for part in self._sums.parts.get(id(eqn), ()):
            x = self._operands[id(part.sum)][part.operand]
            for between in part.way:
                name, p = between.primitive.name, between.params
                x = EXACT[name](p, x)
            (sums,), (squares,) = evaluate([x]), evaluate([np.square(self.apart(x)[:, 0])])
            self._move_zeros(rows, self.apart(sums), np.sqrt(squares))

    def _note_peak(self, size: NDArray[np.float64]) -> None:
        highest = size.max(axis=1, initial=0)
        if not np.isfinite(highest).all():
            highest = size.max(axis=1, initial=0, where=size < np.inf)
        np.maximum(self.peak, highest, out=self.peak)

    def _exact(
        self, name: str, x: Sequence[Array], terms: NDArray[np.float64] | None
    ) -> NDArray[np.bool_] | None:
        """The cases in which this operation rounds nothing, in whatever order it adds."""
        if not self.short or name not in SUMMING | MULTIPLYING:
            return None
        step = self.digits // 2 if name in SUMMING else self.digits // 4
        found = np.ones(self.cases, np.bool_)
        sizes = []
        for a in x:
            samples = self.apart(np.asarray(a, np.float64))
            base = samples[:, 0]
            digits = base * 2.0**step
            found &= ~self.any_entry(samples != samples[:, :1])
            found &= ~self.any_entry(digits != np.rint(digits))
            sizes.append(np.abs(base).reshape(self.cases, -1).max(axis=1, initial=0))
        size = np.prod(sizes, axis=0) if name in MULTIPLYING else np.sum(sizes, axis=0)
        terms = np.ones(self.cases) if terms is None else terms
        return np.asarray(found & (size * terms * 2.0 ** (self.digits // 2) <= 2.0**self.digits))

    def constant(self, value: Any) -> Array:
        """The same value in every row; one that the dtype does not have, 0.1, is rounded to it."""
        a = np.asarray(value)
        x = self.spread(a)
        if a.dtype.kind != "f":
            return x
        with np.errstate(all="ignore"):
            kept = a.astype(self.dtype).astype(np.float64)
        # float64 is the dtype of the twin too: its constants are what they are
        rounded = np.isfinite(kept) & (kept != a)
        return np.where(rounded, self.blur(x), x) if rounded.any() else x

    def primitive(self, eqn: Any, x: list[Array]) -> list[Array]:
        """What the primitive does to each sample, and its rounding."""
        name, p = eqn.primitive.name, eqn.params
        if name in ELEMENTWISE:
            x = align(x)
        if name in EXACT:
            moved = EXACT[name](p, *x)
            if not x:  # made from nothing: the same everywhere
                return [self.spread(moved)]
            return [moved if moved.dtype.kind == "f" else self.decide(moved, x)]
        if name in COMPARE:
            if self.follow:
                return [self.leading(COMPARE[name](*x))]
            self._margin(*x)
            return [COMPARE[name](*x)]
        if id(eqn) in self._sums.increments:
            at, steps = self._sums.increments[id(eqn)]
            x = list(x)
            x[at] = self.blur(x[at], np.full(self.cases, float(steps)))
        rule = ROUNDED.get(name)

        def evaluate(x: list[Array]) -> list[Array]:
            rows = len(x[0]) if x else self.rows
            return [rule(p, *x)] if rule else left_to_jax(eqn, x, rows)

        terms, summed = self._terms(name, p, x, evaluate)
        if id(eqn) in self._sums.chained and x[0].dtype.kind == "f":
            # one of several sums in a row, which the subject may make in another order; each sample
            # has its own: terms that are 0 but for rounding may cancel
            terms, summed = np.ones(self.cases), [*map(self.apart, np.broadcast_arrays(*x))]
        if terms is not None:
            terms = terms * self._sums.steps.get(id(eqn), 1)
        exact = self._exact(name, x, terms)
        if terms is not None and not summed:
            x = [self.blur(a, terms, exact) if a.dtype.kind == "f" else a for a in x]
        out = evaluate(x)
        if id(eqn) in self._sums.taken_apart:
            self._operands[id(eqn)] = [np.broadcast_to(a, out[0].shape) for a in x]
        if not self._finite(out).all():
            self.peak[self._overflows(name, x, out)] = math.inf
        if summed and terms is not None:
            sums = self._blur_sums(out[0], terms, summed, exact)
            self._move_part_by_part(self.apart(sums), eqn, evaluate)
            return [sums]
        rounded = [self._rounded(name, a, x, terms, exact) for a in out]
        if rule and name in FUNCTIONS and len(x) == 1:
            self._decide_bend(partial(rule, p), x[0])
        return rounded

    def _decide_bend(self, function: Callable[[Array], Array], x: Array) -> None:
        """A function is decided where, within the band of its argument, it is nearly a line.

        Else a few samples do not show how far an honest program may come: the slope of tanh at
        20 ± 5 is 0 in all of them, and not where the argument is 2. Nearly: no quarter of the band
        is twice as steep as another, or the difference is within the rounding of the function.
        """
        # in float64 the points must be farther apart than float64 itself rounds them
        reach, at = self.margin * self.magnified * self.sigma(x), self.apart(x)[:, 0]
        values = [function(at + k / 2 * reach) for k in (-2, -1, 0, 1, 2)]
        rises = np.abs(np.diff(np.stack(values), axis=0))
        steepest = rises.max(axis=0)
        bent = (steepest > 2 * rises.min(axis=0)) | ~np.isfinite(steepest)
        noise = self.margin * LIBRARY * self.u * np.abs(values[2])
        self.undecided |= self.any_entry(bent & ~(steepest <= noise) & np.isfinite(at + reach))

    def _terms(
        self,
        name: str,
        p: dict[str, Any],
        x: list[Array],
        evaluate: Callable[[list[Array]], list[Array]],
    ) -> tuple[NDArray[np.float64] | None, list[Array]]:
        """How many terms a sum has at most, in each case; and the root of its squared terms.

        Zeros do not count: they are added without rounding. The root, for each sum in the first run
        of a case, where it is known which terms it has.
        """
        if all(a.dtype.kind != "f" for a in x):
            return None, []
        if name in ADDING:
            base = [self.apart(a)[:, 0] for a in x]

            def of(made: Callable[[Array], Array]) -> Array:
                return evaluate([made(a) if a.dtype.kind == "f" else a for a in base])[0]

            counts = of(lambda a: (a != 0).astype(np.float64))
            root = np.sqrt(of(np.square))
            astray = (counts > 0) & ~((root > 1e-140) & (root < np.inf))
            if astray.any():  # squares left the range; the magnitudes add up to no less
                root[astray] = of(np.abs)[astray]
            return counts.reshape(self.cases, -1).max(axis=1, initial=1), [root[:, None]]
        if name == "cumlogsumexp":
            most = float(x[0].shape[p["axis"] + 1])
        elif name in ROUNDED or name in KNOWN:
            return None, []
        else:  # nothing is known of it: at most, every entry of its operands enters one sum
            most = float(max((a[0].size for a in x), default=1))
        return np.full(self.cases, most), []

    def _rounded(
        self,
        name: str,
        out: Array,
        x: list[Array],
        terms: NDArray[np.float64] | None,
        exact: NDArray[np.bool_] | None,
    ) -> Array:
        if out.dtype.kind != "f" or name in STEPPED:
            return self.decide(out, x)
        if name in VANISHING and self.dtype == np.float64:
            out = self._vanished(out, x)
        if name in MOVED:
            return out
        if name in FUNCTIONS:
            return self.blur(out, LIBRARY**2, exact, fresh=True)
        return self.blur(out, 1.0 if terms is None else terms, exact, fresh=True)

    def _vanished(self, out: Array, x: list[Array]) -> Array:
        """A result that is 0 because it is too small for float64 may be a subnormal elsewhere."""
        rows = self.apart(out)
        gone = rows[:, 0] == 0
        for a in x:
            # exp(-∞) and 0 times anything are 0
            gone = gone & (self.apart(a)[:, 0] != 0) & np.isfinite(self.apart(a)[:, 0])
        if not gone.any():
            return out
        # of one operand every result is positive, but for odd powers
        signs = [np.sign(a) for a in x] if len(x) > 1 else [np.ones(1)]
        some = np.abs(self._noise(rows.shape[1:])) * self.magnified * self.smallest
        some = some * self.apart(np.broadcast_to(math.prod(signs), out.shape))
        return (rows + np.where(gone[:, None], some, 0)).reshape(out.shape)

    def _margin(self, a: Array, b: Array) -> None:
        """A comparison is decided when its operands differ by more than their spread."""
        if a.dtype.kind == "f":
            difference = a - b
            finite = np.isfinite(self.apart(difference)).all(axis=1)  # an infinity is near nothing
            difference = np.where(np.repeat(finite, self.each, axis=0), difference, 1)
            sigma = self.sigma(difference)
            close = (np.abs(self.apart(difference)[:, 0]) <= self.margin * sigma) & (sigma > 0)
            self.undecided |= self.any_entry(close)

    def decide(self, out: Array, x: Sequence[Array]) -> Array:
        """A discrete result of floats is decided when every sample agrees on it."""
        if self.follow:
            return self.leading(out)
        if any(a.dtype.kind == "f" for a in x):
            samples = self.apart(out)
            self.undecided |= self.any_entry(samples != samples[:, :1])
        return out

    def _overflows(self, name: str, x: list[Array], out: list[Array]) -> NDArray[np.bool_]:
        """For each case, whether it left the range here: infinities put in, and poles, are none."""
        if name not in POLES:
            return self._finite(x) & ~self._finite(out)
        at = x[1] if name == "div" else x[0]
        ordinary = np.logical_and.reduce(np.broadcast_arrays(*map(np.isfinite, x)))
        beyond = ~np.isfinite(out[0]) & ordinary & ~np.isin(at, (-1, 0, 1))
        return self.any_entry(self.apart(beyond)[:, 0])

    def _finite(self, x: Sequence[Array]) -> NDArray[np.bool_]:
        """For each case, whether its first run is finite."""
        finite = np.ones(self.cases, np.bool_)
        for a in x:
            if a.dtype.kind == "f" and not (entries := np.isfinite(self.apart(a)[:, 0])).all():
                finite &= ~self.any_entry(~entries)
        return finite


def _root_of_squares(*x: Array) -> Array:
    """√(a² + b² + ...) for cases and samples, which have the first two axes.

    By `np.hypot`, which is many times slower, only where squares leave the range in the first run.
    """
    root = np.square(x[0])
    for a in x[1:]:
        root += np.square(a)
    np.sqrt(root, out=root)
    first = root[:, 0]
    astray = ~((first > 1e-140) & (first < np.inf))
    if astray.any():
        astray &= np.logical_or.reduce([a[:, 0] != 0 for a in x])
        if astray.any():
            root = np.where(astray[:, None], reduce(np.hypot, x), root)
    return root


def decides(jaxpr: Jaxpr) -> bool:
    """Whether anything discrete is made of floats, a comparison say: only there can be a tie."""
    for eqn in jaxpr.eqns:
        called = inner(eqn)
        if any(decides(within.jaxpr) for within in called):
            return True
        if called or not any(map(is_float, eqn.invars)):
            continue
        if eqn.primitive.name in STEPPED or not all(map(is_float, eqn.outvars)):
            return True
    return False


def check_numbers(jaxpr: Jaxpr) -> None:
    """Raise `ValueError` for numbers whose rounding is not modelled: all floats are float64."""
    for eqn in jaxpr.eqns:
        for var in (*eqn.invars, *eqn.outvars):
            dtype = getattr(var.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended):
                raise ValueError(
                    f"{eqn.primitive.name} draws random numbers; expected none "
                    "(make them an input, which subject and twin share)"
                )
            if dtype is not None and not _modelled(dtype):
                raise ValueError(
                    f"{eqn.primitive.name} works in {dtype}; expected float64 throughout "
                    "(arrays made outside the twin may be float32: make them inside)"
                )
        for value in eqn.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                within = getattr(part, "jaxpr", part)
                if isinstance(within, Jaxpr):
                    check_numbers(within)


def _modelled(dtype: Any) -> bool:
    return getattr(dtype, "kind", "") in "iub" or dtype == np.float64
