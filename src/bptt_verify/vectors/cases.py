"""The cases of a set: the edges, each by a name, and random ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from bptt_verify import draw
from bptt_verify.draw import MIX, Case
from bptt_verify.pair import Pair
from bptt_verify.shapes import parsed
from bptt_verify.suspects import distinct_sizes
from bptt_verify.verify import LONG

TRIES = 10
"""So often a case is drawn before its place stays empty."""

SQUARE = 4
"""The one size of the square case."""


def named(pair: Pair) -> dict[str, Case]:
    """The edge cases of a pair: shapes, values of options, and how arrays are filled.

    All that is not at the edge is plain: sizes all different, the first option, normal values.
    """
    letters = pair.letters()
    plain = replace(draw.parse(pair, ""), sizes=distinct_sizes(pair))
    found = {"distinct-sizes": plain}

    def sized(name: str, **sizes: int) -> None:
        found[name] = replace(plain, sizes={**plain.sizes, **sizes})

    def filled(name: str, fills: dict[str, str]) -> None:
        found[name] = replace(plain, fills={**plain.fills, **fills})

    sized("square-sizes", **dict.fromkeys(letters, SQUARE))
    edges = {"one-step": pair.time, "one-sequence": pair.batch, "one-unit": pair.hidden}
    for name, letter in edges.items():
        if letter in letters:
            sized(name, **{letter: 1})
    if pair.time in letters:
        sized("long", **{k: LONG if k == pair.time else 3 for k in letters})
    for option, values in pair.options.items():
        for value in values[1:]:
            found[f"{option}-{value}"] = replace(plain, options={**plain.options, option: value})

    cotangents = [f"d{name}" for name in pair.outputs] if pair.backward else []
    everything = [*pair.floats, *cotangents]
    weights = [k for k, text in pair.floats.items() if _is_weight(pair, text)]
    if pair.backward:
        zeros = dict.fromkeys(cotangents, "zeros")
        filled("zero-cotangents", zeros)
        filled("single-cotangent", {**zeros, cotangents[0]: "single"})
        filled("saturated-gates", dict.fromkeys(weights, "normal:1"))
    filled("tiny-scales", dict.fromkeys(everything, "normal:-6"))
    filled("huge-scales", dict.fromkeys(everything, "normal:3"))
    return found


def tries(pair: Pair, seed: int, count: int) -> Iterator[tuple[str, list[Case]]]:
    """The name of each case of a set, and in what order to try for it.

    The edges first, then `count` random ones, as `bptt verify` draws them. A name's cases depend on
    the pair, the seed and the name alone.
    """
    for name, case in named(pair).items():
        seeds = random.Random(f"{seed} {pair.name} {name}")
        yield name, [replace(case, seed=seeds.randrange(MIX)) for _ in range(TRIES)]
    drawn = draw.several(pair, count * TRIES, seed)
    for k in range(count):
        yield f"random-{k + 1}", list(islice(drawn, TRIES))


def _is_weight(pair: Pair, text: str) -> bool:
    """Whether a shape is that of a weight: the same for all steps and sequences."""
    return not {pair.time, pair.batch} & set(parsed(text).letters)
