"""What `bptt bench` measured, as a page of the docs.

    bptt bench --json benchmarks/results.json
    python benchmarks/results.py benchmarks/results.json > docs/results.md

Several files may be given, of other dtypes say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bptt_verify.bench.measure import best, means, ratio, share_of_peak, spread

Point = dict[str, Any]

RIVALS = ("autodiff", "torch.nn")
HEAD = (
    *("T B D H C", "ours, ms", "GFLOP/s", "of peak", "autodiff / ours", "torch.nn / ours"),
    *("products / ours", "MiB, ours", "MiB, autodiff"),
)


def page(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the page."""
    yield "# Manual against autodiff: what was measured"
    yield ""
    yield "Made by [results.py](../benchmarks/results.py) from what `bptt bench --json` wrote; how"
    yield "it is measured, and what the columns are: [bench.md](bench.md)."
    for run in runs:
        machine, points = run["machine"], run["points"]
        yield ""
        versions = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("cpu", "cores"))
        yield f"{machine['cpu']}, {machine['cores']} cores; {versions}; {points[0]['when']}."
        for (cell, dtype), group in groupby(points, key=lambda p: (p["cell"], p["dtype"])):
            yield from table(cell, dtype, list(group))


def table(cell: str, dtype: str, points: list[Point]) -> Iterator[str]:
    """One cell in one dtype, and the means over its points."""
    yield ""
    yield f"## {cell}, {dtype}"
    yield ""
    yield row(HEAD)
    yield row(["---:"] * len(HEAD))
    for point in points:
        ours = best(point, "ours")
        assert ours is not None
        seconds = float(np.median(point["seconds"][ours]))
        share = share_of_peak(point, ours)
        yield row(
            [
                " ".join(map(str, point["sizes"].values())),
                f"{1e3 * seconds:.3f}",
                f"{point['operations'] / seconds / 1e9:.0f}",
                "" if share is None else f"{share:.0%}",
                *(against(point, ours, best(point, side)) for side in (*RIVALS, "products")),
                memory(point, ours),
                memory(point, best(point, "autodiff")),
            ]
        )
    yield ""
    yield from (f"- {line}" for line in means(points))
    spreads = [spread(seconds) for p in points for seconds in p["seconds"].values()]
    yield f"- half the spread of the middle half of the rounds: median {np.median(spreads):.1%}"


def row(cells: Any) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def against(point: Point, ours: str, theirs: str | None) -> str:
    """How many times as long theirs takes, with its interval."""
    if theirs is None:
        return ""
    middle, low, high = ratio(point, ours, theirs)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def memory(point: Point, name: str | None) -> str:
    """MiB above the level before the step."""
    level = point["memory"][name] if name else None
    return "" if level is None else f"{level['peak'] - level['idle']:.0f}"


if __name__ == "__main__":
    print("\n".join(page([json.loads(Path(name).read_text()) for name in sys.argv[1:]])))
