"""`bptt mutants`: who kills which wrong backward."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from bptt_verify.cli.console import (
    UsageError,
    Whole,
    check_least,
    check_outputs,
    console,
    progress,
    write_json,
    write_page,
)
from bptt_verify.mutants import CATALOGUE, Kill, Mutant
from bptt_verify.mutants.matrix import CASES, Line, Start, lines, start
from bptt_verify.peers import PEERS, Outcome
from bptt_verify.render import versions_line
from bptt_verify.report import versions

MARKS: dict[Outcome, Text] = {
    "killed": Text("x", style="green"),
    "survived": Text("·", style="red"),
    "not installed": Text("–", style="dim"),
    "does not apply": Text("", style="dim"),
}


def mutants(
    *,
    seed: Whole = 0,
    only: str | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    report: Path | None = None,
) -> int:
    """Plant known mistakes and see who finds them: the kill matrix.

    Every mutant is given to `bptt verify`, at most 50 cases in each dtype, and to other checkers as
    their users run them (gradcheck needs `pip install "manual-bptt[peers]"`). Ends with exit code 0
    when `bptt verify` kills every mutant, 1 when one survives.

    Example: `bptt mutants --only carry-untransposed`

    Parameters
    ----------
    seed
        The same seed draws the same problems.
    only
        One mutant, by name.
    json_file
        Write the matrix there too, as JSON.
    report
        Write it there as a page, HTML that opens offline.
    """
    check_outputs(json_file, report)
    check_least("--seed", seed, 0)
    chosen = _chosen(only)
    pairs = {m.reference().name: m.reference() for m in chosen}
    found: list[Line] = []
    # what a wrong backward raises inside check_grads is an answer, and no news
    logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)
    with progress() as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wrong code may overflow
        task = bar.add_task("mutants", total=len(pairs) + len(chosen))
        starts: dict[str, Start] = {}
        for name, pair in pairs.items():
            starts[name] = start(pair, seed)
            bar.advance(task)
        for line in lines(chosen, starts, seed):
            found.append(line)
            bar.advance(task)
    survivors = [line.mutant for line in found if line.kill is None]
    complete = not survivors and all(s.alarm is None for s in starts.values())
    try:
        data = _plain(complete, seed, list(starts.values()), found)
        if json_file is not None:
            write_json(json_file, data)
        if report is not None:
            write_page(report, data)
    finally:
        console.print(_table(list(starts.values()), found))
        console.print(_legend(), soft_wrap=True)
        console.print(_summary(survivors, found))
        console.print(versions_line())
    return 0 if complete else 1


def _chosen(only: str | None) -> list[Mutant]:
    if only is None:
        return list(CATALOGUE.values())
    if only not in CATALOGUE:
        near = get_close_matches(only, CATALOGUE, n=3) or [*CATALOGUE][:3]
        raise UsageError(f"--only: expected a mutant such as {', '.join(near)}; got {only!r}")
    return [CATALOGUE[only]]


def _table(starts: Sequence[Start], found: Sequence[Line]) -> Table:
    grid = Table(
        title=f"mutants killed by bptt verify (at most {CASES} cases) and by others",
        title_justify="left",
        header_style="bold",
    )
    grid.add_column("mutant", overflow="fold")
    grid.add_column("source", overflow="fold")
    grid.add_column("bptt verify", overflow="fold")
    for letter in _letters():
        grid.add_column(letter, justify="right", no_wrap=True)
    absent = {
        peer.name
        for peer in PEERS
        if all(line.peers[peer.name] == "not installed" for line in found)
    }
    for first in starts:
        grid.add_row(
            f"no mutant ({first.pair})",
            "",
            Text(f"false alarm in {first.alarm.row}", style="red") if first.alarm else "passes",
            *("–" if peer.name in absent else _alarms(first, peer.name) for peer in PEERS),
        )
    grid.add_section()
    for line in found:
        grid.add_row(
            line.mutant.name,
            line.mutant.source,
            _ours(line),
            *(MARKS[line.peers[peer.name]] for peer in PEERS),
        )
    grid.add_section()
    grid.add_row(
        f"killed of {len(found)}",
        "",
        str(sum(line.kill is not None for line in found)),
        *("–" if p.name in absent else str(_count(found, p.name)) for p in PEERS),
    )
    return grid


def _ours(line: Line) -> Text:
    if line.kill is None:
        return Text("·", style="red")
    return Text(_say(line.kill), style="green")


def _say(kill: Kill) -> str:
    where = "" if kill.case is None else f", case {kill.case}"
    return f"{kill.row}{where}" + (" (float32)" if kill.dtype == "float32" else "")


def _letters() -> dict[str, str]:
    """The column of each peer: their names would not fit beside each other."""
    return {chr(ord("a") + i): peer.name for i, peer in enumerate(PEERS)}


def _legend() -> Text:
    """What the letters and marks mean."""
    names = ", ".join(f"{letter} {name}" for letter, name in _letters().items())
    return Text(
        f"{names}\nx killed, · survived, – not installed, blank: does not apply. Beside the pair "
        "without mutant: false alarms before a seed was found that passes, none: there was none",
        style="dim",
    )


def _alarms(first: Start, peer: str) -> str:
    return "none" if first.seeds[peer] is None else str(first.false_alarms[peer])


def _summary(survivors: Sequence[Mutant], found: Sequence[Line]) -> Text:
    if survivors:
        names = ", ".join(m.name for m in survivors)
        return Text(f"SURVIVED bptt verify: {names}", style="bold red")
    return Text.assemble(
        ("COMPLETE", "green"),
        f"  {len(found)} of {len(found)} mutants killed",
    )


def _count(found: Sequence[Line], peer: str) -> int:
    return sum(line.peers[peer] == "killed" for line in found)


def _plain(
    complete: bool, seed: int, starts: Sequence[Start], found: Sequence[Line]
) -> dict[str, Any]:
    """The matrix as plain data."""
    return {
        "command": "mutants",
        "complete": complete,
        "seed": seed,
        "cases": CASES,
        "versions": versions(),
        "no_mutant": [
            {
                "pair": first.pair,
                "verify": "killed" if first.alarm else "survived",
                "seeds": first.seeds,
                "false_alarms": first.false_alarms,
            }
            for first in starts
        ],
        "mutants": [
            {
                "name": line.mutant.name,
                "what": line.mutant.what,
                "source": line.mutant.source,
                "pair": line.mutant.reference().name,
                "verify": line.kill and line.kill._asdict(),
                "peers": line.peers,
            }
            for line in found
        ],
        "killed": {
            "bptt verify": sum(line.kill is not None for line in found),
            **{peer.name: _count(found, peer.name) for peer in PEERS},
        },
    }
