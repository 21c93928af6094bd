"""The twin with one change to its derivative: the values stay, the gradients become wrong.

A wrong backward pass is the derivative of a function that was misread in one place: a factor f′
forgotten, a product differentiated on one side only, a state that was not carried. Each such
misreading is made here in the twin's own jaxpr, by `jax.lax.stop_gradient` and arithmetic, and
`jax.vjp` does the rest. So no gradient formula is written down for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
    return _evaluate(closed, arguments, change, ())


def _evaluate(
    closed: ClosedJaxpr, arguments: Sequence[Any], change: Change, inside: Site
) -> Values:
    jaxpr = closed.jaxpr
    values: dict[Var, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    values.update(zip(jaxpr.constvars, closed.consts, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for i, eqn in enumerate(jaxpr.eqns):
        here = (*inside, i)
        x = [read(atom) for atom in eqn.invars]
        if not any(site[: len(here)] == here for site in change.sites):
            results = bind(eqn, *x)
        elif eqn.primitive.name == "scan":
            results = _scan(eqn, x, change, here)
        elif here in change.sites:
            besides = [values[var] for var in change.besides(eqn)]
            results = change.apply(eqn, [*x, *besides], lambda *x, eqn=eqn: bind(eqn, *x))
        else:
            results = _evaluate(_inner(eqn), x, change, here)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(eqn: Any, *x: Any) -> Values:
    """The equation as it stands."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = found if isinstance(found, tuple) else ([], found)  # JAX < 0.10
    out = eqn.primitive.bind(*functions, *x, **parameters)
    return list(out) if eqn.primitive.multiple_results else [out]


def _scan(eqn: Any, x: Values, change: Change, here: Site) -> Values:
    p = eqn.params
    n, m = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts = x[:n]

    def body(*operands: Any) -> Values:
        if here in change.sites:
            return bind_body(*operands)
        return _evaluate(p["jaxpr"], operands, change, here)

    def bind_body(*operands: Any) -> Values:
        return _evaluate(p["jaxpr"], operands, Change((), change.apply), here)

    def step(carry: Values, now: tuple[Any, Values]) -> tuple[Values, Values]:
        t, rows = now
        operands = [*consts, *carry, *rows]
        if here in change.sites:
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
