"""A point of the grid as a row of text, for the terminal and for the docs."""

from __future__ import annotations

from typing import Any

import numpy as np

from bptt_verify.bench.contestants import RIVALS
from bptt_verify.bench.measure import best, ratio, share_of_peak, sizes

Point = dict[str, Any]

HEADINGS = (
    *("T B D H C", "ours, ms", "GFLOP/s, of peak"),
    *("autodiff / ours", "torch.nn / ours", "products / ours", "memory"),
)


def cells(point: Point) -> list[str]:
    """What stands under the headings; empty where nobody took part."""
    ours = best(point, "ours")
    assert ours is not None
    seconds = float(np.median(point["seconds"][ours]))
    share = share_of_peak(point, ours)
    of_peak = "" if share is None else f", {share:.0%}"
    return [
        sizes(point),
        f"{1e3 * seconds:.3f}",
        f"{point['operations'] / seconds / 1e9:.0f}{of_peak}",
        *(_against(point, ours, side) for side in (*RIVALS, "products")),
        _memory(point, ours),
    ]


def _against(point: Point, ours: str, side: str) -> str:
    """How many times as long the best of that side takes, with the interval."""
    theirs = best(point, side)
    if theirs is None:
        return ""
    middle, low, high = ratio(point, ours, theirs)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _memory(point: Point, ours: str) -> str:
    """MiB above the level before the step: ours and that of autodiff."""
    theirs = best(point, "autodiff")
    levels = [point["memory"][n] for n in (ours, theirs) if n is not None]
    if None in levels:
        return ""
    return " / ".join(f"{level['peak'] - level['idle']:.0f}" for level in levels)
