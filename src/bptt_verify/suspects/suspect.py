"""What a suspect is, and what is known about the twin it is a misreading of."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from jax.extend import source_info_util
from jax.extend.core import Literal

from bptt_verify.oracle import Answer


class Suspect(NamedTuple):
    """A possible mistake, and the answer that a backward pass with it gives."""

    text: str
    answer: Callable[[], Answer]
    kind: str


class Known(NamedTuple):
    """What is known about the values of the twin."""

    names: dict[Any, str]
    makers: dict[Any, Any]
    """The equation that a value is the result of."""
    gates: dict[int, int]
    """Lengths of axes that are several blocks long, such as 4H, and how many."""
    parted: set[Any]
    """Values that are split, or of which slices are taken."""


Misread = Iterator[tuple[Any, ...]]
"""Words, what `Change.apply` is to be, and what `Change.besides`, if anything."""


def swaps(n: int) -> Iterator[tuple[int, int, list[int]]]:
    """Any two of n in each other's place: which, counted from 1, and the order then."""
    for i, j in combinations(range(n), 2):
        order = list(range(n))
        order[i], order[j] = j, i
        yield i + 1, j + 1, order


def name_of(known: Known, atom: Any, otherwise: str) -> str:
    """What the input is called that a value is, or is made of by moving it about."""
    return otherwise if isinstance(atom, Literal) else known.names.get(atom, otherwise)


def called(eqn: Any) -> str:
    """What a person calls the function."""
    name: str = eqn.primitive.name
    if name.startswith("custom_"):
        inner = eqn.params["call_jaxpr"].jaxpr.eqns
        name = str(inner[0].params.get("name", name)) if inner else name
    return {"logistic": "sigmoid", "integer_pow": "a power"}.get(name, name)


def source(eqn: Any) -> str:
    """Where in the twin's text an equation comes from: file, line and column."""
    return str(source_info_util.summarize(eqn.source_info))


def at_line(text: str, eqn: Any) -> str:
    """The words, and the line of the twin that they are about, if it is known."""
    place = where(eqn)
    return f"{text} {place}" if place else text.removesuffix(":")


def where(eqn: Any) -> str:
    """The line of the twin that an equation comes from."""
    found = re.match(r"(.+?):(\d+)(?::\d+)?(?: |$)", source(eqn))
    if not found:
        return ""
    path, line = found[1], int(found[2])
    text = linecache.getline(path, line).strip()
    place = f"{Path(path).name}:{line}"
    return f"({place}: {text})" if text else f"({place})"
