"""How far honest rounding may move each entry: stochastic arithmetic over a jaxpr.

The twin's computation (its values and its vjp) is a jaxpr. It is evaluated once in float64 as it
stands, and in the same pass `SAMPLES` more times with every floating-point operation perturbed by
a random relative amount of at most u, the unit roundoff of the dtype under test. The spread of an
entry over the samples, σ, is the scale of the error that a correct program in that dtype makes
there. A sum over k terms gets √k of the noise: the subject may add them in any order.

NumPy evaluates the jaxpr: a fresh shape costs no compilation, and XLA is not trusted with its own
check. What NumPy has no rule for here is handed to JAX, one primitive at a time.

Every value carries the samples as its first axis; entry 0 there is the unperturbed run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core as jax_core
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from numpy.typing import NDArray

from bptt_verify.primitives import (
    COMPARE,
    ELEMENTWISE,
    EXACT,
    KNOWN,
    MOVED,
    POLES,
    ROUNDED,
    SAMPLES,
    STEPPED,
    TERMS,
    align,
    sampled,
)

Array = NDArray[Any]


class Rounding:
    """One noisy evaluation; after it, `undecided` and `peak` say how far it can be trusted.

    Args:
        dtype: the dtype under test.
        rng: where the noise comes from.
        margin: a comparison closer than this many σ counts as undecided.
        flushes: subnormal numbers may be taken for 0, as XLA does.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        margin: float,
        *,
        flushes: bool = False,
    ) -> None:
        info = np.finfo(dtype)
        self.u = float(info.eps) / 2
        # Noise of the size of u would be rounded away in float64, where everything is computed:
        # there it is drawn larger, and σ is scaled back (both are small, so σ is linear in it).
        self.magnified = 16 if dtype == np.float64 else 1
        self.smallest = float(info.smallest_normal if flushes else info.smallest_subnormal)
        self.rng = rng
        self.margin = margin
        self.undecided = False
        """A comparison of floats came out within rounding of its tie (the kink of relu)."""
        self.peak = 0.0
        """The largest magnitude met on the way."""

    def run(
        self, closed: ClosedJaxpr, arguments: Sequence[Array]
    ) -> list[tuple[Array, NDArray[np.float64]]]:
        """The outputs of the jaxpr, each with its σ."""
        with np.errstate(all="ignore"):  # infinities and NaN are looked at where they matter
            arrays = self._jaxpr(closed.jaxpr, closed.consts, [sampled(a) for a in arguments])
            return [(a[0], self.sigma(a)) for a in arrays]

    def sigma(self, samples: Array) -> NDArray[np.float64]:
        """σ of each entry: the root mean square distance of the samples from the first run."""
        if samples.dtype.kind != "f":
            return np.zeros(samples.shape[1:])
        distance = np.abs(samples[1:] - samples[:1])
        distance[samples[1:] == samples[:1]] = 0  # infinities too
        # a sample that left the domain, of a root say: so may the subject, and no band tells
        astray = ~np.isfinite(distance) & np.isfinite(samples[:1])
        self.undecided |= bool(astray.any())
        distance[astray] = np.inf
        largest = distance.max(axis=0)
        # squares of tiny distances would underflow
        scale = np.where((largest > 0) & np.isfinite(largest), largest, 1)
        return largest * np.sqrt(np.mean(np.square(distance / scale), axis=0)) / self.magnified

    def blur(self, x: Array, terms: int = 1) -> Array:
        """Each sample but the first, moved relatively by up to u times √terms; zeros stay."""
        noise = self.rng.random(x.shape)  # uniform: bounded away from 0, two could only cancel
        noise -= 0.5
        noise *= 2 * self.magnified * math.sqrt(terms)
        noise[0] = 0
        size = np.abs(x)
        finite = np.isfinite(size)
        self.peak = max(self.peak, float(size.max(initial=0, where=finite)))
        tiny = (size < self.smallest / self.u) & (x != 0)
        out: Array = np.where(finite, x + self.u * noise * x, x)
        if tiny.any():  # gradual underflow: the error there is absolute
            out += np.where(tiny, noise * self.smallest, 0)
        return out

    def _jaxpr(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: list[Array]) -> list[Array]:
        needed, last_use = _liveness(jaxpr)
        values: dict[Var, Array] = dict(zip(jaxpr.invars, arguments, strict=True))
        values.update(zip(jaxpr.constvars, map(sampled, consts), strict=True))

        def read(atom: Var | Literal) -> Array:
            return sampled(atom.val) if isinstance(atom, Literal) else values[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            if not needed[i]:
                continue  # what nothing depends on must not decide anything
            results = self._equation(eqn, [read(atom) for atom in eqn.invars])
            for var, result in zip(eqn.outvars, results, strict=True):
                declared: Any = var.aval
                values[var] = result.astype(declared.dtype, copy=False)
            for atom in (*eqn.invars, *eqn.outvars):
                if isinstance(atom, Var) and last_use.get(atom, i) == i:
                    values.pop(atom, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, x: list[Array]) -> list[Array]:
        name, p = eqn.primitive.name, eqn.params
        if name in ELEMENTWISE:
            x = align(x)
        if name in CALLS:
            inner = p[CALLS[name]]
            consts = inner.consts if isinstance(inner, ClosedJaxpr) else ()
            return self._jaxpr(getattr(inner, "jaxpr", inner), consts, x)
        if name in SEVERAL:
            return SEVERAL[name](self, p, x)
        if name in EXACT:
            moved = EXACT[name](p, *x)
            return [moved if moved.dtype.kind == "f" else self._decide(moved, x)]
        if name in COMPARE:
            self._margin(*x)
            return [COMPARE[name](*x)]
        terms = TERMS[name](p, *x) if name in TERMS else 1
        if name not in ROUNDED and name not in KNOWN:
            # nothing is known of it: at most, every entry of its operands enters one sum
            terms = max((a[0].size for a in x), default=1)
        if terms > 1:
            x = [self.blur(a, terms) if a.dtype.kind == "f" else a for a in x]
        rule = ROUNDED.get(name)
        out = [rule(p, *x)] if rule else _one_by_one(eqn, x)
        if name not in POLES and _finite(x) and not _finite(out):
            self.peak = math.inf  # it overflowed here; infinities that were put in are no overflow
        return [self._rounded(name, a, x, terms) for a in out]

    def _rounded(self, name: str, out: Array, x: list[Array], terms: int) -> Array:
        if out.dtype.kind != "f" or name in STEPPED:
            return self._decide(out, x)
        return out if name in MOVED else self.blur(out, terms)

    def _margin(self, a: Array, b: Array) -> None:
        """A comparison is decided when its operands differ by more than their spread."""
        if a.dtype.kind == "f":
            difference = a - b
            finite = np.isfinite(difference).all(axis=0)  # an infinity is not near anything
            difference = np.where(finite, difference, 1)
            sigma = self.sigma(difference)
            close = (np.abs(difference[0]) <= self.margin * sigma) & (sigma > 0)
            self.undecided |= bool(close.any())

    def _decide(self, out: Array, x: list[Array]) -> Array:
        """A discrete result of floats is decided when every sample agrees on it."""
        if any(a.dtype.kind == "f" for a in x):
            self.undecided |= bool((out != out[:1]).any())
        return out


def _finite(x: Sequence[Array]) -> bool:
    return all(a.dtype.kind != "f" or bool(np.isfinite(a[0]).all()) for a in x)


def _liveness(jaxpr: Jaxpr) -> tuple[list[bool], dict[Var, int]]:
    """Which equations the results depend on, and the last such equation to read each value."""
    last = {atom: len(jaxpr.eqns) for atom in jaxpr.outvars if isinstance(atom, Var)}
    needed = [False] * len(jaxpr.eqns)
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        needed[i] = any(var in last for var in eqn.outvars)
        if needed[i]:
            for atom in eqn.invars:
                if isinstance(atom, Var):
                    last.setdefault(atom, i)
    return needed, last


def _one_by_one(eqn: Any, x: list[Array]) -> list[Array]:
    """A primitive without a rule here, evaluated by JAX for each sample."""
    runs = []
    for sample in zip(*x, strict=True) if x else [()] * (SAMPLES + 1):
        out = eqn.primitive.bind(*sample, **eqn.params)
        runs.append(out if eqn.primitive.multiple_results else [out])
    return [np.stack([np.asarray(a) for a in column]) for column in zip(*runs, strict=True)]


def check_numbers(jaxpr: Jaxpr) -> None:
    """Raise `ValueError` for numbers whose rounding is not modelled: all floats are float64."""
    for eqn in jaxpr.eqns:
        for var in (*eqn.invars, *eqn.outvars):
            dtype = getattr(var.aval, "dtype", None)
            if dtype is not None and not _modelled(dtype):
                raise ValueError(
                    f"{eqn.primitive.name} works in {dtype}; expected float64 throughout "
                    "(arrays made outside the twin may be float32: make them inside)"
                )
        for inner in jax_core.jaxprs_in_params(eqn.params):
            check_numbers(inner)


def _modelled(dtype: Any) -> bool:
    return getattr(dtype, "kind", "") in "iub" or dtype == np.float64


# --- calls, control flow, split

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
}


