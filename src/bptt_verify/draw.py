"""Drawing cases: Hypothesis strategies over shapes, options and values.

A `Case` is a short recipe, not the arrays: sizes, options, a kind of filling for every array, a
seed. So it shrinks fast, prints on one line, and that line gives the same arrays again.

What hides wrong gradients is drawn against: sizes are independent, so pairwise distinct and square
shapes both come; T = 1 comes; scales run from 1e-6 to 1e3; matrices that may carry a state get a
spectral radius near 1, so that carries do not decay; in three of ten cases all values lie on a
coarse grid, which puts relu exactly on its kink; cotangents are random, or random in one entry, and
an all-zero one only stands beside others.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bptt_verify.pair import Index, Mask, Pair, Probability
from bptt_verify.shapes import Shape

Array = NDArray[Any]

LARGEST = 8
"""The largest size drawn for a letter."""

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
    """Random cases of a pair.

    The options, and how the arrays are filled, are read off one number, `mix`: drawing a choice for
    each costs more than running the case, and Hypothesis would repeat its choices. A mix of 0 is
    the first option and the plain filling, so that is what it shrinks to.
    """
    letters = pair.letters()
    kinds = {
        name: CARRIES if Shape(shape).is_recurrent else VALUES
        for name, shape in pair.floats.items()
    }
    if "ties" in pair.without:
        kinds = {k: [v for v in kind if v not in ("grid", "zeros")] for k, kind in kinds.items()}
    names = _fill_names(pair)
    cotangents = dict.fromkeys(names, COTANGENTS if len(names) == 1 else SPARE_COTANGENTS)
    plain = dict.fromkeys([*kinds, *names], "normal:0")

    def fills(mix: int, rng: random.Random) -> dict[str, str]:
        if mix == 0:
            return plain
        # every value on the grid: only then do sums meet a kink at exactly 0
        on_grid = rng.random() < 0.3 and "ties" not in pair.without
        found = {name: "grid" if on_grid else rng.choice(kinds[name]) for name in kinds}
        found |= {name: rng.choice(cotangents[name]) for name in names}
        if names and all(found[name] == "zeros" for name in names):
            found[rng.choice(names)] = "normal:0"
        return found

    def build(numbers: tuple[Any, ...]) -> Case:
        mix, seed, *sizes = numbers
        rng = random.Random(mix)
        options = {k: rng.choice(v) if mix else v[0] for k, v in pair.options.items()}
        return Case(dict(zip(letters, sizes, strict=True)), options, fills(mix, rng), seed)

    size, number = st.integers(1, largest), st.integers(0, 2**32 - 1)
    return st.tuples(number, number, *[size] * len(letters)).map(build)


def plainer(pair: Pair, case: Case) -> Iterator[Case]:
    """The case with one option the first one, one size smaller, or one array filled plainly."""
    for name, values in pair.options.items():
        if case.options[name] != values[0]:
            yield replace(case, options={**case.options, name: values[0]})
    for letter, n in case.sizes.items():
        for smaller in sorted({1, n // 2, n - 1}):
            if 0 < smaller < n:
                yield replace(case, sizes={**case.sizes, letter: smaller})
    for name, kind in case.fills.items():
        if kind != "normal:0":
            yield replace(case, fills={**case.fills, name: "normal:0"})


def parse(pair: Pair, text: str) -> Case:
    """The case that a line describes; what the line leaves out is 1, the first option, "normal:0".

    Raises `ValueError` for a word that is no `name=value`, an unknown name, or a value that name
    cannot have.
    """
    sizes = dict.fromkeys(pair.letters(), 1)
    options = {k: v[0] for k, v in pair.options.items()}
    fills = dict.fromkeys([*pair.floats, *_fill_names(pair)], "normal:0")
    seed = 0
    for word in shlex.split(text):
        name, sign, value = word.partition("=")
        if not sign:
            raise ValueError(f"case: expected name=value, got {word!r}")
        if name == "seed" or name in sizes:
            if not value.isdecimal() or (name in sizes and int(value) < 1):
                raise ValueError(f"case: {name}: expected a whole number, got {value!r}")
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


def realise(pair: Pair, case: Case, dtype: np.dtype[Any]) -> Drawn:
    """The arrays of a case, each from a random stream of its own: shrinking one keeps the rest."""
    inputs: dict[str, Array] = {}
    cotangents: dict[str, Array] = {}
    for i, (name, spec) in enumerate(pair.inputs.items()):
        rng = np.random.default_rng([case.seed, 0, i])
        shape = Shape(spec if isinstance(spec, str) else spec.shape)
        size = shape.sized(case.sizes)
        match spec:
            case Index():
                low = -1 if spec.missing else 0
                inputs[name] = rng.integers(low, Shape(spec.below).sized(case.sizes)[0], size)
            case Mask():
                inputs[name] = rng.random(size) < 0.7
            case Probability():
                inputs[name] = _probabilities(rng, size, dtype)
            case _:
                values = fill(case.fills[name], rng, size, shape.is_recurrent)
                inputs[name] = np.array(values, dtype)
    for i, (name, text) in enumerate(pair.outputs.items() if pair.backward else ()):
        rng = np.random.default_rng([case.seed, 1, i])
        size = Shape(text).sized(case.sizes)
        cotangents[name] = np.array(fill(case.fills[f"d{name}"], rng, size, False), dtype)
    return Drawn(inputs, cotangents)


def fill(
    kind: str, rng: np.random.Generator, size: tuple[int, ...], recurrent: bool
) -> NDArray[np.float64]:
    """Values of the kind.

    "normal:e" is normal with standard deviation 10^e, a matrix that may carry a state divided by
    the root of its columns; "radius:r" is normal, scaled to spectral radius r; "grid" is multiples
    of 1/2 from -1 to 1; "single" is normal in one entry and zero elsewhere; "zeros" is zero.
    """
    name, parameter = _filling(kind)
    normal = rng.standard_normal(size)
    if name == "zeros":
        return np.zeros(size)
    if name == "grid":
        return rng.integers(-2, 3, size) / 2
    if name == "single":
        kept = np.zeros(size)
        kept.flat[rng.integers(kept.size)] = normal.flat[0]
        return kept
    if name == "radius":
        block = normal.reshape(-1, size[-1], size[-1])
        radius = np.abs(np.linalg.eigvals(block)).max(axis=-1)
        return (block * (parameter / radius)[:, None, None]).reshape(size)
    scale = 10.0**parameter
    return normal * (scale / np.sqrt(size[-1]) if recurrent else scale)


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
