"""Checking a port: what it wrote against a set of vectors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt_verify.compare import (
    Comparison,
    Wrong,
    compare_in_band,
    errors_in_band,
    mismatch,
    worse,
)
from bptt_verify.pair import Equation
from bptt_verify.report import Failure, Report, Row, versions
from bptt_verify.tally import judged
from bptt_verify.vectors.files import (
    Entry,
    FilesError,
    Vector,
    read_index,
    read_tensors,
    read_vectors,
)

Got = Mapping[str, NDArray[Any] | Wrong]

ADDITIONAL = "no additional tensors"
"""The row that says whether the port wrote something that nobody asked for."""


class Checked(NamedTuple):
    """The outcome of a check."""

    reports: tuple[Report, ...]
    """One for each pair and dtype of the set, or of the chosen part."""
    apart: int
    """Tensors outside of the chosen part, on which nothing is said."""


def check(
    folder: Path,
    path: Path,
    only: Sequence[str] = (),
    *,
    equations: Mapping[str, Mapping[str, Equation]] | None = None,
) -> Checked:
    """Judge the tensors `<pair>/<dtype>/<case>/<quantity>` of a file by a set of vectors.

    Args:
        folder: the set.
        path: what the port wrote: every quantity of every case, in the dtype under test.
        only: parts to be judged, "lstm", "lstm/float32" or "lstm/float32/one-step"; without,
            everything.
        equations: for each pair, where its quantities stand in a derivation.

    A tensor that is missing, has another shape or dtype, or was not asked for, fails.

    Raises `FilesError` for a set or a file that cannot be read, and `ValueError` for a part that
    the set does not have.
    """
    index = read_index(folder)
    chosen = _chosen(folder, index.entries, only)
    got = read_tensors(path)
    again = f"bptt vectors check {quote(str(folder))} {quote(str(path))}"
    reports = []
    asked = {
        f"{entry.part}/{case}/{name}"
        for entry, cases in chosen
        for case in cases
        for name in entry.quantities
    }
    spare = [name for name in got if name not in asked]
    inside = [name for name in spare if not only or any(_within(name, part) for part in only)]
    for k, (entry, cases) in enumerate(chosen):
        start = time.perf_counter()
        vectors = read_vectors(folder, entry)
        mine = [name for name in inside if _within(name, entry.part)]
        if k == 0:  # those that belong nowhere
            mine += [name for name in inside if not any(_within(name, e.part) for e, _ in chosen)]
        rows, failure = _judged(
            entry,
            {case: vectors[case] for case in cases},
            got,
            mine,
            again,
            (equations or {}).get(entry.pair, {}),
        )
        reports.append(
            Report(
                pair=entry.pair,
                dtype=entry.dtype,
                seed=index.seed,
                cases=len(cases),
                redrawn=0,
                seconds=time.perf_counter() - start,
                rows=rows,
                silent=(),
                failed_at=None,
                first_failure=failure,
                versions=versions(),
            )
        )
    return Checked(tuple(reports), len(spare) - len(inside))


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}/")


def _chosen(
    folder: Path, entries: Sequence[Entry], only: Sequence[str]
) -> list[tuple[Entry, list[str]]]:
    """The files to be judged, and which of their cases."""
    names = {f"{entry.part}/{case}" for entry in entries for case in entry.cases}
    for part in only:
        if not any(_within(name, part) for name in names):
            parts = ", ".join(entry.part for entry in entries)
            raise ValueError(f"only: expected a part of {folder} ({parts}), got {part!r}")
    chosen = []
    for entry in entries:
        wanted = [
            case
            for case in entry.cases
            if not only or any(_within(f"{entry.part}/{case}", part) for part in only)
        ]
        if wanted:
            chosen.append((entry, wanted))
    if not chosen:
        raise FilesError(f"{folder}: a set without cases")
    return chosen


def _judged(
    entry: Entry,
    vectors: Mapping[str, Mapping[str, Vector]],
    got: Got,
    additional: Sequence[str],
    again: str,
    equations: Mapping[str, Equation],
) -> tuple[tuple[Row, ...], Failure | None]:
    """A row for each quantity and one for what was not asked; the first quantity that fails."""
    dtype = np.dtype(entry.dtype)
    rows: list[Row] = []
    failure: Failure | None = None
    for name in entry.quantities:
        found = {
            case: _compared(f"{entry.part}/{case}/{name}", got, vectors[case][name], dtype)
            for case in vectors
        }
        worst = None
        for case, comparison in found.items():
            if not comparison.ok:
                comparison = comparison._replace(problem=f"{case}: {comparison.problem}")
            worst = comparison if worst is None else worse(worst, comparison)
        assert worst is not None
        verdict, note = judged(worst)
        rows.append(Row(name, equations.get(name), worst.error, len(found), verdict, note))
        wrong = [case for case, comparison in found.items() if not comparison.ok]
        if wrong and failure is None:
            case = min(wrong, key=lambda case: _entries(vectors[case]))
            place = f"{entry.part}/{case}"
            recipe, once_more = f"{place}  ({entry.cases[case]})", f"{again} --only {place}"
            failure = Failure(name, found[case].problem, recipe, once_more, None, "", "")
    error, verdict, note = 0.0, "pass", ""
    if additional:
        note = f"{len(additional)} that the set does not ask for: {_some(additional)}"
        error, verdict = np.inf, "fail"
    rows.append(Row(ADDITIONAL, None, error, len(vectors), verdict, note))
    return tuple(rows), failure


def _compared(name: str, got: Got, vector: Vector, dtype: np.dtype[Any]) -> Comparison:
    """One tensor; what is wrong is told of the worst entry, and which one is the first."""
    if name not in got:
        return Comparison(np.inf, f"missing: no tensor {name}")
    array, (value, band) = got[name], vector
    found = compare_in_band(array, value, band, dtype)
    if (
        found.ok
        or isinstance(array, Wrong)
        or mismatch(array, value.shape, dtype)
        or not value.ndim
    ):
        return found
    wrong = np.argwhere(errors_in_band(array, value, band) > 1)
    first = tuple(wrong[0].tolist())
    more = f"{len(wrong)} of {value.size} wrong, the first at {first}"
    return found._replace(problem=f"{found.problem}; {more}")


def _entries(vectors: Mapping[str, Vector]) -> int:
    return sum(prod(vector.value.shape) for vector in vectors.values())


def _some(names: Sequence[str], most: int = 5) -> str:
    """The names, or the first of them; they are a stranger's."""
    plain = [name if name.isprintable() else ascii(name) for name in sorted(names)[:most]]
    return ", ".join(plain) + (" …" if len(names) > most else "")
