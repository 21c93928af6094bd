"""Likely mistakes: what each would make of the gradients, found by asking the twin.

A suspect is a wrong backward pass in words ("the derivative of tanh was left out, cell.py:14") and
the answer it would give. Which suspects there are follows from the pair and from the twin's jaxpr
alone, so it works for any cell; which one is right is for `bptt_verify.localise` to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import ne
from typing import Any

import numpy as np
from jax.extend.core import Var

from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Oracle, Twin
from bptt_verify.pair import Pair
from bptt_verify.shapes import Shape
from bptt_verify.surgery import Change, Site, names
from bptt_verify.suspects.altered import Altered
from bptt_verify.suspects.ends import (
    of_cotangents,
    of_options,
    of_results,
    of_sequences,
    of_windows,
)
from bptt_verify.suspects.loops import Group, cut, of_carries, of_products, states
from bptt_verify.suspects.scans import carries, of_scan, on_operands
from bptt_verify.suspects.suspect import Known, Suspect, at_line, name_of, source
from bptt_verify.suspects.terms import (
    of_any,
    of_choice,
    of_function,
    of_gates,
    of_overwritten,
    of_product,
    of_sum,
    of_table,
    without_path,
)

PARTING = {"split", "slice", "dynamic_slice", "gather"}
"""Primitives that take parts of their first operand."""

__all__ = ["Suspect", "distinct", "suspects"]


def suspects(oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]) -> Iterator[Suspect]:
    """All suspects for a case, the plain ones first."""
    right = oracle.answer(case, drawn, dtype)
    # an option first: the gradients of a window of no steps are also those of a cotangent dropped
    yield from of_options(oracle, case, drawn, dtype)
    yield from of_cotangents(oracle, case, drawn, dtype)
    yield from of_results(oracle, case, right)
    yield from of_sequences(oracle, case, drawn, dtype, right)
    altered = Altered(oracle, case, drawn, dtype)
    closed = altered.closed
    inputs = sorted([*oracle.pair.inputs, *oracle.pair.taps])
    found = list(altered.sites.items())
    known = Known(
        names(closed.jaxpr, dict(zip(closed.jaxpr.invars, inputs, strict=True))),
        {var: eqn for _, eqn in found for var in eqn.outvars},
        {
            times * case.sizes[letter]: times
            for text in oracle.pair.shapes().values()
            for times, letter in Shape(text).axes
            if letter and times > 1
        },
        {
            eqn.invars[0]
            for _, eqn in found
            if eqn.primitive.name in PARTING and isinstance(eqn.invars[0], Var)
        },
    )
    steps = case.sizes.get(oracle.pair.time or "", 1)
    groups = list(_unrolled(found, steps))
    loop = states([g for g in groups if len(g) == steps and len(g[0][0]) == 1], known)
    grouped = [([site for site, _ in group], group[0][1]) for group in groups]
    alone = [([site], eqn) for site, eqn in found]
    for kind, places in (("at every step", grouped), ("", alone)):
        for misread in (
            of_function,
            of_product,
            of_scan,
            of_choice,
            of_gates,
            of_sum,
            of_overwritten,
            of_table,
            of_any,
        ):
            several = [
                (at_line(text, eqn), Change(at, apply, *besides))
                for at, eqn in places
                for text, apply, *besides in misread(eqn, known)
            ]
            yield from altered.together(several, f"{misread.__name__} {kind}")
        if not kind:
            continue
        yield from altered.together(
            [once for group in groups for once in _once(group, known)], "once"
        )
        yield from altered.together(list(of_carries(loop, steps)), "loop")
        for text, made in of_products(loop, closed):
            yield Suspect(text, partial(altered.answer, altered.twin(made)), "loop")

    scans = [(site, eqn) for site, eqn in found if eqn.primitive.name == "scan"]
    forward = len(scans) == 1 and not scans[0][1].params["reverse"]

    def cut_at(t: int) -> Twin:
        """Nothing is carried back into step t."""
        if not forward:
            return altered.changed(cut(loop, partial(ne, t)))
        ((site, eqn),) = scans
        return altered.changed(Change([site], on_operands(carries(eqn), partial(ne, t))))

    if forward or loop:
        yield from of_windows(oracle, case, drawn, dtype, right, cut_at)


def _unrolled(found: Sequence[tuple[Site, Any]], steps: int) -> Iterator[Group]:
    """The equations that a loop in Python, or a helper, makes of one piece of text.

    Those of all steps, for each of as many places as a step has; then all of them.
    """
    alike: dict[Any, list[tuple[Site, Any]]] = {}
    for site, eqn in found:
        shapes = [getattr(a.aval, "shape", None) for a in eqn.invars]
        alike.setdefault((eqn.primitive.name, source(eqn), str(shapes)), []).append((site, eqn))
    for group in alike.values():
        each = len(group) // steps if steps > 1 and len(group) % steps == 0 else 0
        groups = [group[i::each] for i in range(each)]
        for several in groups if each == 1 else [*groups, group]:
            if len(several) > 1:
                yield several


def _once(group: Group, known: Known) -> Iterator[tuple[str, Change]]:
    """A product at every step with the same factor, which counts at one step only: = for +=."""
    eqn = group[0][1]
    if eqn.primitive.name != "dot_general":
        return
    for i in (0, 1):
        factors = {name_of(known, eqn.invars[i], "") for _, eqn in group}
        for word, others in (("first", group[1:]), ("last", group[:-1])):
            if len(factors) == 1 and (factor := min(factors)):
                text = f"only the {word} step counts for {factor} (= for +=):"
                yield at_line(text, eqn), Change([site for site, _ in others], without_path(i))


def distinct(oracle: Oracle, case: Case) -> Case:
    """A case like this one in which no two sizes are equal and all values are plain.

    Small enough to be quick, and large enough that different mistakes differ in it.
    """
    fills = dict.fromkeys(case.fills, "normal:0")
    return replace(case, sizes=distinct_sizes(oracle.pair), fills=fills)


def distinct_sizes(pair: Pair) -> dict[str, int]:
    """A size for each letter, no two equal: 4 steps, 3 sequences."""
    letters = sorted(pair.letters(), key=lambda x: (x != pair.time, x != pair.batch))
    if pair.time not in letters:
        letters = ["", *letters]
    sizes = dict(zip(letters, (4, 3, 2, 5, 6, 7, 8, *range(9, 99)), strict=False))
    return {letter: sizes[letter] for letter in pair.letters()}
