"""The page of `bptt bench`: ratios with their intervals, memory, and speed beside the machine's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from bptt_verify.bench.contestants import COPIED, LARGE, RIVALS
from bptt_verify.bench.machine import sentence
from bptt_verify.bench.measure import best, disqualified, means, noise, ratio, sizes, standing
from bptt_verify.bench.table import HEADINGS, cells

TEMPLATE = "bench.html"

LEFT, RIGHT, TOP, BOTTOM = 46.0, 620.0, 12.0, 250.0
"""Where the axes of a picture end, in pixels."""


def context(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the template is filled with."""
    points = data["points"]
    groups = [
        (f"{cell}, {dtype}", list(group))
        for (cell, dtype), group in groupby(points, key=lambda p: (p["cell"], p["dtype"]))
    ]
    return {
        "machine": sentence(data["machine"]),
        "when": points[0]["when"],
        "noise": noise(points),
        "wrong": [*disqualified(points), *filter(None, [data.get("ended")])],
        "headings": HEADINGS,
        "groups": [
            {
                "name": name,
                "rows": [cells(point) for point in group],
                "standing": standing(group),
                "means": list(means(group)),
                "ratios": _ratios(group),
                "memory": _memory(group),
                "roof": _roof(group),
            }
            for name, group in groups
        ],
    }


def _ratios(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many times as long the rivals take, on a logarithmic axis, with intervals."""
    found = []
    for point in points:
        ours = best(point, "ours")
        assert ours is not None
        for side in RIVALS:
            theirs = best(point, side)
            if theirs is not None:
                found.append((sizes(point), side, *ratio(point, ours, theirs)))
    low = min([1.0, *(f[3] for f in found)])
    high = max([1.0, *(f[4] for f in found)])
    x = _Axis(low / 1.1, high * 1.1, 160.0, RIGHT)
    rows = [
        {
            **{"y": 14 + 18 * k, "label": label, "side": side, "kind": RIVALS.index(side)},
            **{"middle": x(middle), "low": x(lowest), "high": x(highest)},
            "says": f"{side}: {middle:.2f} times as long ({lowest:.2f} to {highest:.2f})",
        }
        for k, (label, side, middle, lowest, highest) in enumerate(found)
    ]
    ticks = [t for t in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if low / 1.1 <= t <= high * 1.1]
    return {
        "rows": rows,
        "one": x(1.0),
        "ticks": [{"x": x(t), "says": f"{t:g}×"} for t in ticks],
        "height": 14 + 18 * len(rows) + 22,
    }


def _memory(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """MiB above the level before a step: ours and of the rivals."""
    rows = []
    for point in points:
        levels = {}
        for side in ("ours", *RIVALS):
            name = best(point, side)
            level = point["memory"].get(name)
            if level is not None:
                levels[side] = level["peak"] - level["idle"]
        if levels:
            most = max(*levels.values(), 1e-9)
            rows.append(
                {
                    "sizes": sizes(point),
                    "levels": [
                        {"side": side, "mib": f"{mib:.1f}", "part": max(mib, 0) / most}
                        for side, mib in levels.items()
                    ],
                }
            )
    return rows


def _roof(points: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Operations a second over operations a byte; the roofs are a large product and a large copy.

    None for a run in which no large product took part.
    """
    speeds = _medians(points, "peak", 2 * LARGE**3)
    flows = _medians(points, "bandwidth", COPIED)
    found = [
        (point["operations"] / point["bytes"], speed, side, sizes(point))
        for point in points
        for side in ("ours", *RIVALS)
        if (name := best(point, side)) is not None
        for speed in [point["operations"] / float(np.median(point["seconds"][name])) / 1e9]
    ]
    if not speeds:
        return None
    peak = float(np.median(speeds))
    flow = float(np.median(flows)) if flows else None
    low, high = min(f[0] for f in found) / 2, max(f[0] for f in found) * 2
    x = _Axis(low, high, LEFT, RIGHT)
    y = _Axis(0.7 * min(f[1] for f in found), 1.5 * max(peak, *(f[1] for f in found)), BOTTOM, TOP)
    knee = low if flow is None else min(max(peak / flow, low), high)
    start = peak if flow is None else min(flow * low, peak)
    return {
        "path": f"M{LEFT} {y(start)} L{x(knee)} {y(peak)} H{RIGHT}",
        "peak": f"{peak:.0f}",
        "flow": flow and f"{flow:.0f}",
        "bottom": BOTTOM,
        "left": LEFT,
        "dots": [
            {
                **{"x": x(intensity), "y": y(speed), "kind": ("ours", *RIVALS).index(side)},
                "says": f"{label}, {side}: {speed:.0f} GFLOP/s",
            }
            for intensity, speed, side, label in found
        ],
        "xticks": [{"at": x(t), "says": f"{t:g}"} for t in x.ticks()],
        "yticks": [{"at": y(t), "says": f"{t:g}"} for t in y.ticks()],
    }


def _medians(points: Sequence[dict[str, Any]], side: str, amount: float) -> list[float]:
    """Of what a measure does, billions a second, at each point where it took part."""
    return [
        amount / float(np.median(point["seconds"][name])) / 1e9
        for point in points
        if (name := best(point, side)) is not None
    ]


class _Axis:
    """A logarithmic axis: from a number to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high
        self._start, self._each = start, (end - start) / math.log(high / low)

    def __call__(self, value: float) -> float:
        return round(self._start + self._each * math.log(value / self.low), 1)

    def ticks(self) -> list[float]:
        """1, 3, 10, 30 … between the ends."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = (d * 10.0**k for k in range(first, last + 1) for d in (1, 3))
        return [t for t in every if self.low <= t <= self.high]
