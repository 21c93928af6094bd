"""Several reports as lines: first each equation, then each other quantity and property."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bptt_verify.report import Report, Row, Verdict, overall

STEPS = {
    1: "forward",
    2: "the gradient of V",
    3: "the error at the last step",
    4: "the recursion",
    5: "the gradient of W",
    6: "the gradient of U (and of x and s_0)",
    7: "the update",
}


@dataclass
class Line:
    """An equation, or a quantity or property that has none."""

    section: str
    """The article's step, or whose derivation it is; empty for what has no equation."""
    number: int | None
    what: str
    worst: dict[str, float] = field(default_factory=dict)
    """In units of the tolerance, by dtype."""
    cases: int = 0
    rows: list[Row] = field(default_factory=list)

    def add(self, dtype: str, rows: Sequence[Row]) -> None:
        """Count what one report says."""
        worst = max(row.error for row in rows)
        self.worst[dtype] = max(worst, self.worst.get(dtype, 0.0))
        self.cases += max(row.cases for row in rows)
        self.rows.extend(rows)

    @property
    def verdict(self) -> Verdict:
        """Of all its rows."""
        return overall(row.verdict for row in self.rows)


def lines(reports: Sequence[Report]) -> list[Line]:
    """In the order of the equations, then of the rows.

    Quantities of several pairs that show the same equation share its line: the worst one counts.
    """
    found: dict[tuple[str, str, int, str], Line] = {}
    for report in reports:
        together: dict[tuple[str, str, int, str], list[Row]] = {}
        for row in report.rows:
            together.setdefault(_key(row), []).append(row)
        for key, rows in together.items():
            found.setdefault(key, _line(rows[0])).add(report.dtype, rows)
    numbered = sorted(key for key in found if key[0] == "equation")
    return [found[key] for key in numbered] + [
        line for key, line in found.items() if key[0] != "equation"
    ]


def _key(row: Row) -> tuple[str, str, int, str]:
    if row.equation:
        return "equation", row.equation.of, row.equation.number, ""
    return "", "", 0, row.name


def _line(row: Row) -> Line:
    e = row.equation
    if e is None:
        return Line("", None, row.name)
    return Line(e.of or f"step {e.step}: {STEPS[e.step]}", e.number, e.formula)


def dtypes_of(reports: Sequence[Report]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(report.dtype for report in reports))


def in_one_line(reports: Sequence[Report], seconds: float | None = None) -> str:
    """How many cases in how long, and what could not be judged."""
    cases = sum(report.cases for report in reports)
    silent = dict.fromkeys(name for report in reports if report.ok for name in report.silent)
    redrawn = sum(report.redrawn for report in reports)
    if seconds is None:
        seconds = sum(report.seconds for report in reports)
    text = f"{cases} case{'s' * (cases != 1)} in {seconds:.1f} s, seed {reports[0].seed}"
    if redrawn:
        text += f"; {redrawn} given up (out of range, NaN in both, or at a kink)"
    return text + (f"; not met: {', '.join(silent)}" if silent else "")


def short(error: float) -> str:
    """An error in units of the tolerance."""
    return f"{error:.3f}" if error < 1e4 or error == float("inf") else f"{error:.1e}"
