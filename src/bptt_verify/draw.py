"""Drawing cases: shapes, options and values.

A `Case` is a short recipe, not the arrays: sizes, options, a kind of filling for every array, a
seed. So it shrinks fast, prints on one line, and that line gives the same arrays again.

What hides wrong gradients is drawn against: sizes are independent, so pairwise distinct and square
shapes both come; T = 1 comes; scales run from 1e-6 to 1e3; matrices that may carry a state get a
spectral radius near 1, so that carries do not decay; in three of ten cases all values lie on a
coarse grid, which puts relu exactly on its kink; cotangents are random, or random in one entry, and
an all-zero one only stands beside others.
"""

from __future__ import annotations

import math
import random
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bptt_verify.pair import Index, Mask, Pair, Probability
from bptt_verify.shapes import parsed

Array = NDArray[Any]

LARGEST = 8
"""The largest size drawn for a letter."""

CORNERS = 1 / 8
"""So often every size is 1 or the largest."""

MIX = 2**32 - 1
"""The largest number from which a case is made."""

# The first of each is what a failing case shrinks to. A repeated entry comes more often.
VALUES = [
    *("normal:0", "normal:0", "normal:0", "normal:-1", "normal:-3", "normal:-6"),
    *("normal:1", "normal:3", "grid", "grid", "zeros"),
]
CARRIES = [
    *("normal:0", "radius:1", "radius:1", "radius:0.9", "radius:1.1"),
    *("normal:-1", "normal:-6", "grid", "zeros"),
]
COTANGENTS = [
    *("normal:0", "normal:0", "normal:0", "normal:-6", "normal:-3", "normal:3"),
    *("single", "single"),
]
SPARE_COTANGENTS = [*COTANGENTS, "zeros"]


@dataclass(frozen=True)
class Case:
    """The recipe of one case."""

    sizes: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    fills: Mapping[str, str] = field(default_factory=dict)
    """For every float input, and "d" + output for every cotangent, how it is filled."""
    seed: int = 0

    def __str__(self) -> str:
        words = [
            *(f"{k}={v}" for k, v in self.sizes.items()),
            *(f"{k}={v}" for k, v in self.options.items()),
            *(f"{k}={v}" for k, v in self.fills.items() if v != "normal:0"),
            f"seed={self.seed}",
        ]
        return shlex.join(words)


@dataclass(frozen=True)
class Drawn:
    """The arrays of one case, floats in the dtype under test."""

    inputs: dict[str, Array]
    cotangents: dict[str, Array]


def cases(pair: Pair, largest: int = LARGEST) -> st.SearchStrategy[Case]:
    """Random cases of a pair, which shrink."""
    shapes = largest ** len(pair.letters())
    return st.builds(_builder(pair, largest), st.integers(0, MIX), st.integers(0, shapes - 1))


def several(pair: Pair, count: int, seed: int, largest: int = LARGEST) -> Iterator[Case]:
    """So many random cases; the same seed gives the same.

    Hypothesis has no part in this: to find a failure fast it makes one example from another by
    copying parts, prefers small numbers, and takes numbers from the user's own files. Here a case
    that comes twice is a case less, and the seed alone decides.
    """
    build, letters, rng = _builder(pair, largest), pair.letters(), random.Random(seed)
    for _ in range(count):
        if rng.random() < CORNERS:
            shape = sum(rng.choice((0, largest - 1)) * largest**i for i in range(len(letters)))
        else:
            shape = rng.randrange(largest ** len(letters))
        yield build(rng.randrange(1, MIX + 1), shape)


