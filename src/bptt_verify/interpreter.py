"""Evaluating a jaxpr in NumPy, equation by equation: what all number types have in common.

Every value carries rows as its first axis, samples or points, which the axes of a primitive's
parameters do not count. Calls and control flow are here; what a primitive does to numbers is the
business of who derives from `Interpreter`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from numpy.typing import NDArray

Array = NDArray[Any]


class Interpreter(ABC):
    """One evaluation of a jaxpr, for so many rows at once."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._plans: dict[tuple[int, tuple[int, ...]], tuple[Jaxpr, Plan]] = {}

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

    def look_at(self, jaxpr: Jaxpr) -> None:
        """Look at a jaxpr before it is evaluated for the first time."""
        return

    def look_at_scan(self, body: Jaxpr, consts: int, carry: int, length: int) -> None:
        """Look at a scan before it is run."""
        return

    def again(self, x: Array) -> Array:
        """A value of the forward pass as the backward pass reads it."""
        return x

    @contextmanager
    def loop(self) -> Iterator[Callable[[], None]]:
        """The steps of a loop, each of which begins by calling what this gives."""
        yield lambda: None

    def evaluate(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        arguments: Sequence[Array],
        cotangents: Sequence[Var] = (),
    ) -> list[Array]:
        """The results; what depends on the arguments named as cotangents is the backward pass."""
        plan = self._plan(jaxpr, cotangents)
        values: dict[Var, Array] = dict(zip(jaxpr.invars, arguments, strict=True))
        values.update(zip(jaxpr.constvars, map(self.constant, consts), strict=True))
        behind: dict[Var, Array] = {}  # what the backward pass reads of the forward pass

        def read(atom: Var | Literal, backward: bool) -> Array:
            if isinstance(atom, Literal):
                return self.constant(atom.val)
            return behind[atom] if backward and atom in behind else values[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            if not plan.needed[i]:
                continue  # what nothing depends on must not decide anything
            for var in plan.border.get(i, ()):
                behind[var] = self.again(values[var])
            backward = plan.backward[i]
            x = [read(atom, any(backward)) for atom in eqn.invars]
            results = self._equation(eqn, x, backward)
            for var, result in zip(eqn.outvars, results, strict=True):
                declared: Any = var.aval
                values[var] = self.cast(result, declared.dtype)
            for atom in (*eqn.invars, *eqn.outvars):
                if isinstance(atom, Var) and plan.last_use.get(atom, i) == i:
                    values.pop(atom, None)
                    behind.pop(atom, None)
        return [read(atom, False) for atom in jaxpr.outvars]

    def _plan(self, jaxpr: Jaxpr, cotangents: Sequence[Var]) -> Plan:
        """What is known of a jaxpr beforehand, found once."""
        key = id(jaxpr), tuple(map(id, cotangents))
        if key not in self._plans:
            self.look_at(jaxpr)
            self._plans[key] = jaxpr, _plan(jaxpr, cotangents)  # the jaxpr too: its id stays its
        return self._plans[key][1]

    def _equation(self, eqn: Any, x: list[Array], backward: Sequence[bool]) -> list[Array]:
        name, p = eqn.primitive.name, eqn.params
        if name in CALLS:
            inner = p[CALLS[name]]
            consts = inner.consts if isinstance(inner, ClosedJaxpr) else ()
            jaxpr = getattr(inner, "jaxpr", inner)
            cotangents = [var for var, b in zip(jaxpr.invars, backward, strict=True) if b]
            return self.evaluate(jaxpr, consts, x, cotangents)
        if name in CONTROL:
            return CONTROL[name](self, p, x, backward)
        return self.primitive(eqn, x)


class Plan(NamedTuple):
    """What is known of a jaxpr before it is evaluated."""

    needed: list[bool]
    """Which equations the results depend on."""
    last_use: dict[Var, int]
    """The last such equation to read each value."""
    backward: list[list[bool]]
    """Which operands of each equation depend on a cotangent."""
    border: dict[int, list[Var]]
    """What the backward pass reads of the forward pass, by the first equation that does."""


class MixedError(Exception):
    """Rows go different ways through the jaxpr: evaluate them one by one."""


def is_float(atom: Any) -> bool:
    """Whether a variable or a literal is of floats."""
    return getattr(atom.aval.dtype, "kind", "") == "f"


def _plan(jaxpr: Jaxpr, cotangents: Sequence[Var]) -> Plan:
    last = {atom: len(jaxpr.eqns) for atom in jaxpr.outvars if isinstance(atom, Var)}
    needed = [False] * len(jaxpr.eqns)
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        needed[i] = any(var in last for var in eqn.outvars)
        if needed[i]:
            for atom in eqn.invars:
                if isinstance(atom, Var):
                    last.setdefault(atom, i)
    depends = _depends_on(jaxpr, cotangents)
    backward = [[isinstance(a, Var) and a in depends for a in eqn.invars] for eqn in jaxpr.eqns]
    # nothing has happened yet to the arguments
    known = {*jaxpr.invars, *jaxpr.constvars}
    border: dict[int, list[Var]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        if needed[i] and any(backward[i]):
            read = dict.fromkeys(a for a in eqn.invars if isinstance(a, Var))
            border[i] = [a for a in read if a not in depends and a not in known and is_float(a)]
            known.update(border[i])
    return Plan(needed, last, backward, border)


def _depends_on(jaxpr: Jaxpr, arguments: Sequence[Var]) -> set[Var]:
    found = set(arguments)
    for eqn in jaxpr.eqns if found else ():
        if any(isinstance(a, Var) and a in found for a in eqn.invars):
            found.update(eqn.outvars)
    return found


def one_by_one(eqn: Any, x: list[Array], rows: int) -> list[Array]:
    """A primitive without a rule, evaluated by JAX for each row."""
    runs = []
    for row in zip(*x, strict=True) if x else [()] * rows:
        out = eqn.primitive.bind(*row, **eqn.params)
        runs.append(out if eqn.primitive.multiple_results else [out])
    return [np.stack([np.asarray(a) for a in column]) for column in zip(*runs, strict=True)]


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


def _scan(
    run: Interpreter, p: dict[str, Any], x: list[Array], backward: Sequence[bool]
) -> list[Array]:
    n, m = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, carry, xs = x[:n], x[n:m], x[m:]
    steps = range(p["length"])
    body = p["jaxpr"]
    run.look_at_scan(body.jaxpr, n, m - n, p["length"])
    cotangents = _carried(body.jaxpr, n, m - n, backward)
    stacked: list[Array] = []
    with run.loop() as begin:
        for t in reversed(steps) if p["reverse"] else steps:
            begin()
            now = [a[:, t] for a in xs]
            out = run.evaluate(body.jaxpr, body.consts, [*consts, *carry, *now], cotangents)
            carry, rows = out[: len(carry)], out[len(carry) :]
            # one step after another in memory, as they will be read
            stacked = stacked or [np.empty((len(steps), *a.shape), a.dtype) for a in rows]
            for whole, a in zip(stacked, rows, strict=True):
                whole[t] = a
    if not steps:
        shapes = [v.aval for v in body.jaxpr.outvars[len(carry) :]]
        stacked = [np.zeros((0, len(x[0]), *a.shape), a.dtype) for a in shapes]
    return [*carry, *(whole.swapaxes(0, 1) for whole in stacked)]


def _carried(body: Jaxpr, consts: int, carry: int, backward: Sequence[bool]) -> list[Var]:
    """The operands of a step that depend on a cotangent, if not at the first step then later."""
    found = [var for var, b in zip(body.invars, backward, strict=True) if b]
    while found:
        depends = _depends_on(body, found)
        states = zip(body.invars[consts:], body.outvars[:carry], strict=False)
        more = [before for before, after in states if after in depends and before not in depends]
        if not more:
            break
        found += more
    return found


def _while(run: Interpreter, p: dict[str, Any], x: list[Array], _: object) -> list[Array]:
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


def _cond(run: Interpreter, p: dict[str, Any], x: list[Array], _: object) -> list[Array]:
    index, *rest = x
    run.decide(index, rest)
    chosen = run.leading(index)
    if (chosen != chosen[0]).any():
        raise MixedError
    branch = p["branches"][int(np.clip(chosen[0], 0, len(p["branches"]) - 1))]
    return run.evaluate(branch.jaxpr, branch.consts, rest)


def _split(_: Interpreter, p: dict[str, Any], x: list[Array], __: object) -> list[Array]:
    return np.split(x[0], np.cumsum(p["sizes"])[:-1], axis=p["axis"] + 1)


CONTROL: dict[str, Callable[..., list[Array]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "split": _split,
}
"""Primitives with several results: control flow, whose body is a jaxpr of its own, and split."""
