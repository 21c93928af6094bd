"""What `bptt bench` measured, as a page of the docs.

    bptt bench --json benchmarks/results/float32.json
    python benchmarks/results.py > docs/results.md

It reads what lies in benchmarks/results, or the files that are named: of one run each, all cells of
it or some, in any dtype.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bptt_verify.bench.machine import sentence
from bptt_verify.bench.measure import disqualified, means, spreads, standing
from bptt_verify.bench.table import HEADINGS, Point, cells
from bptt_verify.bench.work import MODULES

KEPT = Path(__file__).parent / "results"


def page(runs: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of the page: for each cell and dtype all its runs, the first one first."""
    yield "# Manual against autodiff: what was measured"
    yield ""
    yield "Made by [results.py](../benchmarks/results.py) of what `bptt bench --json` wrote into"
    yield "`benchmarks/results`, with the time of every round. How it is measured, what the columns"
    yield "are, what bounds each point, and what the machine is: [bench.md](bench.md)."
    tables = [(run, list(points)) for run in runs for _, points in groupby(run["points"], key=kind)]
    tables.sort(key=lambda t: place(t[1][0]))
    for (cell, dtype), group in groupby(tables, key=lambda t: kind(t[1][0])):
        yield ""
        yield f"## {cell}, {dtype}"
        for run, points in group:
            yield from table(run, points)


def kind(point: Point) -> tuple[str, str]:
    """What a table is of."""
    return point["cell"], point["dtype"]


def place(point: Point) -> tuple[int, str, str]:
    """Where the table that begins with it stands: by cell, dtype, and when it was measured."""
    return list(MODULES).index(point["cell"]), point["dtype"], point["when"]


def table(run: dict[str, Any], points: list[Point]) -> Iterator[str]:
    """One run of one cell in one dtype, and the means over its points."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    yield ""
    yield f"{points[0]['when']}: {sentence(run['machine'])}; {versions}."
    yield ""
    yield row(HEADINGS)
    yield row(["---:"] * len(HEADINGS))
    yield from (row(cells(point)) for point in points)
    yield ""
    ended = run["ended"] if points[-1] is run["points"][-1] else ""
    said = [ended, standing(points), *means(points), *disqualified(points)]
    yield from (f"- {line}" for line in said if line)
    rounds = {len(seconds) for point in points for seconds in point["seconds"].values()}
    yield (
        f"- {' or '.join(map(str, sorted(rounds)))} rounds; half the spread of the middle half of "
        f"them: median {np.median(spreads(points)):.1%}"
    )


def row(texts: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]] or sorted(KEPT.glob("*.json"))
    print("\n".join(page([json.loads(file.read_text()) for file in files])))
