"""Mistakes in one equation of the twin, misread: a function, a product, a sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from bptt_verify.interpreter import is_float
from bptt_verify.surgery import Values, as_if, bind, misread_factor, slope, still
from bptt_verify.suspects.suspect import Known, Misread, called, name_of, swaps

UNARY = {
    *("tanh", "logistic", "exp", "exp2", "expm1", "log", "log1p", "sin", "cos", "sqrt", "rsqrt"),
    *("erf", "square", "integer_pow", "custom_jvp_call", "custom_vjp_call", "sinh", "cosh", "atan"),
}
MOST_INDICES = 1024
"""Into a table: each is compared with each."""

SUMS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}


def of_function(eqn: Any, known: Known) -> Misread:
    """Of y = f(x), each entry by itself."""
    name = eqn.primitive.name
    x = [v for v in eqn.invars if getattr(v.aval, "shape", None) is not None]
    if name not in UNARY or len(x) != 1 or len(eqn.outvars) != 1:
        return
    if x[0].aval.shape != eqn.outvars[0].aval.shape or not is_float(x[0]):
        return
    f = called(eqn)

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
    yield f"(1 - y)² stands for the derivative of y = {f}", prime(lambda x, y, d: (1 - y) ** 2)
    yield f"1 - x² stands for the derivative of {f} at x", prime(lambda x, y, d: 1 - x * x)
    yield f"x (1 - x) stands for the derivative of {f} at x", prime(lambda x, y, d: x * (1 - x))
    yield f"the path through {f} is missing", prime(lambda x, y, d: jnp.zeros_like(y))


def of_product(eqn: Any, known: Known) -> Misread:
    """Of y = a b, a product of entries or of matrices."""
    name = eqn.primitive.name
    if name not in ("mul", "dot_general", "div") or not all(map(is_float, eqn.invars)):
        return
    if name == "dot_general":
        for i in (0, 1):
            yield from _of_matrix(eqn, known, i)
    if name == "mul" and eqn.invars[0].aval.shape == eqn.invars[1].aval.shape:
        for i in (0, 1):
            yield "a factor is multiplied by itself, not by the other one:", _itself(i)
            yield "a factor of the product is missing:", _factor_missing(i)
            maker = _maker(known, eqn.invars[1 - i])
            if maker and maker.primitive.name in UNARY and len(maker.invars) == 1:
                yield (
                    f"the argument of {called(maker)} stands where {called(maker)} is meant:",
                    _argument(i),
                    # of each equation its own: a loop in Python has one for every step
                    lambda eqn, i=i: tuple(_maker(known, eqn.invars[1 - i]).invars),
                )
    for i in (0, 1):
        factor = name_of(known, eqn.invars[i], f"the {('first', 'second')[i]} factor")
        yield f"the path through {factor} is missing from the product:", without_path(i)


def _maker(known: Known, atom: Any) -> Any:
    return None if isinstance(atom, Literal) else known.makers.get(atom)


def without_path(i: int) -> Any:
    """Nothing goes back through operand i."""

    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        return run(*(still(a) if k == i else a for k, a in enumerate(x)))

    return apply


def _of_matrix(eqn: Any, known: Known, i: int) -> Misread:
    """Of a product with a square matrix, or with several side by side, such as those of gates."""
    shape = eqn.invars[i].aval.shape
    if len(shape) != 2:
        return
    matrix = name_of(known, eqn.invars[i], "A")
    if shape[0] == shape[1] > 1:
        text = f"{matrix} is transposed, or {matrix}ᵀ is not, in the product"
        yield text, _instead(i, jnp.transpose)
    for axis, blocks in ((k, known.gates[n]) for k, n in enumerate(shape) if n in known.gates):
        if shape[1 - axis] * blocks == shape[axis]:
            yield (
                f"each of the {blocks} blocks of {matrix} is transposed, or its transpose is not, "
                "in the product",
                _instead(i, partial(_by_block, axis, [jnp.transpose] * blocks)),
            )
        for k in range(blocks):
            one = [jnp.asarray if j == k else jnp.zeros_like for j in range(blocks)]
            others = [jnp.zeros_like if j == k else jnp.asarray for j in range(blocks)]
            block = f"block {k + 1} of {blocks} of {matrix}"
            yield (
                f"the path through {block} is missing from the product",
                _instead(i, partial(_by_block, axis, others)),
            )
            yield (
                f"only the path through {block} counts in the product",
                _instead(i, partial(_by_block, axis, one)),
            )


def _by_block(axis: int, made: Sequence[Callable[[Any], Any]], a: Any) -> Any:
    """The array with something made of each of its blocks."""
    parts = jnp.split(a, len(made), axis)
    return jnp.concatenate([make(part) for make, part in zip(made, parts, strict=True)], axis)


def of_choice(eqn: Any, known: Known) -> Misread:
    """Of a choice entry by entry, such as jnp.where: one side of it forgotten."""
    if eqn.primitive.name != "select_n" or not is_float(eqn.outvars[0]):
        return
    words = {1: "second", 2: "first"}  # select_n has them the other way round
    for i in range(1, len(eqn.invars)):
        if not isinstance(eqn.invars[i], Literal):
            side = name_of(known, eqn.invars[i], f"the {words.get(i, i)} choice")
            yield f"the path through {side} is missing where it was chosen:", without_path(i)


def of_gates(eqn: Any, known: Known) -> Misread:
    """Of a value that is split into gates: two of them in each other's place."""
    if len(eqn.outvars) != 1 or eqn.outvars[0] not in known.parted:
        return

    def in_order(axis: int, order: Sequence[int]) -> Any:
        def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
            (y,) = run(*x)
            parts = jnp.split(y, len(order), axis)
            return [as_if(y, jnp.concatenate([parts[k] for k in order], axis))]

        return apply

    shape = eqn.outvars[0].aval.shape
    for axis, n in enumerate(shape):
        blocks = known.gates.get(n, 1)
        for i, j, order in swaps(blocks):
            yield f"gates {i} and {j} of {blocks} are swapped:", in_order(axis, order)


