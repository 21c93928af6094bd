"""`bptt vectors`: golden vectors for a port, and the judge of what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bptt_verify.cli.console import (
    UsageError,
    Whole,
    check_least,
    check_writable,
    console,
    progress,
    write_json,
)
from bptt_verify.cli.verify import EXIT, pairs_of
from bptt_verify.pairs import BY_NAME
from bptt_verify.render import doubts, in_words, table, versions_line
from bptt_verify.report import Report, overall, plain
from bptt_verify.vectors import check as judge
from bptt_verify.vectors import write as write_set
from bptt_verify.vectors.write import count


def write(
    folder: Path,
    /,
    *,
    pair: Annotated[Sequence[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    dtype: Literal["float32", "float64", "bfloat16", "float16", "both"] = "both",
    seed: Whole = 0,
    random: Whole = 10,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Write inputs, cotangents, expected outputs and gradients, and how far each entry may be off.

    The tolerance of each entry is the one that `bptt verify` computes. What is in the files, and
    what a port does with it, is in docs/vectors.md.

    Example: `bptt vectors write golden --pair lstm gru`

    Parameters
    ----------
    folder
        The set of vectors: a path at which there is nothing yet.
    pair
        Built-in pairs; or Python files, for every Pair that they define; or file.py:name, for one.
        Without it, every built-in pair.
    dtype
        The dtype under test; both is float32 and float64.
    seed
        The same seed writes the same files.
    random
        Random cases for each pair and dtype, beside the edge cases.
    json_file
        Write what the set consists of there too, as JSON.
    """
    check_writable(json_file)
    if json_file is not None and json_file.resolve() == folder.resolve():
        raise UsageError(f"--json: expected a file of its own, got the folder {folder}")
    for option, value in (("--seed", seed), ("--random", random)):
        check_least(option, value, 0)
    if pair is not None and not pair:
        raise UsageError("--pair: expected one or more, got none")
    pairs = [one for target in pair for one in pairs_of(target)] if pair else pairs_of(None)
    dtypes = ("float32", "float64") if dtype == "both" else (dtype,)
    with progress() as bar:
        task = bar.add_task("cases", total=len(dtypes) * sum(count(one, random) for one in pairs))
        try:
            index = write_set(
                folder,
                pairs,
                dtypes,
                seed=seed,
                random=random,
                progress=lambda done: bar.update(task, completed=done),
            )
        except OSError as error:
            raise UsageError(f"cannot write {folder}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(str(error)) from error
    if json_file is not None:
        write_json(json_file, {"command": "vectors write", "set": str(folder), **index.plain()})
    for entry in index.entries:
        line = f"{folder / entry.file}: {len(entry.cases)} cases"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
        for case, why in entry.left_out.items():
            line = f"  left out  {case}: {why}"
            console.print(line, style="yellow", soft_wrap=True, markup=False, highlight=False)
    return 0


def check(
    folder: Path,
    file: Path,
    /,
    *,
    only: Annotated[
        Sequence[str], Parameter(consume_multiple=True, negative=(), show_default=False)
    ] = (),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Judge what a port wrote: tensors `PAIR/DTYPE/CASE/QUANTITY` in a safetensors file.

    Ends with exit code 0 when every quantity of every case is there and within its band, 1 when one
    is not, 3 when nothing fails but something cannot be told, 2 when a file cannot be read.

    Example: `bptt vectors check golden mine.safetensors --only lstm/float32`

    Parameters
    ----------
    folder
        The set of vectors.
    file
        What the port wrote.
    only
        Parts of the set to be judged: lstm, or lstm/float32, or lstm/float32/one-step.
    json_file
        Write the reports there too, as JSON.
    """
    check_writable(json_file)
    equations = {name: pair.equations for name, pair in BY_NAME.items()}
    try:
        reports, apart = judge(folder, file, only, equations=equations)
    except ValueError as error:
        raise UsageError(str(error)) from error
    verdict = overall(report.verdict for report in reports)
    try:
        if json_file is not None:
            write_json(json_file, plain("vectors check", reports))
    finally:
        _show(reports)
        if apart:
            console.print(f"not judged: {apart} tensors outside of {', '.join(only)}", markup=False)
    return EXIT[verdict]


def _show(reports: Sequence[Report]) -> None:
    """A table for each pair with a line for each quantity, what went wrong, and the versions."""
    for pair in dict.fromkeys(report.pair for report in reports):
        console.print(table([_by_name(report) for report in reports if report.pair == pair]))
    for report in reports:
        if report.first_failure:
            console.print(in_words(report), soft_wrap=True)
        if not report.ok:
            console.print(doubts(report), soft_wrap=True)
    console.print(versions_line(), soft_wrap=True)


def _by_name(report: Report) -> Report:
    """Rows as the tensors are named, not as the equations are numbered."""
    return replace(report, rows=tuple(replace(row, equation=None) for row in report.rows))
