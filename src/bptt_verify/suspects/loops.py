"""Mistakes in a recurrence that a Python loop has unrolled.

Nothing says there what is carried. It is found again: a state is what an equation reads at every
step that the same line made in the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Literal

from bptt_verify.interpreter import is_float
from bptt_verify.surgery import Change, Site, Values, evaluate, misread_factor, still
from bptt_verify.suspects.scans import cuts
from bptt_verify.suspects.suspect import Known, at_line, name_of

Group = Sequence[tuple[Site, Any]]
"""The equation that one piece of text makes, at every step."""


class Reading(NamedTuple):
    """Where the steps read a state: in which equations, as which operand."""

    group: Group
    operand: int


class State(NamedTuple):
    """A state of an unrolled loop."""

    name: str
    made: list[Any]
    """Its new value at every step."""
    readings: list[Reading]


def states(groups: Sequence[Group], known: Known) -> list[State]:
    """What is carried from step to step, given the equations of every step."""
    makers = {
        var: (g, t, j)
        for g, group in enumerate(groups)
        for t, (_, eqn) in enumerate(group)
        for j, var in enumerate(eqn.outvars)
    }
    found: dict[tuple[int, int], list[Reading]] = {}
    for group in groups:
        first = group[0][1]
        for k in range(len(first.invars)):
            if not is_float(first.invars[k]):
                continue
            atoms = [eqn.invars[k] for _, eqn in group]
            read = [None if isinstance(a, Literal) else makers.get(a) for a in atoms]
            source = read[1]
            if source and read[1:] == [(source[0], t, source[2]) for t in range(len(group) - 1)]:
                found.setdefault((source[0], source[2]), []).append(Reading(group, k))
    return [
        State(
            _name(readings[0], known) or f"state {n} of {len(found)}",
            [eqn.outvars[j] for _, eqn in groups[g]],
            readings,
        )
        for n, ((g, j), readings) in enumerate(found.items(), 1)
    ]


def _name(reading: Reading, known: Known) -> str:
    initial = reading.group[0][1].invars[reading.operand]
    name = name_of(known, initial, "")
    return f"the state that starts as {name}" if name else ""


def cut(found: Sequence[State], kept: Callable[[int], Any]) -> Change:
    """Nothing goes back through these states at the steps for which `kept` is false."""
    dropped: dict[int, set[int]] = {}
    at = []
    for state in found:
        for group, operand in state.readings:
            for t, (site, eqn) in enumerate(group):
                if not kept(t):
                    dropped.setdefault(id(eqn), set()).add(operand)
                    at.append(site)

    def apply(eqn: Any, x: Values, run: Callable[..., Values]) -> Values:
        return run(*(still(a) if k in dropped[id(eqn)] else a for k, a in enumerate(x)))

    return Change(at, apply)


def of_carries(found: Sequence[State], steps: int) -> Iterator[tuple[str, Change]]:
    """What is carried is dropped or cut, in one state or in all of them."""
    chosen_ones = [(state.name, [state]) for state in found]
    if len(found) > 1:
        chosen_ones.append(("every state", list(found)))
    for name, chosen in chosen_ones:
        for text, kept in cuts(name, steps, last=steps - 1):
            eqn = chosen[0].readings[0].group[0][1]
            yield at_line(text, eqn), cut(chosen, kept)


def of_products(
    found: Sequence[State], closed: ClosedJaxpr
) -> Iterator[tuple[str, Callable[[Sequence[Any]], Values]]]:
    """The new value of a state stands where the previous one is meant; the results, if so."""
    for state in found:
        for group, i in state.readings:
            eqn = group[0][1]
            if eqn.primitive.name in ("mul", "dot_general"):
                text = f"the new value of {state.name} stands where the previous state is meant"
                yield at_line(text, eqn), _with_new(closed, state, group, i)


def _with_new(
    closed: ClosedJaxpr, state: State, group: Group, i: int
) -> Callable[[Sequence[Any]], Values]:
    jaxpr = closed.jaxpr
    longer = ClosedJaxpr(jaxpr.replace(outvars=[*jaxpr.outvars, *state.made]), closed.consts)

    def results(arguments: Sequence[Any]) -> Values:
        made = evaluate(longer, arguments, Change((), lambda *_: []))[len(jaxpr.outvars) :]
        after = {id(eqn): still(new) for (_, eqn), new in zip(group, made, strict=True)}

        def apply(eqn: Any, x: Values, run: Callable[..., Values]) -> Values:
            return misread_factor(i, after[id(eqn)], x, run)

        return evaluate(closed, arguments, Change([site for site, _ in group], apply))

    return results
