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
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from numpy.typing import NDArray

Array = NDArray[Any]

SAMPLES = 16


class Rounding:
    """One noisy evaluation; after it, `undecided` and `peak` say how far it can be trusted.

    Args:
        dtype: the dtype under test.
        rng: where the noise comes from.
        margin: a comparison closer than this many σ counts as undecided.
    """

    def __init__(self, dtype: np.dtype[Any], rng: np.random.Generator, margin: float) -> None:
        info = np.finfo(dtype)
        self.u = float(info.eps) / 2
        # Noise of the size of u would be rounded away in float64, where everything is computed:
        # there it is drawn larger, and σ is scaled back (both are small, so σ is linear in it).
        self.magnified = 16 if dtype == np.float64 else 1
        self.smallest = float(info.smallest_subnormal)
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
        arrays = self._jaxpr(closed.jaxpr, closed.consts, [_sampled(a) for a in arguments])
        return [(a[0], self.sigma(a)) for a in arrays]

    def sigma(self, samples: Array) -> NDArray[np.float64]:
        """σ of each entry: the root mean square distance of the samples from the first run."""
        if samples.dtype.kind != "f":
            return np.zeros(samples.shape[1:])
        with np.errstate(invalid="ignore"):
            distance = np.abs(samples[1:] - samples[:1])
        distance[samples[1:] == samples[:1]] = 0  # infinities too
        largest = distance.max(axis=0)
        scale = np.where(largest > 0, largest, 1)  # squares of tiny distances would underflow
        return largest * np.sqrt(np.mean(np.square(distance / scale), axis=0)) / self.magnified

    def blur(self, x: Array, terms: int = 1) -> Array:
        """Each sample but the first, moved relatively by up to u times √terms; zeros stay."""
        noise = self.rng.random(x.shape)  # uniform: bounded away from 0, two could only cancel
        noise -= 0.5
        noise *= 2 * self.magnified * math.sqrt(terms)
        noise[0] = 0
        size = np.abs(x)
        self.peak = max(self.peak, float(size.max(initial=0)))
        tiny = (size < self.smallest / self.u) & (x != 0)
        out: Array = x + self.u * noise * x
        if tiny.any():  # gradual underflow: the error there is absolute
            out += np.where(tiny, noise * self.smallest, 0)
        return out

    def _jaxpr(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: list[Array]) -> list[Array]:
        last_use = _last_uses(jaxpr)
        values: dict[Var, Array] = dict(zip(jaxpr.invars, arguments, strict=True))
        values.update(zip(jaxpr.constvars, map(_sampled, consts), strict=True))

        def read(atom: Var | Literal) -> Array:
            return _sampled(atom.val) if isinstance(atom, Literal) else values[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            results = self._equation(eqn, [read(atom) for atom in eqn.invars])
            for var, result in zip(eqn.outvars, results, strict=True):
                values[var] = result
            for atom in (*eqn.invars, *eqn.outvars):
                if isinstance(atom, Var) and last_use.get(atom, i) == i:
                    values.pop(atom, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, x: list[Array]) -> list[Array]:
        name, p = eqn.primitive.name, eqn.params
        if name in ELEMENTWISE:
            x = _align(x)
        if name in CALLS:
            inner = p[CALLS[name]]
            consts = inner.consts if isinstance(inner, ClosedJaxpr) else ()
            return self._jaxpr(getattr(inner, "jaxpr", inner), consts, x)
        if name in SEVERAL:
            return SEVERAL[name](self, p, x)
        if name in EXACT:
            return [EXACT[name](p, *x)]
        if name in COMPARE:
            self._margin(*x)
            return [COMPARE[name](*x)]
        terms = TERMS[name](p, *x) if name in TERMS else 1
        if terms > 1:
            x = [self.blur(a, terms) if a.dtype.kind == "f" else a for a in x]
        rule = ROUNDED.get(name)
        out = [rule(p, *x)] if rule else _one_by_one(eqn, x)
        return [self._rounded(name, a, x, terms) for a in out]

    def _rounded(self, name: str, out: Array, x: list[Array], terms: int) -> Array:
        if out.dtype.kind != "f" or name in STEPPED:
            return self._decide(out, x)
        return out if name in MOVED else self.blur(out, terms)

    def _margin(self, a: Array, b: Array) -> None:
        """A comparison is decided when its operands differ by more than their spread."""
        if a.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
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


def _sampled(value: Any) -> Array:
    """The same value in every sample."""
    a = np.asarray(value)
    return np.broadcast_to(a, (SAMPLES + 1, *a.shape))


def _align(x: list[Array]) -> list[Array]:
    """Scalars among arrays get trailing axes: NumPy would take the axis of the samples for one."""
    rank = max(a.ndim for a in x)
    return [a.reshape(a.shape + (1,) * (rank - a.ndim)) for a in x]


def _last_uses(jaxpr: Jaxpr) -> dict[Var, int]:
    last = {}
    for i, eqn in enumerate(jaxpr.eqns):
        last.update({atom: i for atom in eqn.invars if isinstance(atom, Var)})
    last.update({atom: len(jaxpr.eqns) for atom in jaxpr.outvars if isinstance(atom, Var)})
    return last


def _one_by_one(eqn: Any, x: list[Array]) -> list[Array]:
    """A primitive without a rule here, evaluated by JAX for each sample."""
    runs = []
    for sample in zip(*x, strict=True):
        out = eqn.primitive.bind(*sample, **eqn.params)
        runs.append(out if eqn.primitive.multiple_results else [out])
    return [np.stack([np.asarray(a) for a in column]) for column in zip(*runs, strict=True)]


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
        if not go[0]:
            return carry
        carry = r._jaxpr(p["body_jaxpr"].jaxpr, p["body_jaxpr"].consts, [*body, *carry])


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


def _pad(p: dict[str, Any], x: Array, value: Array) -> Array:
    fill = value[(...,) + (None,) * (x.ndim - 1)]
    for axis, (low, high, interior) in enumerate(p["padding_config"], start=1):
        n = x.shape[axis]
        length = low + high + n + max(n - 1, 0) * interior
        shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
        out = np.broadcast_to(fill, shape).astype(x.dtype)
        # a negative low or high cuts
        at = low + (interior + 1) * np.arange(n)
        kept = (at >= 0) & (at < length)
        index = (slice(None),) * axis
        out[(*index, at[kept])] = x[(*index, kept)]
        x = out
    return x


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
    "iota": lambda p: _sampled(
        _broadcast_in_dim(
            {"shape": p["shape"], "broadcast_dimensions": (p["dimension"],)},
            np.arange(p["shape"][p["dimension"]], dtype=p["dtype"])[None],
        )[0]
    ),
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
    left = a.transpose(0, *a_batch, *a_free, *a_sum).reshape(*batch, -1, terms)
    right = b.transpose(0, *b_batch, *b_sum, *b_free).reshape(*batch, terms, -1)
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


def _dot_terms(p: dict[str, Any], a: Array, b: Array) -> int:
    return math.prod(a.shape[i + 1] for i in p["dimension_numbers"][0][0])


# Left to JAX, and exact: they move or choose values.
MOVED = {
    *("gather", "dynamic_slice", "dynamic_update_slice", "scatter"),
    *("sort", "top_k", "cummax", "cummin"),
}
# Discrete functions of floats: exact, but on which step they stand has to be decided.
STEPPED = {"floor", "ceil", "round", "sign"}

ELEMENTWISE = {
    *COMPARE,
    *("add", "add_any", "sub", "mul", "div", "pow"),
    *("and", "or", "xor", "max", "min", "clamp", "select_n"),
}

# How many terms a primitive adds up. Its operands get √terms of the noise, which is what terms of
# either sign make of it, and so does the result: terms of one sign make partial sums as large.
TERMS: dict[str, Callable[..., int]] = {
    "dot_general": _dot_terms,
    "reduce_sum": lambda p, x: math.prod(x.shape[i] for i in _axes(p["axes"])),
    "cumsum": lambda p, x: x.shape[p["axis"] + 1],
    "cumlogsumexp": lambda p, x: x.shape[p["axis"] + 1],
    "scatter-add": lambda p, x, at, updates: math.prod(updates.shape[1:]),
    "scatter_add": lambda p, x, at, updates: math.prod(updates.shape[1:]),
}
