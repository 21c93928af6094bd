"""`bptt bench`: manual against autodiff."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from bptt_command import INTERRUPTED
from bptt_verify.bench.check import WrongGradientError
from bptt_verify.bench.contestants import CONTESTANTS, RIVALS
from bptt_verify.bench.machine import machine, sentence
from bptt_verify.bench.measure import (
    best,
    disqualified,
    means,
    measure,
    noise,
    pieces,
    slope,
    standing,
)
from bptt_verify.bench.process import ContestError
from bptt_verify.bench.table import HEADINGS, cells
from bptt_verify.bench.work import GRID, GROWTH, MODULES, QUICK, Work
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
from bptt_verify.render import versions_line
from bptt_verify.report import versions


def bench(
    *,
    cell: list[str] | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    quick: bool = False,
    growth: bool = False,
    rounds: Whole = 15,
    threads: Whole = 0,
    seed: Whole = 0,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    report: Path | None = None,
) -> int:
    """Time the hand-written gradients beside autodiff: the loss of a layer and all its gradients.

    Each contestant has a process of its own, which stands still when it is not its turn; rounds are
    interleaved; all gradients are held against the twin before anything is timed, and what comes
    before the first step (compiling) is apart. Ends with exit code 1 when a gradient is wrong.
    After Ctrl-C the points that were measured are written and shown.

    Example: `bptt bench --quick --cell rnn --json bench.json`

    Parameters
    ----------
    cell
        rnn, lstm or gru; more than one may be given. All of them by default.
    dtype
        Of weights, input and gradients.
    quick
        Three small points of the grid, few contestants and rounds: under two minutes.
    growth
        Instead of the grid: one size grows at a time, and the exponents with which times grow.
    rounds
        How often each contestant is timed.
    threads
        Cores that a contestant may use; 0 for all.
    seed
        Of the order in which contestants take turns; weights and input are always the same.
    json_file
        Write every time that was measured there, as JSON.
    report
        Write what was measured there as a page, HTML that opens offline.
    """
    check_outputs(json_file, report)
    cells = cell or list(MODULES)
    for name in cells:
        if name not in MODULES:
            raise UsageError(f"--cell: expected one of {', '.join(MODULES)}, got {name}")
    if quick and growth:
        raise UsageError("--quick: expected without --growth, got both")
    check_least("--rounds", rounds, 1)
    check_least("--seed", seed, 0)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if not 0 <= threads <= cores:
        raise UsageError(f"--threads: expected 0 to {cores}, as many as there are, got {threads}")
    threads = threads or cores
    names = [n for n, c in CONTESTANTS.items() if all(map(find_spec, c.needs))]
    if quick:
        names = [n for n in names if "unroll" not in n or n == "jax hoisted, unroll 4"]
        names = [n for n in names if CONTESTANTS[n].side != "drop-in"]
        rounds = min(rounds, 5)
    grid = QUICK if quick else GRID
    if growth:
        grid = tuple(dict.fromkeys(sizes for line in GROWTH.values() for sizes in line))
    here = machine(cores, threads)
    points: list[dict[str, Any]] = []
    ended, status = "", 0
    works = [Work(c, sizes, dtype) for c in cells for sizes in grid]
    with progress() as bar:
        done = count()  # what begins now is not done yet
        task = bar.add_task("", total=len(works) * pieces(names, rounds))
        for work in works:
            where = f"{work.cell} {' '.join(map(str, work.sizes))}"

            def said(what: str, where: str = where) -> None:
                bar.update(task, description=f"{where}: {what}", completed=next(done))

            try:
                points.append(
                    measure(work, names, rounds=rounds, threads=threads, seed=seed, said=said)
                )
            except (WrongGradientError, ContestError) as error:
                ended, status = f"ended early, at {where}: {error}", 1
                break
            except KeyboardInterrupt:
                if not points:
                    raise
                ended, status = f"interrupted, at {where}", INTERRUPTED
                break
    if not points:
        console.print(ended, style="red", markup=False, soft_wrap=True)
        return status
    data = {
        **{"command": "bench", "machine": here, "versions": versions()},
        **{"points": points, "ended": ended},
    }
    try:
        if json_file is not None:
            write_json(json_file, data)
        if report is not None:
            write_page(report, data)
    finally:
        show(here, points)
        if ended:
            console.print(ended, style="red", markup=False, soft_wrap=True)
        elif growth:
            console.print(_growth(points))
    for package in dict.fromkeys(p for c in CONTESTANTS.values() for p in c.needs):
        if find_spec(package) is None:
            console.print(f"{package} is not installed, so it takes no part", style="yellow")
    return status or int(bool(disqualified(points)))


def show(where: dict[str, Any], points: list[dict[str, Any]]) -> None:
    """Tables from what was measured."""
    for cell in dict.fromkeys(point["cell"] for point in points):
        mine = [point for point in points if point["cell"] == cell]
        console.print(_table(mine))
        if said := standing(mine):
            console.print(said)
        for line in means(mine):
            console.print(line)
    for line in disqualified(points):
        console.print(line, style="red", markup=False, soft_wrap=True)
    if said := noise(points):
        console.print(said, style="yellow", soft_wrap=True)
    console.print(sentence(where))
    console.print(versions_line())


def _table(points: list[dict[str, Any]]) -> Table:
    """A row for each point; in a narrow window cells break between words, not inside of one."""
    title = f"{points[0]['cell']}, {points[0]['dtype']}: loss and all gradients, medians"
    # without frames, so that all of it has room in 80 columns
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)
    rows = [HEADINGS, *map(cells, points)]
    columns = list(zip(*rows, strict=True))
    narrow = sum(1 + max(map(len, column)) for column in columns) > console.width
    for heading, *column in columns:
        words = [len(word) for cell in (heading, *column) for word in cell.split()]
        sizes = heading == HEADINGS[0]
        width = max(words) if narrow and not sizes else None
        table.add_column(heading, justify="right", no_wrap=sizes, width=width)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _growth(points: list[dict[str, Any]]) -> Table:
    """The exponents with which times and operations grow in T, B and H."""
    table = Table(title="growth: time is some number to the power of the size, exponents")
    for heading in ("cell", "letter", "from", "to", "ours", "autodiff", "torch.nn", "operations"):
        table.add_column(heading, justify="right")
    for cell in dict.fromkeys(point["cell"] for point in points):
        for letter, sizes in GROWTH.items():
            at = {(*p["sizes"].values(),): p for p in points if p["cell"] == cell}
            line = [at[each] for each in sizes]
            exponents = []
            for side in ("ours", *RIVALS):
                if any(best(point, side) is None for point in line):
                    exponents.append("")
                    continue
                exponents.append(f"{slope(line, letter, partial(_fastest, side=side)):.2f}")
            asked = slope(line, letter, lambda p: float(p["operations"]))
            ends = line[0]["sizes"][letter], line[-1]["sizes"][letter]
            table.add_row(cell, letter, *map(str, ends), *exponents, f"{asked:.2f}")
    return table


def _fastest(point: dict[str, Any], side: str) -> float:
    """The lowest median of that side."""
    return float(np.median(point["seconds"][best(point, side)]))
