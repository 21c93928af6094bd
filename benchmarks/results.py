"""What `bptt bench` measured, as a page of the docs.

    bptt bench --json benchmarks/results.json
    python benchmarks/results.py benchmarks/results.json > docs/results.md

Several files may be given, of other dtypes say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bptt_verify.bench.measure import disqualified, means, spread
from bptt_verify.bench.table import HEADINGS, Point, cells


def page(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the page."""
    yield "# Manual against autodiff: what was measured"
    yield ""
    yield "Made by [results.py](../benchmarks/results.py) from what `bptt bench --json` wrote; how"
    yield "it is measured, and what the columns are: [bench.md](bench.md)."
    for run in runs:
        machine, points = run["machine"], run["points"]
        yield ""
        versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
        yield f"{machine['cpu']}, {machine['cores']} cores; {versions}; {points[0]['when']}."
        for (cell, dtype), group in groupby(points, key=lambda p: (p["cell"], p["dtype"])):
            yield from table(cell, dtype, list(group))


def table(cell: str, dtype: str, points: list[Point]) -> Iterator[str]:
    """One cell in one dtype, and the means over its points."""
    yield ""
    yield f"## {cell}, {dtype}"
    yield ""
    yield row(HEADINGS)
    yield row(["---:"] * len(HEADINGS))
    yield from (row(cells(point)) for point in points)
    yield ""
    yield from (f"- {line}" for line in [*means(points), *disqualified(points)])
    spreads = [spread(seconds) for p in points for seconds in p["seconds"].values()]
    yield f"- half the spread of the middle half of the rounds: median {np.median(spreads):.1%}"


def row(texts: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    print("\n".join(page([json.loads(Path(name).read_text()) for name in sys.argv[1:]])))