def _builder(pair: Pair, largest: int) -> Callable[[int, int], Case]:
    """How two numbers make a case: drawing each choice by itself would cost more than running it.

    The options, how the arrays are filled and the seed are read off the first; 0 is the first
    option and the plain filling. The sizes are the digits of the second; 0 is all ones.
    """
    letters = pair.letters()
    kinds = {
        name: CARRIES if parsed(shape).is_recurrent else VALUES
        for name, shape in pair.floats.items()
    }
    if "ties" in pair.without:
        kinds = {k: [v for v in kind if v not in ("grid", "zeros")] for k, kind in kinds.items()}
    names = _fill_names(pair)
    cotangents = dict.fromkeys(names, COTANGENTS if len(names) == 1 else SPARE_COTANGENTS)
    plain = dict.fromkeys([*kinds, *names], "normal:0")

    def fills(rng: random.Random) -> dict[str, str]:
        # every value on the grid: only then do sums meet a kink at exactly 0
        on_grid = rng.random() < 0.3 and "ties" not in pair.without
        found = {name: "grid" if on_grid else rng.choice(kinds[name]) for name in kinds}
        found |= {name: rng.choice(cotangents[name]) for name in names}
        if names and all(found[name] == "zeros" for name in names):
            found[rng.choice(names)] = "normal:0"
        return found

    def build(mix: int, digits: int) -> Case:
        sizes = {}
        for letter in letters:
            digits, rest = divmod(digits, largest)
            sizes[letter] = 1 + rest
        if mix == 0:
            return Case(sizes, {k: v[0] for k, v in pair.options.items()}, plain, 0)
        rng = random.Random(mix)
        options = {k: rng.choice(v) for k, v in pair.options.items()}
        return Case(sizes, options, fills(rng), mix)

    return build


