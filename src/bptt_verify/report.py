"""The outcome of a verification, as data."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from bptt_verify.localise import Diagnosis, Fault, Heat
from bptt_verify.pair import Equation

Verdict = Literal["pass", "fail", "inconclusive"]

BINS = 36
"""Of `Report.spread`: parts of the band, so that each is a quarter of σ."""


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
    spread: tuple[int, ...] = ()
    """How many cases strayed so far: by the largest error of all their quantities, in `BINS` equal
    parts of the band; the last number counts those beyond it. Of cases judged by six samples the
    band is the narrowest it can be, so that they stray less than is said."""

    @property
    def verdict(self) -> Verdict:
        """fail if a row failed, else inconclusive if one is, else pass."""
        return overall(row.verdict for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether the verdict is pass."""
        return self.verdict == "pass"

    @property
    def failing(self) -> list[str]:
        """The rows that fail, first the one that is looked at closer."""
        names = [row.name for row in self.rows if row.verdict == "fail"]
        first = self.first_failure
        return sorted(names, key=lambda name: first is None or name != first.row)

    @property
    def equation(self) -> Equation | None:
        """That of the row that is looked at closer."""
        first = self.first_failure
        return next((row.equation for row in self.rows if first and row.name == first.row), None)

    def __str__(self) -> str:
        """What `bptt verify` prints of it, without colours."""
        from bptt_verify.render import text  # which is made of reports

        return text([self])

    def to_json(self) -> str:
        """The report as JSON; an infinite error is the string "inf"."""
        return json.dumps(jsonable(self), indent=2, ensure_ascii=False)


def bin_of(error: float) -> int:
    """Where a case with this largest error, in units of the tolerance, counts in a spread."""
    return int(error * BINS) if error < 1 else BINS


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of several: the worst one."""
    found = set(verdicts)
    return "fail" if "fail" in found else "inconclusive" if found - {"pass"} else "pass"


def jsonable(report: Report) -> dict[str, Any]:
    """The report as plain data; JSON has no infinity, so it is a string."""
    data: dict[str, Any] = _finite({"verdict": report.verdict, **asdict(report)})
    return data


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def plain(command: str, reports: Sequence[Report]) -> dict[str, Any]:
    """What a command writes as JSON: its reports, and the verdict of all."""
    return {
        "command": command,
        "verdict": overall(report.verdict for report in reports),
        "versions": versions(),
        "reports": [jsonable(report) for report in reports],
    }


def from_plain(data: Mapping[str, Any]) -> Report:
    """The report that `jsonable` made this of."""
    first = data["first_failure"]
    if first is not None:
        first = Failure(**{**first, "diagnosis": _diagnosis(first["diagnosis"])})
    rows = (
        Row(
            **{
                **row,
                "error": float(row["error"]),
                "equation": row["equation"] and Equation(**row["equation"]),
            }
        )
        for row in data["rows"]
    )
    given = {key: value for key, value in data.items() if key != "verdict"}
    return Report(
        **{
            **given,
            "rows": tuple(rows),
            "silent": tuple(data["silent"]),
            "spread": tuple(data.get("spread", ())),
            "first_failure": first,
        }
    )


def _diagnosis(data: Mapping[str, Any] | None) -> Diagnosis | None:
    if data is None:
        return None
    heat = data.get("heat")
    if heat is not None:
        errors = tuple(tuple(map(float, row)) for row in heat["errors"])
        heat = Heat(heat["quantity"], heat["steps"], errors, heat.get("folded", False))
    faults = tuple(Fault(**fault) for fault in data["faults"])
    likely, advice = tuple(data["likely"]), data.get("advice", "")
    return Diagnosis(data["case"], faults, likely, data["tried"], heat, advice)


def versions() -> dict[str, str]:
    """What the run depends on; of what need not be there, what is."""
    found = {"python": platform.python_version()}
    for name in ("manual-bptt", "numpy", "jax", "jaxlib", "mpmath", "hypothesis", "numba", "torch"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