def _instead(i: int, wrong: Callable[[Any], Any]) -> Any:
    """For the other factor, the product is one with something else in place of factor i."""

    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        return misread_factor(i, wrong(still(x[i])), x, run)

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


def of_sum(eqn: Any, known: Known) -> Misread:
    """Of y = a + b or a - b: a path forgotten, or with the other sign."""
    signs = SUMS.get(eqn.primitive.name)
    if signs is None or not all(map(is_float, eqn.invars)):
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


def of_overwritten(eqn: Any, known: Known) -> Misread:
    """Of y = a + b: what goes back to one term is made in place, and then goes to the other too.

    As `dh *= 1 - z` makes it for (1 - z) ⊙ n before z ⊙ h_{t-1} gets dh. Where a is a product p q,
    only p or q may get it, if the other was served before.
    """
    signs = SUMS.get(eqn.primitive.name)
    if signs is None or not all(map(is_float, eqn.invars)):
        return
    words = "first", "second"
    for i in (0, 1):
        mine, other = (_entrywise(known, atom) for atom in (eqn.invars[i], eqn.invars[1 - i]))
        if other is None or isinstance(eqn.invars[i], Literal):
            continue
        made = f"what was multiplied in place for the {words[1 - i]} term:"
        served = [f"the {words[i]} term"]
        if mine is not None and mine.primitive.name == "mul":
            served += [f"the {word} factor of the {words[i]} term" for word in words]
        for target, whom in enumerate(served):
            for j in range(len(other.invars)):
                apply = _overwritten(known, i, j, target)
                yield f"{whom} gets {made}", apply, partial(_operands_of_both, known, i)


def _operands_of_both(known: Known, i: int, eqn: Any) -> tuple[Any, ...]:
    """Of what makes the other term of a sum, then of what makes term i."""
    makers = (_entrywise(known, eqn.invars[k]) for k in (1 - i, i))
    return tuple(var for maker in makers if maker for var in maker.invars)


