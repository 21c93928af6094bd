"""Reports as a person sees them in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bptt_verify.localise import Diagnosis
from bptt_verify.report import Report, overall, versions
from bptt_verify.summary import Line, dtypes_of, in_one_line, lines, short

WIDTH = 120
"""Columns of a report that is text: the same on a terminal and in a log."""

COLOUR = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def show(reports: Sequence[Report], console: Console, seconds: float | None = None) -> None:
    """The table, what went wrong in each report, and the versions.

    With the seconds that they took together, where it is not one after the other.
    """
    console.print(table(reports, seconds))
    for report in reports:
        if report.first_failure:
            console.print(failure(report), soft_wrap=True)
        elif not report.ok:
            console.print(doubts(report), soft_wrap=True)
    console.print(versions_line(), soft_wrap=True)


def text(reports: Sequence[Report]) -> str:
    """The same without colours, as an assertion or a log has it."""
    paper = Console(file=StringIO(), width=WIDTH, color_system=None)
    with paper.capture() as written:
        show(reports, paper)
    return "\n".join(line.rstrip() for line in written.get().splitlines())


def table(reports: Sequence[Report], seconds: float | None = None) -> RenderableType:
    """A line for each equation, grouped by the article's steps; then what has no equation.

    Quantities of several pairs that show the same equation share its line: the worst one counts.
    """
    dtypes = dtypes_of(reports)
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
    section = ""
    for line in lines(reports):
        if line.section != section:
            section = line.section
            grid.add_section()
            if section:
                grid.add_row("", Text(section, style="dim"))
        number = f"({line.number})" if line.number else ""
        grid.add_row(number, escape(line.what), *_cells(line, dtypes))
    verdict = overall(report.verdict for report in reports)
    summary = Text.assemble(
        (verdict.upper(), COLOUR[verdict]), f"  {in_one_line(reports, seconds)}"
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
    where = ""
    if equation := report.equation:
        of = f" of {equation.of}" if equation.of else ""
        where = f"  equation ({equation.number}){of}: {equation.formula}"
    text = Text.assemble(
        (f"\n{report.pair} {report.dtype}: {first.row}", COLOUR["fail"]),
        f"{where}\n",
        f"  {first.problem}\n",
        f"  {first.votes}\n" if first.votes else "",
        f"  smallest case  {first.case}\n",
        f"  again          {first.reproduce}\n",
        f"  all that fail  {', '.join(report.failing)}\n",
    )
    if first.diagnosis is not None:
        for term in first.diagnosis.likely:
            text.append(f"  likely         {term}\n", "bold")
        if first.diagnosis.tried and not first.diagnosis.likely:
            text.append(f"  likely         none of {first.diagnosis.tried} mistakes explains it\n")
        if first.diagnosis.advice:
            text.append(f"  more           {first.diagnosis.advice}\n")
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


def _cells(line: Line, dtypes: Sequence[str]) -> list[str | Text]:
    errors = [short(line.worst[d]) if d in line.worst else "" for d in dtypes]
    style = COLOUR[line.verdict]
    return [*errors, str(line.cases), Text(line.verdict, style=style)]
