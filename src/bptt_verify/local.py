"""Each step by itself: the twin's derivative of one step, at the subject's own saved values.

End to end, a wrong δ_t spoils every δ before it and every gradient, and honest rounding grows with
the number of steps. Here neither does: wherever the twin adds a tap, its own cotangent is replaced
by the δ that the subject returned, and every step starts from the state that the subject returned.
What remains of a disagreement is made in that step, in that term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, Var
from numpy.typing import NDArray

from bptt_verify.compare import Comparison, compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Expected, Oracle
from bptt_verify.shapes import Shape
from bptt_verify.surgery import INLINED, MOVES, bind


class NotLocalError(Exception):
    """The twin uses a tap in a way that cannot be cut, so there is no check step by step."""


class Alone(NamedTuple):
    """A tap or gradient, given the subject's own δ and states: as it should be, and as it is."""

    expected: Expected
    comparison: Comparison


def check(
    oracle: Oracle, case: Case, drawn: Drawn, arrays: Mapping[str, Any], dtype: np.dtype[Any]
) -> dict[str, Alone]:
    """Every tap and gradient the subject returned, given all the taps and states it returned.

    Empty where the pair has no taps, the twin does not merely add them or adds one in several
    places, or the subject's values are not finite numbers of the right shape.
    """
    pair = oracle.pair
    used = [name for name in pair.taps if name not in oracle.unread_taps]
    given = {name: arrays.get(name) for name in [*used, *pair.states.values()]}
    shapes = pair.shapes()
    if not used or not all(_usable(a, shapes[k], case) for k, a in given.items()):
        return {}
    saved = {k: np.asarray(a, np.float64) for k, a in given.items()}
    before = {
        state: np.concatenate([drawn.inputs[state].astype(np.float64)[None], saved[after][:-1]])
        for state, after in pair.states.items()
    }
    closed = oracle.forward_jaxpr(case, drawn)
    names = sorted([*pair.outputs, *pair.probes])

    def cut_up(cut: Cut, inputs: dict[str, Any]) -> dict[str, Any]:
        x = {k: v + saved[k] if k in used else v for k, v in inputs.items()}
        names_in = sorted(x)
        marks: list[Mark] = [
            ("tap", k) if k in used else ("state", k) if k in before else None for k in names_in
        ]
        out, _ = _evaluate(closed, [x[k] for k in names_in], marks, before, cut)
        return dict(zip(names, out, strict=True))

    try:
        answer = oracle.answer(case, drawn, dtype, twin=partial(cut_up, _cut))
    except NotLocalError:
        return {}
    if answer.undecided or answer.out_of_range:
        return {}
    gradients = [f"d{name}" for name in pair.differentiable]
    found = {
        name: Alone(right, compare(arrays[name], right, dtype))
        for name in [*used, *gradients]
        for right in [answer.quantities[name]]
    }
    wrong = not all(alone.comparison.ok for alone in found.values())
    inputs = oracle.inputs(case, drawn)
    return {} if wrong and _added_twice(partial(cut_up, _count), inputs, used) else found


def _added_twice(
    twin: Callable[[dict[str, Any]], dict[str, Any]], inputs: dict[str, Any], taps: Sequence[str]
) -> bool:
    """Whether an entry of a tap is added in several places: then δ is no step's own, but a sum."""
    with jax.enable_x64(True):
        given = {k: inputs[k] for k in taps}
        outputs, vjp = jax.vjp(lambda given: twin({**inputs, **given}), given)
        (counts,) = vjp(jax.tree.map(jnp.zeros_like, outputs))
    return any(bool((np.asarray(count) > 1).any()) for count in counts.values())


Cut = Callable[[Any, Any], Any]
"""What is done with a value and the tap that is added to it."""

Mark = tuple[str, str] | None
"""What a value is besides a number: a tap (moved about), or a state before its first step."""


@jax.custom_vjp
def _cut(x: Any, tap: Any) -> Any:
    """x itself; its cotangent goes to the tap, and the value of the tap goes on in its place."""
    return x


