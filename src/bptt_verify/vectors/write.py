"""Writing a set: the cases, what the twin says of them, and the bands of `bptt verify`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt_verify import draw
from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Answer, Oracle
from bptt_verify.pair import Pair
from bptt_verify.report import versions
from bptt_verify.tolerance import DTYPES, multiplier
from bptt_verify.vectors.cases import named, tries
from bptt_verify.vectors.files import NAME, Entry, Index, digest, packed, write_index
from manual_bptt._files import appearing

Array = NDArray[Any]


def write(
    folder: Path,
    pairs: Sequence[Pair],
    dtypes: Sequence[str] = ("float32", "float64"),
    *,
    seed: int = 0,
    random: int = 10,
    progress: Callable[[int], None] | None = None,
) -> Index:
    """Write a set of vectors into a new folder: the edge cases of each pair, and random ones.

    Args:
        folder: a path at which there is nothing yet; it appears when all is written.
        pairs: which pairs; the subject of each is not run.
        dtypes: the dtypes under test.
        seed: the same seed writes the same bytes.
        random: how many random cases for each pair and dtype.
        progress: called with the number of cases done so far.

    A case on which no verdict is possible is drawn again; after some tries it is left out, and the
    index says why.

    Raises `ValueError` for a wrong argument, for a pair whose name or options cannot stand in a
    file, and for a twin that raises or returns what its pair does not declare; `OSError` when there
    is something at that path or there is no writing there.
    """
    for name, value in (("seed", seed), ("random", random)):
        if value < 0:
            raise ValueError(f"{name}: expected at least 0, got {value}")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    names = [pair.name for pair in pairs]
    for pair in pairs:
        _check(pair, names)
    done, entries = 0, []
    with appearing(folder) as unfinished:
        for pair in pairs:
            for dtype in dtypes:
                cases, left_out = {}, {}
                arrays: dict[str, Array] = {}
                oracle = Oracle(pair, multiplier(np.dtype(dtype)))
                for name, chances in tries(pair, seed, random):
                    found = _first_decided(oracle, chances, np.dtype(dtype))
                    if isinstance(found, str):
                        left_out[name] = found
                    else:
                        cases[name] = str(found[0])
                        prefix = f"{pair.name}/{dtype}/{name}"
                        arrays |= _tensors(prefix, *found, np.dtype(dtype))
                    done += 1
                    if progress:
                        progress(done)
                quantities = [q for q in pair.quantities() if q not in oracle.unread_taps]
                content = packed(arrays)
                entry = Entry(pair.name, dtype, tuple(quantities), cases, left_out, digest(content))
                (unfinished / entry.file).write_bytes(content)
                entries.append(entry)
        index = Index(seed, tuple(entries), {**versions(), "safetensors": version("safetensors")})
        write_index(unfinished, index)
    return index


def count(pair: Pair, random: int) -> int:
    """How many cases there are to be written for a pair in a dtype."""
    return len(named(pair)) + random


def _check(pair: Pair, names: Sequence[str]) -> None:
    if names.count(pair.name) > 1:
        raise ValueError(f"pair {pair.name!r}: expected names that differ, got it twice")
    if not NAME.fullmatch(pair.name):
        wanted = "a name of letters, digits, '.', '_' and '-'"
        raise ValueError(f"pair {pair.name!r}: expected {wanted}, to name a file")
    for option, values in pair.options.items():
        for value in values:
            _option(f"pair {pair.name!r}: options[{option!r}]", value)
            if not NAME.fullmatch(f"{option}-{value}"):
                raise ValueError(
                    f"pair {pair.name!r}: options[{option!r}]: expected values that can stand in "
                    f"the name of a case, got {value!r}"
                )


def _first_decided(
    oracle: Oracle, chances: Sequence[Case], dtype: np.dtype[Any]
) -> tuple[Case, Drawn, Answer] | str:
    """The first of these cases on which a verdict is possible; or why there is none."""
    why = ""
    for case in chances:
        drawn = draw.realise(oracle.pair, case, dtype)
        answer = oracle.answer(case, drawn, dtype)
        why = _undecided(answer, dtype)
        if not why:
            return case, drawn, answer
    return why


def _undecided(answer: Answer, dtype: np.dtype[Any]) -> str:
    """Why `bptt verify` would give the case up; empty if it would not."""
    if answer.out_of_range:
        return f"a value on the way is beyond the range of {dtype}"
    if not all(np.isfinite(both).all() for both in answer.quantities.values()):
        return "some entry has no value, or no band"
    if answer.undecided:
        return "at a kink, or where a function bends within its band: two answers are honest"
    return ""


def _tensors(
    prefix: str, case: Case, drawn: Drawn, answer: Answer, dtype: np.dtype[Any]
) -> dict[str, Array]:
    """What a port gets, and what is expected of it."""
    groups: dict[str, Mapping[str, Array]] = {
        "option": {name: _option(name, value) for name, value in case.options.items()},
        "input": drawn.inputs,
        "cotangent": drawn.cotangents,
        "expected": {name: value for name, (value, _) in answer.quantities.items()},
        # the very product with which `bptt verify` compares
        "band": {name: multiplier(dtype) * s for name, (_, s) in answer.quantities.items()},
    }
    return {
        f"{prefix}/{group}/{k}": np.asarray(a)
        for group, of in groups.items()
        for k, a in of.items()
    }


def _option(where: str, value: object) -> Array:
    """A number as float64, text as the bytes of its UTF-8."""
    match value:
        case bool() | int() | float():
            return np.asarray(value, np.float64)
        case str():
            return np.frombuffer(value.encode(), np.uint8)
    raise ValueError(f"{where}: expected numbers or text, got {value!r}")