def plainer(pair: Pair, case: Case) -> Iterator[Case]:
    """The case with one option the first one, sizes smaller, one array filled plainly, or seed 0.

    Sizes go down one by one, and those that are equal together: being square may be the point.
    """
    for name, values in pair.options.items():
        if case.options[name] != values[0]:
            yield replace(case, options={**case.options, name: values[0]})
    equal = [[k for k, m in case.sizes.items() if m == n] for n in set(case.sizes.values())]
    for letters in [[k] for k in case.sizes] + [group for group in equal if len(group) > 1]:
        n = case.sizes[letters[0]]
        for smaller in sorted({1, n // 2, n - 1}):
            if 0 < smaller < n:
                yield replace(case, sizes={**case.sizes, **dict.fromkeys(letters, smaller)})
    for name, kind in case.fills.items():
        if kind != "normal:0":
            yield replace(case, fills={**case.fills, name: "normal:0"})
    if case.seed:
        yield replace(case, seed=0)


def parse(pair: Pair, text: str) -> Case:
    """The case that a line describes; what the line leaves out is 1, the first option, "normal:0".

    Raises `ValueError` for a word that is no `name=value`, an unknown name, or a value that name
    cannot have.
    """
    sizes = dict.fromkeys(pair.letters(), 1)
    options = {k: v[0] for k, v in pair.options.items()}
    fills = dict.fromkeys([*pair.floats, *_fill_names(pair)], "normal:0")
    seed = 0
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"case: {error} in {text!r}") from None
    given = set[str]()
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise ValueError(f"case: expected name=value, got {word!r}")
        if name in given:
            raise ValueError(f"case: {name}: expected one value, got a second one, {value!r}")
        given.add(name)
        if name == "seed" or name in sizes:
            least = int(name in sizes)
            if not value.isdecimal() or int(value) < least:
                raise ValueError(
                    f"case: {name}: expected a whole number, at least {least}, got {value!r}"
                )
            if name == "seed":
                seed = int(value)
            else:
                sizes[name] = int(value)
        elif name in options:
            known = {str(v): v for v in pair.options[name]}
            if value not in known:
                raise ValueError(f"case: {name}: expected one of {', '.join(known)}, got {value!r}")
            options[name] = known[value]
        elif name in fills:
            _filling(value)
            fills[name] = value
        else:
            names = [*sizes, *options, *fills, "seed"]
            raise ValueError(f"case: expected one of {', '.join(names)}; got {name!r}")
    return Case(sizes, options, fills, seed)


def entries(pair: Pair, sizes: Mapping[str, int]) -> int:
    """How many numbers all arrays of a case of these sizes have together."""
    return sum(math.prod(parsed(text).sized(sizes)) for text in pair.shapes().values())


def realise(pair: Pair, case: Case, dtype: np.dtype[Any]) -> Drawn:
    """The arrays of a case."""
    rng = np.random.default_rng(case.seed)
    outputs = pair.outputs if pair.backward else {}
    floats = {**pair.floats, **{f"d{name}": text for name, text in outputs.items()}}
    shapes = {name: parsed(text) for name, text in floats.items()}
    sizes = {name: shape.sized(case.sizes) for name, shape in shapes.items()}
    counts = {name: math.prod(size) for name, size in sizes.items()}
    # one draw for all: how one is filled then leaves the others as they are
    normal, end = rng.standard_normal(sum(counts.values())), 0
    filled: dict[str, Array] = {}
    for name, shape in shapes.items():
        start, end = end, end + counts[name]
        values = fill(case.fills[name], normal[start:end].reshape(sizes[name]), shape.is_recurrent)
        filled[name] = np.asarray(values, dtype)  # NumPy makes a scalar of a product without axes
    inputs: dict[str, Array] = {}
    for name, spec in pair.inputs.items():
        size = parsed(spec if isinstance(spec, str) else spec.shape).sized(case.sizes)
        match spec:
            case Index():
                low = -1 if spec.missing else 0
                inputs[name] = rng.integers(low, parsed(spec.below).sized(case.sizes)[0], size)
            case Mask():
                inputs[name] = rng.random(size) < 0.7
            case Probability():
                inputs[name] = _probabilities(rng, size, dtype)
            case _:
                inputs[name] = filled[name]
    return Drawn(inputs, {name: filled[f"d{name}"] for name in outputs})


def fill(kind: str, normal: NDArray[np.float64], recurrent: bool) -> NDArray[np.float64]:
    """Values of the kind, made of normal ones.

    "normal:e" is normal with standard deviation 10^e, a matrix that may carry a state divided by
    the root of its columns; "radius:r" is normal, scaled to spectral radius r; "grid" is multiples
    of 1/2 from -1 to 1; "single" is normal in one entry and zero elsewhere; "zeros" is zero.
    """
    name, parameter = _filling(kind)
    if name == "zeros":
        return np.zeros_like(normal)
    if name == "grid":
        return np.clip(np.rint(2 * normal), -2, 2) / 2
    if name == "single":  # any place has the largest as soon as another
        return np.where(
            np.arange(normal.size) == np.abs(normal).argmax(), normal.ravel(), 0
        ).reshape(normal.shape)
    columns = normal.shape[-1] if normal.ndim else 1
    if name == "radius":
        block = normal.reshape(-1, columns, columns)
        radius = np.abs(np.linalg.eigvals(block)).max(axis=-1)
        return (block * (parameter / radius)[:, None, None]).reshape(normal.shape)
    scale = 10.0**parameter
    return normal * (scale / np.sqrt(columns) if recurrent else scale)


def _filling(text: str) -> tuple[str, float]:
    name, _, parameter = text.partition(":")
    if name in ("zeros", "grid", "single") and not parameter:
        return name, 0.0
    if name in ("normal", "radius"):
        try:
            return name, float(parameter)
        except ValueError:
            pass
    raise ValueError(
        f"case: expected normal:EXPONENT, radius:NUMBER, grid, single or zeros; got {text!r}"
    )


def _probabilities(
    rng: np.random.Generator, size: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Rows that sum to 1; every fourth one is one-hot."""
    soft = rng.dirichlet(np.ones(size[-1]), size[:-1])
    hard = np.eye(size[-1])[rng.integers(size[-1], size=size[:-1])]
    which = rng.random(size[:-1]) < 0.25
    return np.where(which[..., None], hard, soft).astype(dtype)


def _fill_names(pair: Pair) -> list[str]:
    return [f"d{name}" for name in pair.outputs] if pair.backward else []
