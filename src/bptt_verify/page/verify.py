"""The page of `bptt verify`: the verdict, what failed and why, equations, how far cases stray."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from bptt_verify.localise import Heat
from bptt_verify.report import BINS, Report, from_plain, overall
from bptt_verify.summary import dtypes_of, in_one_line, lines, short
from bptt_verify.tolerance import MULTIPLIER

TEMPLATE = "verify.html"

WIDTH, HEIGHT, BASE = 16, 110, 125
"""Of a bin, of the highest bar, and where bars stand, in pixels."""


def context(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the template is filled with."""
    reports = [from_plain(report) for report in data["reports"]]
    if not reports:
        raise ValueError("no report")
    verdict = overall(report.verdict for report in reports)
    return {
        "verdict": verdict,
        "names": ", ".join(dict.fromkeys(report.pair for report in reports)),
        "summary": in_one_line(reports, data.get("seconds")),
        "failed": [_failed(report) for report in reports if report.first_failure],
        "doubtful": [r for r in reports if not (r.ok or r.first_failure)],
        "dtypes": dtypes_of(reports),
        "lines": lines(reports),
        "short": short,
        "m": f"{MULTIPLIER:g}",
        "spreads": [s for dtype in dtypes_of(reports) if (s := _spread(reports, dtype))],
    }


def _failed(report: Report) -> dict[str, Any]:
    first = report.first_failure
    assert first is not None
    heat = first.diagnosis and first.diagnosis.heat
    return {
        "pair": report.pair,
        "dtype": report.dtype,
        "first_failure": first,
        "equation": report.equation,
        "failing": report.failing,
        "heat": heat and _heat(heat),
    }


def _heat(heat: Heat) -> dict[str, Any]:
    rows = [
        {"name": f"t={k + 1}" if heat.steps else str(k), "cells": list(map(_cell, row))}
        for k, row in enumerate(heat.errors)
    ]
    return {
        "quantity": heat.quantity,
        "steps": heat.steps,
        "folded": heat.folded,
        "rows": rows[::-1] if heat.steps else rows,
    }


def _cell(error: float) -> dict[str, str]:
    """Green within the band; beyond, the redder the farther, up to 10^6 bands."""
    if error <= 1:
        return {"error": short(error), "colour": "hsl(150 40% 45% / .25)", "ink": "inherit"}
    depth = min(np.log10(error) / 6, 1.0)
    text = "∞" if np.isinf(error) else f"{error:.1e}".replace("e+0", "e").replace("e+", "e")
    return {"error": text, "colour": f"hsl(5 70% {45 - 17 * depth:.0f}%)", "ink": "#fff"}


def _spread(reports: Sequence[Report], dtype: str) -> dict[str, Any] | None:
    """The histogram of one dtype and the outline of the calibration, as shapes."""
    counts = [report.spread for report in reports if report.dtype == dtype and report.spread]
    found = np.sum(counts, axis=0) if counts else np.zeros(BINS + 1, np.int64)
    if not found.sum():
        return None
    known = _calibration().get(dtype)
    parts = found / found.sum()
    right = np.array(known["spread"]) / sum(known["spread"]) if known else np.zeros(BINS + 1)
    scale = HEIGHT / max(parts.max(), right.max())
    bars = [
        {
            "x": k * WIDTH,
            "y": round(BASE - scale * part, 2),
            "width": WIDTH - 1,
            "height": round(scale * part, 2),
            "says": f"{_bin(k)}: {count}",
        }
        for k, (part, count) in enumerate(zip(parts.tolist(), found.tolist(), strict=True))
        if count
    ]
    steps = " ".join(
        f"V{BASE - scale * part:.2f} H{(k + 1) * WIDTH}" for k, part in enumerate(right.tolist())
    )
    each = BINS / MULTIPLIER  # bins a σ
    return {
        "dtype": dtype,
        "width": (BINS + 1) * WIDTH,
        "bars": bars,
        "outline": f"M0 {BASE} {steps}" if known else "",
        "edge": BINS * WIDTH,
        "ticks": [{"x": max(k * each * WIDTH, 6), "says": f"{k}"} for k in range(int(MULTIPLIER))],
        "cases": int(found.sum()),
        "beyond": int(found[-1]),
        "calibrated": known and sum(known["spread"]),
        "pair": known and known["pair"],
    }


def _bin(k: int) -> str:
    each = MULTIPLIER / BINS
    return f"{k * each:g} to {(k + 1) * each:g} σ" if k < BINS else f"beyond {MULTIPLIER:g} σ"


@cache
def _calibration() -> dict[str, Any]:
    """How far right code strayed in the calibration, by dtype: see benchmarks/calibration.py."""
    text = (files("bptt_verify.page") / "calibration.json").read_text("utf-8")
    known: dict[str, Any] = json.loads(text)
    return known
