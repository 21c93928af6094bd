"""Likely mistakes: what each would make of the gradients, found by asking the twin.

A suspect is a wrong backward pass in words ("the derivative of tanh was left out, cell.py:14") and
the answer it would give. Which suspects there are follows from the pair and from the twin's jaxpr
alone, so it works for any cell; which one is right is for `bptt_verify.localise` to find out.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations, islice
from operator import ne
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import Literal

from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Answer, Expected, Oracle
from bptt_verify.shapes import Shape
from bptt_verify.surgery import (
    Change,
    Site,
    Step,
    Values,
    as_if,
    evaluate,
    names,
    reads,
    sites,
    slope,
    still,
)

UNARY = {
    *("tanh", "logistic", "exp", "exp2", "expm1", "log", "log1p", "sin", "cos", "sqrt", "rsqrt"),
    *("erf", "square", "integer_pow", "custom_jvp_call", "custom_vjp_call", "sinh", "cosh", "atan"),
}
SUMS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}


class Suspect(NamedTuple):
    """A possible mistake, and the answer that a backward pass with it gives."""

    text: str
    answer: Callable[[], Answer]
    kind: str


def suspects(oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]) -> Iterator[Suspect]:
    """All suspects for a case, the plain ones first."""
    right = oracle.answer(case, drawn, dtype)
    yield from _cotangents(oracle, case, drawn, dtype)
    yield from _options(oracle, case, drawn, dtype)
    yield from _results(oracle, case, right)
    closed = oracle.forward_jaxpr(case, drawn)
    results = sorted([*oracle.pair.outputs, *oracle.pair.probes])

    def changed(change: Change) -> Callable[[], Answer]:
        def twin(inputs: dict[str, Any]) -> dict[str, Any]:
            arguments = jax.tree.leaves(inputs)
            return dict(zip(results, evaluate(closed, arguments, change), strict=True))

        return lambda: oracle.answer(case, drawn, dtype, twin=twin)

    inputs = sorted([*oracle.pair.inputs, *oracle.pair.taps])
    found = list(sites(closed.jaxpr))
    known = Known(
        names(closed.jaxpr, dict(zip(closed.jaxpr.invars, inputs, strict=True))),
        {var: eqn for _, eqn in found for var in eqn.outvars},
    )
    for misread in (_of_function, _of_product, _of_scan, _of_sum, _of_any):
        for site, eqn in found:
            for text, apply, *besides in misread(eqn, known):
                kind = misread.__name__
                yield Suspect(f"{text} {_where(eqn)}", changed(Change(site, apply, *besides)), kind)


# --- mistakes in what comes in: the cotangents


def _cotangents(
    oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]
) -> Iterator[Suspect]:
    pair = oracle.pair
    for name, cotangent in drawn.cotangents.items():
        letters = [letter for _, letter in Shape(pair.outputs[name]).axes]
        found = {"was dropped": np.zeros_like(cotangent), "has the wrong sign": -cotangent}
        if pair.time in letters:
            axis = letters.index(pair.time)
            n = cotangent.shape[axis]
            steps = np.moveaxis(cotangent, axis, 0)
            late, early, last = (np.zeros_like(steps) for _ in range(3))
            late[1:], early[:-1], last[-1] = steps[:-1], steps[1:], steps[-1]
            kinds = {
                "is read one step too late": early,
                "is read one step too early": late,
                "counts at the last step only": last,
                "counts at all but the last step": steps - last,
                "is read in reverse order": steps[::-1],
                "is read one step too late, around the end": np.roll(steps, -1, 0),
                "is read one step too early, around the end": np.roll(steps, 1, 0),
            }
            found |= {k: np.moveaxis(v, 0, axis) for k, v in kinds.items() if n > 1}
        for text, wrong in found.items():
            other = Drawn(drawn.inputs, {**drawn.cotangents, name: np.ascontiguousarray(wrong)})
            yield Suspect(
                f"the cotangent of {name} {text}",
                lambda other=other: oracle.answer(case, other, dtype),  # type: ignore[misc]
                "cotangent",
            )


# --- another setting


def _options(oracle: Oracle, case: Case, drawn: Drawn, dtype: np.dtype[Any]) -> Iterator[Suspect]:
    for name, values in oracle.pair.options.items():
        now = case.options[name]
        near = [now - 1, now + 1] if type(now) is int else []
        for value in dict.fromkeys([*near, *values]):
            if value != now and not (type(value) is int and value < 0):
                other = replace(case, options={**case.options, name: value})
                yield Suspect(
                    f"the gradients are those of {name}={value}",
                    lambda other=other: oracle.answer(other, drawn, dtype),  # type: ignore[misc]
                    "option",
                )


# --- mistakes in what goes out: one gradient


def _results(oracle: Oracle, case: Case, right: Answer) -> Iterator[Suspect]:
    pair = oracle.pair
    gradients = [f"d{name}" for name in pair.differentiable]

    def with_one(name: str, wrong: Expected) -> Callable[[], Answer]:
        return lambda: right._replace(quantities={**right.quantities, name: wrong})

    for name in [*gradients, *pair.taps]:
        value, sigma = right.quantities[name]
        axes = Shape(pair.shapes()[name]).axes
        kinds = {"is zero": (np.zeros_like(value), sigma * 0)}
        if value.ndim == 2 and value.shape[0] == value.shape[1]:
            kinds["is transposed"] = value.T, sigma.T
        for i, (_, letter) in enumerate(axes):
            if value.shape[i] > 1:
                along = f"along {letter or i}"
                kinds[f"is in reverse order {along}"] = np.flip(value, i), np.flip(sigma, i)
                for shift in (1, -1):
                    kinds[f"is shifted by {shift} {along}"] = (
                        np.roll(value, shift, i),
                        np.roll(sigma, shift, i),
                    )
        for text, factor in _factors(case, pair.time, pair.batch):
            kinds[f"is {text} of what it should be"] = factor * value, abs(factor) * sigma
        for text, (wrong, spread) in kinds.items():
            yield Suspect(f"{name} {text}", with_one(name, Expected(wrong, spread)), "result")
    for one, two in combinations(gradients, 2):
        a, b = right.quantities[one], right.quantities[two]
        if a.value.shape == b.value.shape:
            swapped = right._replace(quantities={**right.quantities, one: b, two: a})
            yield Suspect(f"{one} and {two} are swapped", lambda swapped=swapped: swapped, "result")  # type: ignore[misc]
            yield Suspect(f"{one} holds {two}", with_one(one, b), "result")
            yield Suspect(f"{two} holds {one}", with_one(two, a), "result")


def _factors(case: Case, time: str | None, batch: str | None) -> Iterator[tuple[str, float]]:
    n = {letter: case.sizes[letter] for letter in (time, batch) if letter and letter in case.sizes}
    if time in n and batch in n and n[str(time)] > 1 and n[str(batch)] > 1:
        both = n[str(time)] * n[str(batch)]
        yield f"1/{time}{batch} (a mean for a sum)", 1 / both
    for letter, size in n.items():
        if size > 1:
            yield f"1/{letter} (a mean for a sum)", 1 / size
            yield f"{letter} times", float(size)
    yield from (("-1 times", -1.0), ("twice", 2.0), ("half", 0.5))


# --- mistakes inside: one equation of the twin, misread


class Known(NamedTuple):
    """What is known about the values of the twin."""

    names: dict[Any, str]
    makers: dict[Any, Any]
    """The equation that a value is the result of."""


Misread = Iterator[tuple[Any, ...]]
"""Words, what `Change.apply` is to be, and what `Change.besides`, if anything."""


def _of_function(eqn: Any, known: Known) -> Misread:
    """Of y = f(x), each entry by itself."""
    name = eqn.primitive.name
    x = [v for v in eqn.invars if getattr(v.aval, "shape", None) is not None]
    if name not in UNARY or len(x) != 1 or len(eqn.outvars) != 1:
        return
    if x[0].aval.shape != eqn.outvars[0].aval.shape or not _floats(x[0]):
        return
    f = _called(eqn)

    def prime(g: Callable[[Any, Any, Callable[[Any], Any]], Any]) -> Any:
        def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
            (y,) = run(*x)

            def derivative(at: Any) -> Any:
                _, vjp = jax.vjp(lambda x: run(x)[0], at)
                return vjp(jnp.ones_like(at))[0]

            return [slope(y, x[0], g(x[0], y, derivative))]

        return apply

    yield f"the derivative of {f} is missing", prime(lambda x, y, d: jnp.ones_like(y))
    yield f"the derivative of {f} was applied twice", prime(lambda x, y, d: d(x) ** 2)
    yield f"the derivative of {f} was taken at {f} of its argument", prime(lambda x, y, d: d(y))
    yield f"{f} itself stands for its derivative", prime(lambda x, y, d: y)
    yield f"1 - y stands for the derivative of y = {f}", prime(lambda x, y, d: 1 - y)
    yield f"1 - y² stands for the derivative of y = {f}", prime(lambda x, y, d: 1 - y * y)
    yield f"y (1 - y) stands for the derivative of y = {f}", prime(lambda x, y, d: y * (1 - y))
    yield f"the path through {f} is missing", prime(lambda x, y, d: jnp.zeros_like(y))


def _of_product(eqn: Any, known: Known) -> Misread:
    """Of y = a b, a product of entries or of matrices."""
    name = eqn.primitive.name
    if name not in ("mul", "dot_general", "div") or not all(map(_floats, eqn.invars)):
        return

    def one_side(i: int) -> Any:
        def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
            return run(*(still(a) if k == i else a for k, a in enumerate(x)))

        return apply

    if name == "dot_general":
        for i in (0, 1):
            shape = eqn.invars[i].aval.shape
            if len(shape) == 2 and shape[0] == shape[1] > 1:
                matrix = _name(known, eqn.invars[i], "A")
                yield (
                    f"{matrix} is transposed, or {matrix}ᵀ is not, in the product",
                    _transposed(i),
                )
    if name == "mul" and eqn.invars[0].aval.shape == eqn.invars[1].aval.shape:
        for i in (0, 1):
            yield "a factor is multiplied by itself, not by the other one:", _itself(i)
            yield "a factor of the product is missing:", _factor_missing(i)
            maker = (
                None
                if isinstance(eqn.invars[1 - i], Literal)
                else known.makers.get(eqn.invars[1 - i])
            )
            if maker and maker.primitive.name in UNARY and len(maker.invars) == 1:
                yield (
                    f"the argument of {_called(maker)} stands where {_called(maker)} is meant:",
                    _argument(i),
                    (maker.invars[0],),
                )
    for i in (0, 1):
        factor = _name(known, eqn.invars[i], f"the {('first', 'second')[i]} factor")
        yield f"the path through {factor} is missing from the product:", one_side(i)


def _transposed(i: int) -> Any:
    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        wrong = [still(a).T if k == i else a for k, a in enumerate(x)]
        right = [a if k == i else still(a) for k, a in enumerate(x)]
        return [as_if(run(*x)[0], run(*wrong)[0] + run(*right)[0])]

    return apply


def _itself(i: int) -> Any:
    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        a, b = x[i], x[1 - i]
        return [as_if(run(*x)[0], a * still(a) + still(a) * b)]

    return apply


def _factor_missing(i: int) -> Any:
    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        a, b = x[i], x[1 - i]
        return [as_if(run(*x)[0], a + still(a) * b)]

    return apply


def _argument(i: int) -> Any:
    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        *x, argument = x
        a, b = x[i], x[1 - i]
        return [as_if(run(*x)[0], a * still(argument) + still(a) * b)]

    return apply


def _of_sum(eqn: Any, known: Known) -> Misread:
    """Of y = a + b or a - b: a path forgotten, or with the other sign."""
    signs = SUMS.get(eqn.primitive.name)
    if signs is None or not all(map(_floats, eqn.invars)):
        return

    def weighted(weights: tuple[float, float]) -> Any:
        def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
            return [as_if(run(*x)[0], weights[0] * x[0] + weights[1] * x[1])]

        return apply

    first, second = map(float, signs)
    yield "the path through the first term is missing:", weighted((0.0, second))
    yield "the path through the second term is missing:", weighted((first, 0.0))
    yield "the first term has the wrong sign:", weighted((-first, second))
    yield "the second term has the wrong sign:", weighted((first, -second))


def _of_any(eqn: Any, known: Known) -> Misread:
    """Of any result: the wrong sign, or counted twice."""
    if len(eqn.outvars) != 1 or not _floats(eqn.outvars[0]) or eqn.primitive.name == "scan":
        return

    def scaled(factor: float) -> Any:
        def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
            (y,) = run(*x)
            return [as_if(y, factor * y)]

        return apply

    yield "the derivative has the wrong sign:", scaled(-1.0)
    yield "the derivative is counted twice:", scaled(2.0)


def _of_scan(eqn: Any, known: Known) -> Misread:
    """Of a recurrence: what is carried, and what is added up over the steps."""
    if eqn.primitive.name != "scan":
        return
    p = eqn.params
    n, m, length = p["num_consts"], p["num_carry"], p["length"]
    if length < 2:
        return
    last = 0 if p["reverse"] else length - 1
    first = length - 1 - last

    def on_operand(k: int, kept: Callable[[Any], Any]) -> Any:
        """Operand k of a step counts where `kept`, as a function of the step, is true."""

        def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
            x = list(x)
            x[k] = jnp.where(kept(step.t), x[k], still(x[k]))
            return run(*x)

        return apply

    def new_state(site: Site, i: int, k: int) -> Any:
        """A product with the state takes the one after the step for its other factor."""

        def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
            after = still(run(*x)[k - n])

            def product(_: Any, x: Values, run: Callable[..., Values]) -> Values:
                wrong = [after if j == i else a for j, a in enumerate(x)]
                right = [a if j == i else still(a) for j, a in enumerate(x)]
                return [as_if(run(*x)[0], run(*wrong)[0] + run(*right)[0])]

            return evaluate(step.body, x, Change(site, product))

        return apply

    def on_part(site: Site, wrong: Any, carry: bool) -> Any:
        """A change that counts for the carry alone, or for the outputs alone."""

        def apply(step: Step, x: Values, run: Callable[..., Values]) -> Values:
            right, other = run(*x), evaluate(step.body, x, Change(site, wrong))
            return [*other[:m], *right[m:]] if carry else [*right[:m], *other[m:]]

        return apply

    carried = [k for k in range(n, n + m) if _floats(eqn.invars[k])]
    states = {k: f"state {k - n + 1} of {m}" if m > 1 else "the state" for k in carried}
    for k in carried:
        if name := _name(known, eqn.invars[k], ""):
            states[k] = f"the state that starts as {name}"
        for site, i, product in reads(p["jaxpr"].jaxpr, p["jaxpr"].jaxpr.invars[k]):
            yield (
                f"the new value of {states[k]} stands where the previous state is meant "
                f"{_where(product)}, in the scan",
                new_state(site, i, k),
            )
        yield f"{states[k]} is not carried back:", on_operand(k, lambda t: t == first)
        yield (
            f"{states[k]} is not carried back, nor to its initial value:",
            (on_operand(k, lambda t: t < 0)),
        )
        yield f"{states[k]} does not reach its initial value:", on_operand(k, lambda t: t != first)
        for back in range(1, length - 1):
            over = f"{back} step{'s' * (back > 1)}"
            cut = last - back if last else back
            yield f"{states[k]} is carried back over {over} only:", on_operand(k, partial(ne, cut))
    for site, inner in sites(p["jaxpr"].jaxpr):
        for text, apply in islice(_of_function(inner, known), 2):
            for where, carry in (("in what is carried back", True), ("in the outputs", False)):
                yield f"{text} {where} {_where(inner)}, in the scan", on_part(site, apply, carry)
    for k in range(n):
        if _floats(eqn.invars[k]):
            of = _name(known, eqn.invars[k], f"an array {eqn.invars[k].aval.shape}")
            yield (
                f"only the first step counts for {of} (= for +=):",
                (on_operand(k, lambda t: t == first)),
            )
            yield (
                f"only the last step counts for {of} (= for +=):",
                (on_operand(k, lambda t: t == last)),
            )
            yield f"the first step does not count for {of}:", on_operand(k, lambda t: t != first)
            yield f"the last step does not count for {of}:", on_operand(k, lambda t: t != last)


# --- words


def _name(known: Known, atom: Any, otherwise: str) -> str:
    return otherwise if isinstance(atom, Literal) else known.names.get(atom, otherwise)


def _floats(atom: Any) -> bool:
    return getattr(atom.aval.dtype, "kind", "") == "f"


def _called(eqn: Any) -> str:
    name: str = eqn.primitive.name
    if name.startswith("custom_"):
        inner = eqn.params["call_jaxpr"].jaxpr.eqns
        name = str(inner[0].params.get("name", name)) if inner else name
    return {"logistic": "sigmoid", "integer_pow": "a power"}.get(name, name)


def _where(eqn: Any) -> str:
    """The line of the twin that an equation comes from."""
    found = re.match(r"(.+?):(\d+)(?::\d+)?(?: |$)", source_info_util.summarize(eqn.source_info))
    if not found:
        return ""
    path, line = found[1], int(found[2])
    text = linecache.getline(path, line).strip()
    place = f"{Path(path).name}:{line}"
    return f"({place}: {text})" if text else f"({place})"


def distinct(oracle: Oracle, case: Case) -> Case:
    """A case like this one in which no two sizes are equal and all values are plain.

    Small enough to be quick, and large enough that different mistakes differ in it.
    """
    pair = oracle.pair
    letters = sorted(pair.letters(), key=lambda x: (x != pair.time, x != pair.batch))
    if pair.time not in letters:
        letters = ["", *letters]
    sizes = dict(zip(letters, (4, 2, 3, 5, 6, 7, 8, *range(9, 99)), strict=False))
    sizes = {letter: sizes[letter] for letter in pair.letters()}
    return replace(case, sizes=sizes, fills=dict.fromkeys(case.fills, "normal:0"))
