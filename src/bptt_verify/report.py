"""The outcome of a verification, as data."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

from bptt_verify.localise import Diagnosis
from bptt_verify.pair import Equation

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Row:
    """One quantity (an output, a gradient "d" + input, a tap) or one property of the subject."""

    name: str
    equation: Equation | None
    error: float
    """The worst error met, in units of the tolerance; a pass is at most 1."""
    cases: int
    verdict: Verdict
    note: str
    """Why it failed or is inconclusive, at the worst entry; empty for a pass."""


@dataclass(frozen=True)
class Failure:
    """The first disagreement, shrunk."""

    row: str
    problem: str
    case: str
    reproduce: str
    diagnosis: Diagnosis | None
    """Which step, which block, which term; None where no case could be looked at closer."""
    alone: str
    """Who stands alone in this row: "subject", "twin", "undecided", or "forward" where the two
    compute different functions; empty for a row that is not about numbers."""
    votes: str
    """What each oracle says, in a sentence."""


@dataclass(frozen=True)
class Report:
    """What `verify` returns."""

    pair: str
    dtype: str
    seed: int
    cases: int
    """Cases judged."""
    redrawn: int
    """Cases given up because no verdict was possible: a value beyond the range of the dtype, NaN on
    both sides, or a disagreement within rounding of a kink, where either branch is honest."""
    seconds: float
    rows: tuple[Row, ...]
    silent: tuple[str, ...]
    """Properties of the pair about which no case said anything."""
    failed_at: int | None
    """The number of the first case that failed, counted from 1."""
    first_failure: Failure | None
    versions: dict[str, str]

    @property
    def verdict(self) -> Verdict:
        """fail if a row failed, else inconclusive if one is, else pass."""
        return overall(row.verdict for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether the verdict is pass."""
        return self.verdict == "pass"

    def to_json(self) -> str:
        """The report as JSON; an infinite error is the string "inf"."""
        return json.dumps(jsonable(self), indent=2, ensure_ascii=False)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several: the worst one."""
    found = set(verdicts)
    return "fail" if "fail" in found else "inconclusive" if found - {"pass"} else "pass"


def jsonable(report: Report) -> dict[str, Any]:
    """The report as plain data."""
    data = {"verdict": report.verdict, **asdict(report)}
    for row in data["rows"]:
        row["error"] = row["error"] if math.isfinite(row["error"]) else str(row["error"])
    return data


def versions() -> dict[str, str]:
    """What the run depends on."""
    packages = ("manual-bptt", "numpy", "jax", "jaxlib", "mpmath", "hypothesis")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