_cut.defvjp(lambda x, tap: (x, tap), lambda tap, cotangent: (tap, cotangent))


@jax.custom_vjp
def _count(x: Any, tap: Any) -> Any:
    """x itself; what goes to the tap is 1, so that it counts the places where it is added."""
    return x


_count.defvjp(lambda x, _: (x, None), lambda _, cotangent: (cotangent, jnp.ones_like(cotangent)))


def _evaluate(
    closed: ClosedJaxpr,
    arguments: Sequence[Any],
    marks: Sequence[Mark],
    before: Mapping[str, NDArray[np.float64]],
    cut: Cut,
) -> tuple[list[Any], list[Mark]]:
    jaxpr = closed.jaxpr
    values: dict[Var, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
    values.update(zip(jaxpr.constvars, closed.consts, strict=True))
    marked: dict[Var, Mark] = dict(zip(jaxpr.invars, marks, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    def mark(atom: Var | Literal) -> Mark:
        return None if isinstance(atom, Literal) else marked.get(atom)

    for eqn in jaxpr.eqns:
        x, m = [read(a) for a in eqn.invars], [mark(a) for a in eqn.invars]
        name = eqn.primitive.name
        taps = [i for i, a in enumerate(m) if a and a[0] == "tap"]
        new: list[Mark] = [None] * len(eqn.outvars)
        if name in INLINED:
            results, new = _evaluate(eqn.params[INLINED[name]], x, m, before, cut)
        elif name == "scan" and any(m):
            results = _scan(eqn, x, m, before, cut)
        elif not taps:
            results = bind(eqn, *x)
        elif name in MOVES:
            results, new = bind(eqn, *x), [m[taps[0]]] * len(eqn.outvars)
        elif name in ("add", "add_any") and len(taps) == 2:  # two taps on one value: the first
            results, new = [x[0] + x[1] - lax.stop_gradient(x[1])], [m[0]]
        elif name in ("add", "add_any"):
            value, tap = x[1 - taps[0]], x[taps[0]]
            results = [cut(value, jnp.broadcast_to(tap, jnp.shape(value)))]
        else:
            raise NotLocalError(name)
        values.update(zip(eqn.outvars, results, strict=True))
        marked.update(zip(eqn.outvars, new, strict=True))
    return [read(a) for a in jaxpr.outvars], [mark(a) for a in jaxpr.outvars]


def _scan(
    eqn: Any,
    x: list[Any],
    marks: list[Mark],
    before: Mapping[str, NDArray[np.float64]],
    cut: Cut,
) -> list[Any]:
    p = eqn.params
    n, m = p["num_consts"], p["num_consts"] + p["num_carry"]
    if any(mark and mark[0] == "tap" for mark in marks[n:m]):
        raise NotLocalError("a tap is carried")
    restart = {
        k - n: jnp.asarray(before[mark[1]])
        for k, mark in enumerate(marks[:m])
        if k >= n
        and mark
        and not p["reverse"]
        and before[mark[1]].shape == (p["length"], *jnp.shape(x[k]))
    }
    inside: list[Mark] = [mark if mark and mark[0] == "tap" else None for mark in marks]

    def step(carry: list[Any], now: tuple[dict[int, Any], list[Any]]) -> tuple[list[Any], Any]:
        states, rows = now
        carry = [
            c + lax.stop_gradient(states[k] - c) if k in states else c for k, c in enumerate(carry)
        ]
        out, after = _evaluate(p["jaxpr"], [*x[:n], *carry, *rows], inside, before, cut)
        if any(after):
            raise NotLocalError("a tap leaves the scan")
        return out[: m - n], out[m - n :]

    carry, rows = lax.scan(step, x[n:m], (restart, x[m:]), length=p["length"], reverse=p["reverse"])
    return [*carry, *rows]


def _usable(array: Any, text: str, case: Case) -> bool:
    shape = Shape(text).sized(case.sizes)
    return (
        isinstance(array, np.ndarray)
        and array.shape == shape
        and bool(np.isfinite(array.astype(np.float64)).all())
    )
