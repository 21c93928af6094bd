"""The twin with one change to its derivative: the values stay, the gradients become wrong.

A wrong backward pass is the derivative of a function that was misread in one place: a factor f′
forgotten, a product differentiated on one side only, a state that was not carried. Each such
misreading is made here in the twin's own jaxpr, by `jax.lax.stop_gradient` and arithmetic, and
`jax.vjp` does the rest. So no gradient formula is written down for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

Site = tuple[int, ...]
"""Where an equation stands: its number, after those of the equations it is inside of."""

Values = list[Any]


class Change(NamedTuple):
    """What equations become: `apply(equation, operands, evaluate)` returns the results of each.

    For a scan, `apply` changes a step: `apply(step, operands, evaluate)`, see `Step`.
    """

    sites: Collection[Site]
    apply: Callable[[Any, Values, Callable[..., Values]], Values]
    besides: Callable[[Any], tuple[Var, ...]] = lambda eqn: ()
    """Values of the same jaxpr that `apply` needs for an equation, given after the operands."""


class Step(NamedTuple):
    """One step of a scan: its number, and its jaxpr."""

    t: Any
    body: ClosedJaxpr


@dataclass(frozen=True)
class OnOperands:
    """What `Change.apply` is where the step itself stays, and what goes into it is changed."""

    made: Callable[[Step, Values], Values]

    def __call__(self, step: Step, x: Values, run: Callable[..., Values]) -> Values:
        """The results of the step."""
        return run(*self.made(step, x))


INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
"""Calls that are looked into; a function with a derivative rule of its own is left whole."""

still = lax.stop_gradient


def sites(jaxpr: Jaxpr, inside: Site = ()) -> Iterator[tuple[Site, Any]]:
    """Every equation, also in calls and in the bodies of scans."""
    for i, eqn in enumerate(jaxpr.eqns):
        here = (*inside, i)
        yield here, eqn
        if inner := _inner(eqn):
            yield from sites(inner.jaxpr, here)


MOVES = {
    *("broadcast_in_dim", "reshape", "transpose", "slice", "squeeze", "concatenate", "pad", "rev"),
    *("convert_element_type", "copy", "split", "dynamic_slice", "gather"),
}
"""Primitives that only move values about."""


def names(jaxpr: Jaxpr, known: Mapping[Var, str]) -> dict[Var, str]:
    """What each value is called that is an input, moved about, sliced, or carried from one."""
    found = dict(known)

    def called(atom: Var | Literal) -> str | None:
        return None if isinstance(atom, Literal) else found.get(atom)

    for eqn in jaxpr.eqns:
        inputs = {name for a in eqn.invars if (name := called(a))}
        if inner := _inner(eqn):
            inside = zip(inner.jaxpr.invars, map(called, eqn.invars), strict=True)
            found |= names(inner.jaxpr, {var: name for var, name in inside if name})
        elif eqn.primitive.name in MOVES and len(inputs) == 1:
            found |= dict.fromkeys(eqn.outvars, inputs.pop())
    return found


def reads(jaxpr: Jaxpr, var: Var) -> Iterator[tuple[Site, int, Any]]:
    """The products in which a value is a factor, also in calls: where, which, the product."""
    for i, eqn in enumerate(jaxpr.eqns):
        for k, atom in enumerate(eqn.invars):
            if atom is not var:
                continue
            if eqn.primitive.name in ("mul", "dot_general"):
                yield (i,), k, eqn
            elif eqn.primitive.name in INLINED:
                inner = _inner(eqn).jaxpr
                for site, j, product in reads(inner, inner.invars[k]):
                    yield (i, *site), j, product


def evaluate(closed: ClosedJaxpr, arguments: Sequence[Any], change: Change) -> Values:
    """The results of the jaxpr, with this change to it."""
    return _evaluate(closed, arguments, dict.fromkeys(change.sites, change), ())


def evaluate_one(
    closed: ClosedJaxpr, arguments: Sequence[Any], changes: Sequence[Change], which: Any
) -> Values:
    """The results of the jaxpr, with the change to it of which `which` is the number.

    What is one trace for all of them may be evaluated side by side, each with a `which` of its own.
    No change may be inside of what another one changes, see `nested`.
    """
    at: dict[Site, list[tuple[int, Change]]] = {}
    for k, change in enumerate(changes):
        for site in change.sites:
            at.setdefault(site, []).append((k, change))
    if nested(at, at):
        raise ValueError("changes: expected none inside of what another one changes")
    either = {site: _either(some, which) for site, some in at.items()}
    return _evaluate(closed, arguments, either, ())


def nested(some: Collection[Site], others: Collection[Site]) -> bool:
    """Whether one of these sites is inside of one of those, or the other way round."""
    return any(a != b and a[: len(b)] == b[: len(a)] for a in some for b in others)


def _either(changes: Sequence[tuple[int, Change]], which: Any) -> Change:
    """At one place: what stands there, with the derivative of one of these changes."""

    def besides(eqn: Any) -> tuple[Var, ...]:
        return tuple(var for _, change in changes for var in change.besides(eqn))

    def apply(eqn: Any, x: Values, run: Callable[..., Values]) -> Values:
        if isinstance(eqn, Step):
            return _either_step(eqn, x, run, changes, which)
        n, made = len(eqn.invars), {}
        first = n
        for k, change in changes:
            own = slice(first, first := first + len(change.besides(eqn)))
            made[k] = lambda x, c=change, own=own: c.apply(eqn, [*x[:n], *x[own]], run)
        return _chosen(which, x, lambda x: run(*x[:n]), made)

    return Change((), apply, besides)


def _either_step(
    step: Step,
    x: Values,
    run: Callable[..., Values],
    changes: Sequence[tuple[int, Change]],
    which: Any,
) -> Values:
    """A step of a scan, its number being an operand too: all that is traced has to be one."""
    before, whole = {}, {}
    for k, (_, apply, _) in changes:
        if isinstance(apply, OnOperands):  # then nothing of the step has to be made again
            before[k] = lambda x, made=apply.made: made(step._replace(t=x[0]), x[1:])
        else:
            whole[k] = lambda x, apply=apply: apply(step._replace(t=x[0]), x[1:], run)
    x = _chosen(which, [step.t, *x], lambda x: x[1:], before)
    return _chosen(which, [step.t, *x], lambda x: run(*x[1:]), whole)


def _chosen(
    which: Any, x: Values, right: Callable[[Values], Values], others: Mapping[int, Any]
) -> Values:
    """What `right` makes of x, with the derivative of the other of that number, if there is one."""
    if not others:
        return right(x)

    @jax.custom_vjp
    def results(which: Any, *x: Any) -> Values:
        return right(list(x))

    def forth(which: Any, *x: Any) -> tuple[Values, Any]:
        return right(list(x)), (which, x)

    def back(saved: Any, cotangents: Values) -> tuple[Any, ...]:
        which, x = saved
        floats = [i for i, a in enumerate(x) if jnp.issubdtype(a.dtype, jnp.floating)]

        def pulled(made: Callable[[Values], Values]) -> Values:
            """What reaches the floats through this."""

            def of_floats(*some: Any) -> Values:
                all_of_them = list(x)
                for i, a in zip(floats, some, strict=True):
                    all_of_them[i] = a
                return made(all_of_them)

            _, vjp = jax.vjp(of_floats, *(x[i] for i in floats))
            return list(vjp(cotangents))

        found = pulled(right)
        for k, made in others.items():
            pairs = zip(found, pulled(made), strict=True)
            found = [a if other is a else jnp.where(which == k, other, a) for a, other in pairs]
        reached = dict(zip(floats, found, strict=True))
        return (None, *map(reached.get, range(len(x))))

    results.defvjp(forth, back)
    return results(which, *map(jnp.asarray, x))


def _evaluate(
    closed: ClosedJaxpr, arguments: Sequence[Any], changes: Mapping[Site, Change], inside: Site
) -> Values:
    jaxpr = closed.jaxpr
    values: dict[Var, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    values.update(zip(jaxpr.constvars, closed.consts, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for i, eqn in enumerate(jaxpr.eqns):
        here = (*inside, i)
        x = [read(atom) for atom in eqn.invars]
        if not any(site[: len(here)] == here for site in changes):
            results = bind(eqn, *x)
        elif eqn.primitive.name == "scan":
            results = _scan(eqn, x, changes, here)
        elif change := changes.get(here):
            besides = [values[var] for var in change.besides(eqn)]
            results = change.apply(eqn, [*x, *besides], lambda *x, eqn=eqn: bind(eqn, *x))
        else:
            results = _evaluate(_inner(eqn), x, changes, here)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(eqn: Any, *x: Any) -> Values:
    """The equation as it stands."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = found if isinstance(found, tuple) else ([], found)  # JAX < 0.10
    out = eqn.primitive.bind(*functions, *x, **parameters)
    return list(out) if eqn.primitive.multiple_results else [out]