def _entrywise(known: Known, atom: Any) -> Any:
    """The product of entries, or the function of them, that a value is; None if it is neither."""
    maker = _maker(known, atom)
    if maker is None or any(isinstance(a, Literal) or not is_float(a) for a in maker.invars):
        return None
    alike = {a.aval.shape for a in (*maker.invars, *maker.outvars)}
    operands = 2 if maker.primitive.name == "mul" else 1 if maker.primitive.name in UNARY else 0
    return maker if len(maker.invars) == operands and len(alike) == 1 else None


def _overwritten(known: Known, i: int, j: int, target: int) -> Any:
    """Term i, or a factor of it, gets d times what the other term's operand j is multiplied by."""

    def apply(eqn: Any, x: Values, run: Callable[..., Values]) -> Values:
        signs = SUMS[eqn.primitive.name]
        mine, other = (_entrywise(known, eqn.invars[k]) for k in (i, 1 - i))
        product = mine is not None and mine.primitive.name == "mul"
        if other is None or j >= len(other.invars) or (target and not product):
            return run(*x[:2])  # of all steps, that one has another form
        others = x[2 : 2 + len(other.invars)]
        if len(others) == 2:
            factor = others[1 - j]
        else:
            _, vjp = jax.vjp(lambda at: bind(other, at)[0], others[0])
            (factor,) = vjp(jnp.ones_like(others[0]))
        if target:
            p, q = x[2 + len(other.invars) :]
            of_p, of_q = p * still(q), still(p) * q
            read = of_p * still(factor) + of_q if target == 1 else of_p + of_q * still(factor)
        else:
            read = x[i] * still(factor)
        return [as_if(run(*x[:2])[0], signs[i] * read + signs[1 - i] * x[1 - i])]

    return apply


def of_table(eqn: Any, known: Known) -> Misread:
    """Of rows that are looked up by an index: one that is there twice counts once.

    So adds `dE[i] += d` in NumPy, in all that i names or in each step by itself; `np.add.at` does
    not.
    """
    if eqn.primitive.name != "gather" or not is_float(eqn.invars[0]):
        return
    numbers = eqn.params["dimension_numbers"]
    looked_up = eqn.invars[1].aval.shape[:-1]
    if numbers.operand_batching_dims or not 2 <= math.prod(looked_up) <= MOST_INDICES:
        return
    table = name_of(known, eqn.invars[0], "the table")
    way = "only the last one counts (d[i] += … where np.add.at is meant):"
    yield f"of equal indices into {table} {way}", _last_one(numbers.offset_dims, ())
    if len(looked_up) > 1:
        for axis in range(len(looked_up)):
            some = f"of equal indices into {table} at the same place on axis {axis}"
            yield f"{some} {way}", _last_one(numbers.offset_dims, (axis,))


def _last_one(offset: Sequence[int], alike: Sequence[int]) -> Any:
    """Nothing goes back to a row but from the last index of it, among those alike on these axes."""

    def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
        table, index = x
        shape = index.shape[:-1]
        places = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), -1)
        same = [index.reshape(-1, index.shape[-1])]
        same += [places[..., axis].reshape(-1, 1) for axis in alike]
        rows = jnp.concatenate(same, -1)
        equal = (rows[:, None] == rows[None]).all(-1)
        again = jnp.triu(equal, 1).any(-1).reshape(shape)  # there is such an index further on
        counts = jnp.expand_dims(jnp.where(again, 0.0, 1.0), tuple(offset))
        (y,) = run(table, index)
        return [as_if(y, y * counts)]

    return apply


def of_any(eqn: Any, known: Known) -> Misread:
    """Of any result: the wrong sign, or counted twice."""
    if len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]) or eqn.primitive.name == "scan":
        return

    def scaled(factor: float) -> Any:
        def apply(_: Any, x: Values, run: Callable[..., Values]) -> Values:
            (y,) = run(*x)
            return [as_if(y, factor * y)]

        return apply

    yield "the derivative has the wrong sign:", scaled(-1.0)
    yield "the derivative is counted twice:", scaled(2.0)