def _scan(r: Rounding, p: dict[str, Any], x: list[Array]) -> list[Array]:
    n, m = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, carry, xs = x[:n], x[n:m], x[m:]
    steps = range(p["length"])
    rows: list[list[Array]] = []
    for t in reversed(steps) if p["reverse"] else steps:
        now = [a[:, t] for a in xs]
        out = r._jaxpr(p["jaxpr"].jaxpr, p["jaxpr"].consts, [*consts, *carry, *now])
        carry = out[: len(carry)]
        rows.append(out[len(carry) :])
    if p["reverse"]:
        rows.reverse()
    if not rows:
        shapes = [v.aval for v in p["jaxpr"].jaxpr.outvars[len(carry) :]]
        return [*carry, *(np.zeros((SAMPLES + 1, 0, *a.shape), a.dtype) for a in shapes)]
    return [*carry, *(np.stack(column, axis=1) for column in zip(*rows, strict=True))]


def _while(r: Rounding, p: dict[str, Any], x: list[Array]) -> list[Array]:
    n, m = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    test, body, carry = x[:n], x[n:m], x[m:]
    while True:
        (go,) = r._jaxpr(p["cond_jaxpr"].jaxpr, p["cond_jaxpr"].consts, [*test, *carry])
        r._decide(go, carry)
        if not go[0].any():
            return carry
        new = r._jaxpr(p["body_jaxpr"].jaxpr, p["body_jaxpr"].consts, [*body, *carry])
        # mapped over a batch, each entry stops by itself
        carry = [
            np.where(go[0].reshape(go[0].shape + (1,) * (a.ndim - 1 - go[0].ndim)), a, old)
            for a, old in zip(new, carry, strict=True)
        ]


def _cond(r: Rounding, p: dict[str, Any], x: list[Array]) -> list[Array]:
    index, *rest = x
    r._decide(index, rest)
    branch = p["branches"][int(np.clip(index[0], 0, len(p["branches"]) - 1))]
    return r._jaxpr(branch.jaxpr, branch.consts, rest)


def _split(_: Rounding, p: dict[str, Any], x: list[Array]) -> list[Array]:
    return np.split(x[0], np.cumsum(p["sizes"])[:-1], axis=p["axis"] + 1)


SEVERAL: dict[str, Callable[..., list[Array]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "split": _split,
}
"""Primitives with several results: control flow, whose body is a jaxpr of its own, and split."""
