"""Mistakes in a recurrence: in what is carried back, and in what is added up over the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import ne
from typing import Any

import jax.numpy as jnp

from bptt_verify.interpreter import is_float
from bptt_verify.surgery import (
    Change,
    OnOperands,
    Site,
    Step,
    Values,
    as_if,
    evaluate,
    misread_factor,
    reads,
    sites,
    still,
)
from bptt_verify.suspects.suspect import Known, Misread, name_of, where
from bptt_verify.suspects.terms import of_function


def of_scan(eqn: Any, known: Known) -> Misread:
    """Of a recurrence: what is carried, and what is added up over the steps."""
    if eqn.primitive.name != "scan":
        return
    p = eqn.params
    n, m, length = p["num_consts"], p["num_carry"], p["length"]
    if length < 2:
        return
    last = 0 if p["reverse"] else length - 1
    first = length - 1 - last

    def new_state(site: Site, i: int, k: int) -> Any:
        """A product with the state takes the one after the step for its other factor."""

        def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
            after = still(run(*x)[k - n])

            def product(_: Any, x: Values, run: Callable[..., Values]) -> Values:
                return misread_factor(i, after, x, run)

            return evaluate(step.body, x, Change([site], product))

        return apply

    def on_part(site: Site, wrong: Any, carry: bool) -> Any:
        """A change that counts for the carry alone, or for the outputs alone."""

        def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
            right, other = run(*x), evaluate(step.body, x, Change([site], wrong))
            return [*other[:m], *right[m:]] if carry else [*right[:m], *other[m:]]

        return apply

    carried = carries(eqn)
    states = {k: f"state {k - n + 1} of {m}" if m > 1 else "the state" for k in carried}
    for k in carried:
        if name := name_of(known, eqn.invars[k], ""):
            states[k] = f"the state that starts as {name}"
        for site, i, product in reads(p["jaxpr"].jaxpr, p["jaxpr"].jaxpr.invars[k]):
            yield (
                f"the new value of {states[k]} stands where the previous state is meant "
                f"{where(product)}, in the scan",
                new_state(site, i, k),
            )
        yield (
            f"the previous value of {states[k]} stands where the new one is meant:",
            _previous(p["jaxpr"].jaxpr, n, k),
        )
    groups = {states[k]: [k] for k in carried}
    if len(carried) > 1:
        groups["every state"] = carried
    for of, ks in groups.items():
        for text, kept in cuts(of, length, last):
            yield text, on_operands(ks, kept)
    for which, name in ((first, "first"), (last, "last")):
        text = f"the {name} step is left out of the loop that goes back"
        yield f"{text}:", _left_out(which, n, m, passes=True)
        yield f"{text}, and nothing is carried past it:", _left_out(which, n, m, passes=False)
    for site, inner in sites(p["jaxpr"].jaxpr):
        for text, apply in islice(of_function(inner, known), 2):
            for part, carry in (("in what is carried back", True), ("in the outputs", False)):
                yield f"{text} {part} {where(inner)}, in the scan", on_part(site, apply, carry)
    for k in range(n):
        if is_float(eqn.invars[k]):
            of = name_of(known, eqn.invars[k], f"an array {eqn.invars[k].aval.shape}")
            yield (
                f"only the first step counts for {of} (= for +=):",
                on_operands([k], lambda t: t == first),
            )
            yield (
                f"only the last step counts for {of} (= for +=):",
                on_operands([k], lambda t: t == last),
            )
            yield f"the first step does not count for {of}:", on_operands([k], lambda t: t != first)
            yield f"the last step does not count for {of}:", on_operands([k], lambda t: t != last)


def on_operands(ks: Sequence[int], kept: Callable[[Any], Any]) -> OnOperands:
    """These operands of a step count where `kept`, as a function of the step, is true."""

    def made(step: Step, x: Values) -> Values:
        return [jnp.where(kept(step.t), a, still(a)) if k in ks else a for k, a in enumerate(x)]

    return OnOperands(made)


def carries(eqn: Any) -> list[int]:
    """Which operands of a scan are states of floats."""
    n, m = eqn.params["num_consts"], eqn.params["num_carry"]
    return [k for k in range(n, n + m) if is_float(eqn.invars[k])]


def cuts(of: str, length: int, last: int) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Where what is carried back in these states may be cut: it is kept where, of the step, true.

    The step numbered `last` is the last in time, 0 in a loop that runs in reverse.
    """
    first = length - 1 - last
    yield f"{of} is not carried back:", lambda t: t == first
    yield f"{of} is not carried back, nor to its initial value:", lambda t: t < 0
    yield f"{of} does not reach its initial value:", lambda t: t != first
    for back in range(1, length - 1):
        over = f"{back} step{'s' * (back > 1)}"
        cut = last - back if last else back
        yield f"{of} is carried back over {over} only:", partial(ne, cut)
    for size in range(2, length):

        def inside(t: Any, size: int = size) -> Any:
            steps = t - first if last else first - t
            return (steps % size != 0) | (steps == 0)

        yield f"{of} is carried back within chunks of {size} steps only:", inside


def _previous(body: Any, consts: int, k: int) -> Any:
    """What is made of the new value of state k in the same step is made of the previous one."""
    made = body.outvars[k - consts]
    places = [
        site
        for site, eqn in sites(body)
        if len(site) == 1 and made in eqn.outvars and eqn.primitive.name != "scan"
    ]

    def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
        def stale(eqn: Any, operands: Values, run: Callable[..., Values]) -> Values:
            return [
                as_if(x[k], y) if var is made else y
                for var, y in zip(eqn.outvars, run(*operands), strict=True)
            ]

        right, wrong = run(*x), evaluate(step.body, x, Change(places, stale))
        return [
            as_if(a, b) if has_dtype_of_floats(a) else a for a, b in zip(right, wrong, strict=True)
        ]

    return apply


def _left_out(which: int, n: int, m: int, *, passes: bool) -> Any:
    """A step that the backward pass skips: what is carried back passes it by, or ends there."""

    def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
        out = run(*x)
        skipped = [
            as_if(y, x[n + k]) if passes and k < m and has_dtype_of_floats(y) else still(y)
            for k, y in enumerate(out)
        ]
        return [jnp.where(step.t == which, wrong, y) for wrong, y in zip(skipped, out, strict=True)]

    return apply


def has_dtype_of_floats(value: Any) -> bool:
    """Whether a value that is being traced is of floats."""
    return bool(jnp.issubdtype(jnp.result_type(value), jnp.floating))
