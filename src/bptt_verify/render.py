"""Reports as a person sees them in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bptt_verify.localise import Diagnosis
from bptt_verify.report import Report, Row, Verdict, overall, versions

STEPS = {
    1: "forward",
    2: "the gradient of V",
    3: "the error at the last step",
    4: "the recursion",
    5: "the gradient of W",
    6: "the gradient of U (and of x and s_0)",
    7: "the update",
}
COLOUR = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def show(reports: Sequence[Report], console: Console) -> None:
    """The table, what went wrong in each report, and the versions."""
    console.print(table(reports))
    for report in reports:
        if report.first_failure:
            console.print(failure(report), soft_wrap=True)
        elif not report.ok:
            console.print(doubts(report), soft_wrap=True)
    console.print(versions_line(), soft_wrap=True)


@dataclass
class _Line:
    """One line of the table: an equation, or a quantity or property that has none."""

    worst: dict[str, float] = field(default_factory=dict)
    cases: int = 0
    rows: list[Row] = field(default_factory=list)

    def add(self, dtype: str, rows: Sequence[Row]) -> None:
        worst = max(row.error for row in rows)
        self.worst[dtype] = max(worst, self.worst.get(dtype, 0.0))
        self.cases += max(row.cases for row in rows)
        self.rows.extend(rows)

    @property
    def verdict(self) -> Verdict:
        return overall(row.verdict for row in self.rows)


def table(reports: Sequence[Report]) -> RenderableType:
    """A line for each equation, grouped by the article's steps; then what has no equation.

    Quantities of several pairs that show the same equation share its line: the worst one counts.
    """
    dtypes = list(dict.fromkeys(report.dtype for report in reports))
    verdict = overall(report.verdict for report in reports)
    lines: dict[str, _Line] = {}
    for report in reports:
        together: dict[str, list[Row]] = {}
        for row in report.rows:
            key = f"{row.equation.of}({row.equation.number})" if row.equation else row.name
            together.setdefault(key, []).append(row)
        for key, rows in together.items():
            lines.setdefault(key, _Line()).add(report.dtype, rows)

    names = ", ".join(dict.fromkeys(report.pair for report in reports))
    grid = Table(
        title=f"{escape(names)}: worst error in units of the tolerance (at most 1 passes)",
        title_justify="left",
        header_style="bold",
    )
    grid.add_column("eq.", justify="right")
    grid.add_column("what", overflow="fold")
    for dtype in dtypes:
        grid.add_column(dtype, justify="right")
    grid.add_column("cases", justify="right")
    grid.add_column("verdict")

    numbered = sorted(
        ((e, line) for line in lines.values() if (e := line.rows[0].equation)),
        key=lambda found: (found[0].of, found[0].number),
    )
    section = ""
    for equation, line in numbered:
        title = equation.of or f"step {equation.step}: {STEPS[equation.step]}"
        if title != section:
            section = title
            grid.add_section()
            grid.add_row("", Text(title, style="dim"))
        grid.add_row(f"({equation.number})", escape(equation.formula), *_cells(line, dtypes))
    grid.add_section()
    for name, line in lines.items():
        if not line.rows[0].equation:
            grid.add_row("", escape(name), *_cells(line, dtypes))

    cases = sum(report.cases for report in reports)
    silent = dict.fromkeys(name for report in reports if report.ok for name in report.silent)
    redrawn = sum(report.redrawn for report in reports)
    seconds = sum(report.seconds for report in reports)
    summary = Text.assemble(
        (verdict.upper(), COLOUR[verdict]),
        f"  {cases} cases in {seconds:.1f} s, seed {reports[0].seed}",
        f"; {redrawn} given up (out of range, NaN in both, or at a kink)" if redrawn else "",
        f"; not met: {', '.join(silent)}" if silent else "",
    )
    return Group(grid, summary)


def failure(report: Report) -> RenderableType:
    """What went wrong first, where and why, its smallest case, and how to see it again."""
    first = report.first_failure
    assert first is not None
    if first.diagnosis is None:
        return in_words(report)
    return Group(in_words(report), _faults(first.diagnosis))


def in_words(report: Report) -> Text:
    """The failure without its table: lines to copy whole."""
    first = report.first_failure
    assert first is not None
    failed = [row for row in report.rows if row.verdict == "fail"]
    equation = next((row.equation for row in failed if row.name == first.row), None)
    where = ""
    if equation:
        of = f" of {equation.of}" if equation.of else ""
        where = f"  equation ({equation.number}){of}: {equation.formula}"
    text = Text.assemble(
        (f"\n{report.pair} {report.dtype}: {first.row}", COLOUR["fail"]),
        f"{where}\n",
        f"  {first.problem}\n",
        f"  {first.votes}\n" if first.votes else "",
        f"  smallest case  {first.case}\n",
        f"  again          {first.reproduce}\n",
        f"  all that fail  {', '.join(row.name for row in failed)}\n",
    )
    if first.diagnosis is not None:
        for term in first.diagnosis.likely:
            text.append(f"  likely         {term}\n", "bold")
        if first.diagnosis.tried and not first.diagnosis.likely:
            text.append(f"  likely         none of {first.diagnosis.tried} mistakes explains it\n")
    return text


def _faults(diagnosis: Diagnosis) -> Table:
    """One line for each wrong quantity: which steps, which part, and whether it is the cause."""
    grid = Table(
        title=Text(f"looked at closer: {diagnosis.case}"),
        title_justify="left",
        header_style="bold",
    )
    for heading in ("wrong", "step", "part", "by itself"):
        grid.add_column(heading, overflow="fold")
    for fault in diagnosis.faults:
        verdict = {True: "yes", False: "follows from δ", None: ""}[fault.by_itself]
        style = COLOUR["fail"] if fault.by_itself else ""
        grid.add_row(escape(fault.name), fault.steps, fault.block or "all", verdict, style=style)
    return grid


def doubts(report: Report) -> Text:
    """The rows that do not pass and why, where the subject did nothing that is surely wrong."""
    lines = (f"  {row.name}: {row.note}\n" for row in report.rows if row.verdict != "pass")
    return Text.assemble(
        (f"\n{report.pair} {report.dtype}: {report.verdict}\n", COLOUR[report.verdict]), *lines
    )


def versions_line() -> Text:
    """Python, NumPy, JAX and the rest, on one line."""
    return Text("  ".join(f"{name} {v}" for name, v in versions().items()), style="dim")


def _short(error: float) -> str:
    return f"{error:.3f}" if error < 1e4 or error == float("inf") else f"{error:.1e}"


def _cells(line: _Line, dtypes: Sequence[str]) -> list[str | Text]:
    errors = [_short(line.worst[d]) if d in line.worst else "" for d in dtypes]
    style = COLOUR[line.verdict]
    return [*errors, str(line.cases), Text(line.verdict, style=style)]