def _scan(eqn: Any, x: Values, changes: Mapping[Site, Change], here: Site) -> Values:
    p = eqn.params
    n, m = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts = x[:n]

    def body(*operands: Any) -> Values:
        return _evaluate(p["jaxpr"], operands, changes, here)

    def step(carry: Values, now: tuple[Any, Values]) -> tuple[Values, Values]:
        t, rows = now
        operands = [*consts, *carry, *rows]
        if change := changes.get(here):
            out = change.apply(Step(t, p["jaxpr"]), operands, body)
        else:
            out = body(*operands)
        return out[: m - n], out[m - n :]

    times = jnp.arange(p["length"])
    carry, rows = lax.scan(step, x[n:m], (times, x[m:]), length=p["length"], reverse=p["reverse"])
    return [*carry, *rows]


def _inner(eqn: Any) -> Any:
    name = eqn.primitive.name
    if name == "scan":
        return eqn.params["jaxpr"]
    return eqn.params[INLINED[name]] if name in INLINED else None


# --- ways to misread a derivative: the value of `y`, the derivative of something else


def as_if(y: Any, read: Any) -> Any:
    """The value of y, and the derivative of `read`."""
    return still(y) + (read - still(read))


def misread_factor(i: int, wrong: Any, x: Values, run: Callable[..., Values]) -> Values:
    """The product of x, whose other factor's derivative takes `wrong` for factor i."""
    other = [wrong if k == i else a for k, a in enumerate(x)]
    right = [a if k == i else still(a) for k, a in enumerate(x)]
    return [as_if(run(*x)[0], run(*other)[0] + run(*right)[0])]


def slope(y: Any, x: Any, factor: Any) -> Any:
    """The value of y, and `factor` for its derivative in x."""
    return still(y) + still(factor) * (x - still(x))
