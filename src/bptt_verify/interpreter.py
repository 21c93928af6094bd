"""Evaluating a jaxpr in NumPy, equation by equation: what all number types have in common.

Every value carries rows as its first axis, samples or points, which the axes of a primitive's
parameters do not count. Calls and control flow are here; what a primitive does to numbers is the
business of who derives from `Interpreter`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from numpy.typing import NDArray

Array = NDArray[Any]


class Interpreter(ABC):
    """One evaluation of a jaxpr, for so many rows at once."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._plans: dict[int, tuple[Jaxpr, Plan]] = {}

    @abstractmethod
    def primitive(self, eqn: Any, x: list[Array]) -> list[Array]:
        """The results of an equation that is neither a call nor control flow."""

    @abstractmethod
    def decide(self, out: Array, x: Sequence[Array]) -> Array:
        """A discrete result of these operands, on which the way through the jaxpr may depend."""

    @abstractmethod
    def leading(self, x: Array) -> Array:
        """For each row, what decides for it."""

    def cast(self, a: Array, dtype: np.dtype[Any]) -> Array:
        """A value of the declared dtype."""
        return a.astype(dtype, copy=False)

    def spread(self, value: Any) -> Array:
        """The same value in every row."""
        a = np.asarray(value)
        return np.broadcast_to(a, (self.rows, *a.shape))

    def constant(self, value: Any) -> Array:
        """The same value, which stands in the jaxpr, in every row."""
        return self.spread(value)

    def loop(self) -> AbstractContextManager[Callable[[], None]]:
        """The steps of a loop, each of which begins by calling what this gives."""
        return nullcontext(lambda: None)

    def evaluate(
        self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Array]
    ) -> list[Array]:
        """The results."""
        plan = self._plan(jaxpr)
        values: dict[Var, Array] = dict(zip(jaxpr.invars, arguments, strict=True))
        values.update(zip(jaxpr.constvars, map(self.constant, consts), strict=True))

        def read(atom: Var | Literal) -> Array:
            return self.constant(atom.val) if isinstance(atom, Literal) else values[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            if not plan.needed[i]:
                continue  # what nothing depends on must not decide anything
            results = self._equation(eqn, [read(atom) for atom in eqn.invars])
            for var, result in zip(eqn.outvars, results, strict=True):
                declared: Any = var.aval
                values[var] = self.cast(result, declared.dtype)
            for atom in (*eqn.invars, *eqn.outvars):
                if isinstance(atom, Var) and plan.last_use.get(atom, i) == i:
                    values.pop(atom, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _plan(self, jaxpr: Jaxpr) -> Plan:
        """What is known of a jaxpr beforehand, found once."""
        if id(jaxpr) not in self._plans:
            self._plans[id(jaxpr)] = jaxpr, _plan(jaxpr)  # the jaxpr too: its id stays its
        return self._plans[id(jaxpr)][1]

    def _equation(self, eqn: Any, x: list[Array]) -> list[Array]:
        name, p = eqn.primitive.name, eqn.params
        if name in CALLS:
            inner = p[CALLS[name]]
            consts = inner.consts if isinstance(inner, ClosedJaxpr) else ()
            return self.evaluate(getattr(inner, "jaxpr", inner), consts, x)
        if name in CONTROL:
            return CONTROL[name](self, p, x)
        return self.primitive(eqn, x)


class Plan(NamedTuple):
    """What is known of a jaxpr before it is evaluated."""

    needed: list[bool]
    """Which equations the results depend on."""
    last_use: dict[Var, int]
    """The last such equation to read each value."""


class MixedError(Exception):
    """Rows go different ways through the jaxpr: evaluate them one by one."""


def is_float(atom: Any) -> bool:
    """Whether a variable or a literal is of floats."""
    return getattr(atom.aval.dtype, "kind", "") == "f"


def _plan(jaxpr: Jaxpr) -> Plan:
    last = {atom: len(jaxpr.eqns) for atom in jaxpr.outvars if isinstance(atom, Var)}
    needed = [False] * len(jaxpr.eqns)
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        needed[i] = any(var in last for var in eqn.outvars)
        if needed[i]:
            for atom in eqn.invars:
                if isinstance(atom, Var):
                    last.setdefault(atom, i)
    return Plan(needed, last)


def left_to_jax(eqn: Any, x: list[Array], rows: int) -> list[Array]:
    """A primitive without a rule, evaluated by JAX for all rows; arrays that may be overwritten."""

    def one(*row: Any) -> list[Any]:
        out = eqn.primitive.bind(*row, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]

    if not x:  # made from nothing: the same in every row
        return [np.repeat(np.asarray(a)[None], rows, axis=0) for a in one()]
    try:
        return [np.array(a) for a in jax.vmap(one)(*x)]
    except NotImplementedError:  # a callback, say, that was not told how to do many at once
        return [np.stack(column) for column in zip(*map(one, *x), strict=True)]


# --- calls and control flow

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
"""Under which name each has the jaxpr it calls."""


def _scan(run: Interpreter, p: dict[str, Any], x: list[Array]) -> list[Array]:
    n, m = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, carry, xs = x[:n], x[n:m], x[m:]
    steps = range(p["length"])
    body = p["jaxpr"]
    stacked: list[Array] = []
    with run.loop() as begin:
        for t in reversed(steps) if p["reverse"] else steps:
            begin()
            now = [a[:, t] for a in xs]
            out = run.evaluate(body.jaxpr, body.consts, [*consts, *carry, *now])
            carry, rows = out[: len(carry)], out[len(carry) :]
            # one step after another in memory, as they will be read
            stacked = stacked or [np.empty((len(steps), *a.shape), a.dtype) for a in rows]
            for whole, a in zip(stacked, rows, strict=True):
                whole[t] = a
    if not steps:
        shapes = [v.aval for v in body.jaxpr.outvars[len(carry) :]]
        stacked = [np.zeros((0, len(x[0]), *a.shape), a.dtype) for a in shapes]
    return [*carry, *(whole.swapaxes(0, 1) for whole in stacked)]


def _while(run: Interpreter, p: dict[str, Any], x: list[Array]) -> list[Array]:
    n, m = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    test, body, carry = x[:n], x[n:m], x[m:]
    with run.loop() as begin:
        while True:
            begin()
            (go,) = run.evaluate(p["cond_jaxpr"].jaxpr, p["cond_jaxpr"].consts, [*test, *carry])
            run.decide(go, carry)
            # mapped over a batch, each entry stops by itself; the rows follow what decides for them
            first = run.leading(go)
            if not first.any():
                return carry
            new = run.evaluate(p["body_jaxpr"].jaxpr, p["body_jaxpr"].consts, [*body, *carry])
            carry = [
                np.where(first.reshape(first.shape + (1,) * (a.ndim - first.ndim)), a, old)
                for a, old in zip(new, carry, strict=True)
            ]


def _cond(run: Interpreter, p: dict[str, Any], x: list[Array]) -> list[Array]:
    index, *rest = x
    run.decide(index, rest)
    chosen = run.leading(index)
    if (chosen != chosen[0]).any():
        raise MixedError
    branch = p["branches"][int(np.clip(chosen[0], 0, len(p["branches"]) - 1))]
    return run.evaluate(branch.jaxpr, branch.consts, rest)


def _split(_: Interpreter, p: dict[str, Any], x: list[Array]) -> list[Array]:
    return np.split(x[0], np.cumsum(p["sizes"])[:-1], axis=p["axis"] + 1)


CONTROL: dict[str, Callable[..., list[Array]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "split": _split,
}
"""Primitives with several results: control flow, whose body is a jaxpr of its own, and split."""


class Inner(NamedTuple):
    """A jaxpr that an equation calls, and the border to it."""

    jaxpr: Jaxpr
    links: list[tuple[Any, Var]]
    """Where a value comes from, and its name there: on the other side, or in the next step."""


def inner(eqn: Any) -> list[Inner]:
    """The jaxprs that an equation calls; none if it computes."""
    name, p, x = eqn.primitive.name, eqn.params, list(eqn.invars)
    if name in CALLS:
        return [_inner(p[CALLS[name]], x, eqn.outvars)]
    if name == "scan":
        return [_inner(p["jaxpr"], x, eqn.outvars, p["num_consts"], p["num_carry"])]
    if name == "while":
        n, m = p["cond_nconsts"], p["body_nconsts"]
        state = x[n + m :]
        body = _inner(p["body_jaxpr"], x[n:], eqn.outvars, m, len(state))
        return [_inner(p["cond_jaxpr"], x[:n] + state, []), body]
    if name == "cond":
        return [_inner(branch, x[1:], eqn.outvars) for branch in p["branches"]]
    return []


def _inner(
    called: Any, entering: list[Any], leaving: list[Var], consts: int = 0, carry: int = 0
) -> Inner:
    jaxpr: Jaxpr = getattr(called, "jaxpr", called)
    inside, results = jaxpr.invars, jaxpr.outvars
    links = [
        *zip(entering, inside, strict=True),
        *zip(results[:carry], inside[consts : consts + carry], strict=True),
        *(zip(results, leaving, strict=True) if leaving else ()),
    ]
    return Inner(jaxpr, links)
