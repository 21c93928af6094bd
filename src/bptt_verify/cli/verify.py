"""`bptt verify`: the main job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.progress import Progress

from bptt_verify import regression as regressions
from bptt_verify.cli.console import (
    UsageError,
    Whole,
    check_folder,
    check_least,
    check_outputs,
    console,
    progress,
    write_json,
    write_page,
)
from bptt_verify.guard import LIMIT, LONGEST
from bptt_verify.load import LoadError, load
from bptt_verify.pair import Pair
from bptt_verify.pairs import BY_NAME, REGISTRY
from bptt_verify.render import show
from bptt_verify.report import Report, overall, plain
from bptt_verify.verify import verify as run
from bptt_verify.workers import verify_in_processes, verify_side_by_side

MOST_WORKERS = 4
"""For each core: each is a process of some 300 MB."""

EXIT = {"pass": 0, "fail": 1, "inconclusive": 3}


def verify(
    target: str | None = None,
    /,
    *,
    cases: Whole = 200,
    seed: Whole = 0,
    dtype: Literal["float32", "float64", "bfloat16", "float16", "both"] = "both",
    case: str | None = None,
    regression: Path | None = None,
    limit: float = LIMIT,
    isolate: Annotated[bool, Parameter(negative=())] = False,
    workers: Whole = 1,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    report: Path | None = None,
) -> int:
    """Hold hand-written gradients against their JAX twins on random cases.

    Ends with exit code 0 when everything passes, 1 when something fails, 3 when nothing fails but
    something cannot be told, 2 when the command itself is wrong.

    Example: `bptt verify rnn --cases 500`

    Parameters
    ----------
    target
        A built-in pair; or a Python file, for every Pair that it defines; or file.py:name, for one.
        Without it, every built-in pair.
    cases
        Random cases for each pair and dtype.
    seed
        The same seed draws the same cases.
    dtype
        The dtype under test; both is float32 and float64.
    case
        One case, as a failure prints it, instead of random ones.
    regression
        A folder, made if need be: for every pair and dtype that fails, a test is written there that
        holds on to the case.
    limit
        Seconds that one call of forward and backward may take.
    isolate
        Run forward and backward in a process of their own: for code that may crash, or hang in C.
    workers
        Processes among which the cases of a pair are divided. Without a target, as many pairs are
        verified at once as there are cores.
    json_file
        Write the reports there too, as JSON.
    report
        Write them there as a page, HTML that opens offline.
    """
    check_outputs(json_file, report)
    pairs = pairs_of(target)
    dtypes = ("float32", "float64") if dtype == "both" else (dtype,)
    check_least("--cases", cases, 1)
    check_least("--seed", seed, 0)
    check_folder(regression)
    if not 0 < limit <= LONGEST:
        raise UsageError(f"--limit: expected seconds, above 0 and at most {LONGEST:g}, got {limit}")
    most = MOST_WORKERS * (os.cpu_count() or 1)
    if not 1 <= workers <= most:
        raise UsageError(f"--workers: expected 1 to {most}, a few for each core, got {workers}")
    if isolate and any(p.origin in BY_NAME and p.name.endswith("-jax") for p in pairs):
        raise UsageError("--isolate: expected another engine: JAX does not run in a forked process")
    if case is not None and not case.strip():
        raise UsageError(f"--case: expected a case as a failure prints it, got {case!r}")
    if case is not None and target is None:
        raise UsageError("--case: expected with the pair that it is a case of, got no TARGET")
    cores = os.cpu_count() or 1
    start = time.perf_counter()
    with progress() as bar:
        if target is None and case is None and workers == 1 and cores > 1:
            reports = _side_by_side(bar, pairs, cases, seed, dtypes, limit, isolate, cores)
        else:
            reports = [
                _run(bar, pair, cases, seed, kind, case, limit, isolate, workers)
                for pair in pairs
                for kind in dtypes
            ]
    seconds = time.perf_counter() - start
    verdict = overall(report.verdict for report in reports)
    written: list[Path] = []
    try:  # files first, and neither they nor what is printed are lost with the other
        data = {**plain("verify", reports), "seconds": seconds}
        if json_file is not None:
            write_json(json_file, data)
        if report is not None:
            write_page(report, data)
        if regression is not None:
            tested = [pair for pair in pairs for _ in dtypes]
            written = _write_regressions(regression, zip(reports, tested, strict=True))
    finally:
        show(reports, console, seconds)
    for path in written:
        console.print(f"regression test: {path}", soft_wrap=True, markup=False, highlight=False)
    return EXIT[verdict]


def _side_by_side(
    bar: Progress,
    pairs: Sequence[Pair],
    cases: int,
    seed: int,
    dtypes: Sequence[str],
    limit: float,
    isolate: bool,
    processes: int,
) -> list[Report]:
    """The built-in pairs, as many at once as there are cores."""
    task = bar.add_task("pairs and dtypes", total=len(pairs) * len(dtypes))

    def done(count: int) -> None:
        bar.update(task, completed=count)

    try:
        return verify_side_by_side(
            pairs, dtypes, cases, seed, processes, progress=done, limit=limit, isolate=isolate
        )
    except BrokenProcessPool:
        raise UsageError("a worker died; try one pair after the other") from None


def _run(
    bar: Progress,
    pair: Pair,
    cases: int,
    seed: int,
    dtype: str,
    case: str | None,
    limit: float,
    isolate: bool,
    workers: int,
) -> Report:
    task = bar.add_task(f"{pair.name} {dtype}", total=cases if case is None else 1)

    def done(count: int) -> None:
        bar.update(task, completed=count)

    try:
        if workers > 1 and case is None:
            return verify_in_processes(
                pair, cases, seed, dtype, workers, progress=done, limit=limit, isolate=isolate
            )
        return run(pair, cases, seed, dtype, case=case, progress=done, limit=limit, isolate=isolate)
    except BrokenProcessPool:
        raise UsageError(f"pair {pair.name!r}: a worker died; try --isolate") from None
    except ValueError as error:  # the pair, the twin or the case is not what it should be
        raise UsageError(str(error)) from error
    finally:
        bar.remove_task(task)


def _write_regressions(folder: Path, tested: Iterable[tuple[Report, Pair]]) -> list[Path]:
    written = []
    for report, pair in tested:
        if report.first_failure and pair.origin:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                written.append(regressions.write(folder, report, pair.origin))
            except OSError as error:
                raise UsageError(f"cannot write in {folder}: {error.strerror}") from error
    return written


def pairs_of(target: str | None) -> Sequence[Pair]:
    """The pairs that a target on the command line names; without one, every built-in pair."""
    if target is None:
        pairs = REGISTRY
    elif target in BY_NAME:
        pairs = {target: BY_NAME[target]}
    elif target.endswith(".py") or ".py:" in target:
        try:
            return load(target)
        except LoadError as error:
            raise UsageError(str(error)) from error
    else:
        near = get_close_matches(target, BY_NAME, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(BY_NAME)
        raise UsageError(f"expected a pair ({known}) or a Python file, got {target!r}{meant}")
    return [replace(pair, origin=name) for name, pair in pairs.items()]
