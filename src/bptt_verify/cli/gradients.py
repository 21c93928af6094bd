"""`bptt gradients`: the vanishing gradient, shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
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
from bptt_verify.pictures import data as pictures
from bptt_verify.report import versions
from manual_bptt._files import replacing
from manual_bptt.charlm import DivergedError

Norms = dict[str, NDArray[np.float64]]

COLOURS = {"tanh": "blue", "sigmoid": "red", "relu": "green", "lstm": "magenta", "gru": "cyan"}
MARKS = {"tanh": "●", "sigmoid": "▲", "relu": "■", "lstm": "◆", "gru": "▼"}
FORMATS = (".svg", ".png")


def gradients(
    *,
    steps: Whole = 50,
    scale: float = 1.0,
    hidden: Whole = 64,
    seed: Whole = 0,
    plot: Path | None = None,
    report: Path | None = None,
    text: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Show how the error fades or grows on its way back: ‖δ_t‖ against t.

    The loss reaches the last state only; W is a random orthogonal matrix times the scale, for LSTM
    and GRU one for each gate.

    Example: `bptt gradients --steps 100 --scale 1.5 --plot gradients.svg`

    Example: `bptt gradients --report gradients.html`

    Parameters
    ----------
    steps
        Length T of the sequence.
    scale
        What the orthogonal W is multiplied by: its spectral radius.
    hidden
        Size H of the state.
    seed
        Of weights and inputs.
    plot
        Draw the curves to this .svg or .png file (needs matplotlib: the extra "plot").
    report
        Write a page of pictures there, HTML that opens offline: ‖δ_t‖ and spectral radii at several
        scales, eigenvalues of W, and a character model, trained for some seconds, at work on a
        sentence (needs matplotlib too).
    text
        A UTF-8 text file for that model. Without it, the language reference that ships inside
        Python.
    json_file
        Write the norms there as JSON; with --report, the data of all pictures.
    """
    if plot is not None and plot.suffix not in FORMATS:
        raise UsageError(f"--plot: expected a name ending in {' or '.join(FORMATS)}, got {plot}")
    if text is not None and report is None:
        raise UsageError("--text: expected --report beside it")
    check_outputs(json_file, plot, report, read=text)
    check_least("--seed", seed, 0)
    if plot is not None:
        _figures("--plot")
    try:
        norms = pictures.norms(steps, [scale], hidden=hidden, seed=seed)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    curves = {name: pictures.array(values) for name, values in norms["scales"][0]["layers"].items()}
    title = f"‖δ_t‖ for t = 1 … {steps}, H = {hidden}, spectral radius of W = {scale:g}"
    data = {
        **{"command": "gradients", "versions": versions()},
        **{"steps": steps, "scale": scale, "hidden": hidden, "seed": seed},
        **norms["scales"][0]["layers"],
        "norms": norms,
    }
    if report is not None:
        data |= _everything(text, steps, scale, hidden, seed)
    try:
        if json_file is not None:
            write_json(json_file, data)
        if report is not None:
            write_page(report, data)
        if plot is not None:
            _draw(plot, title, norms)
    finally:
        console.print(Text(title, style="bold"))
        console.print(_chart(curves, steps))
        for name, values in curves.items():
            line = f"{MARKS[name]} {name:8} ‖δ_1‖ = {values[0]:.2e}, ‖δ_T‖ = {values[-1]:.2e}"
            console.print(Text(line, style=COLOURS[name]))
    for path in (plot, report):
        if path is not None:
            console.print(f"drawn to {path}", highlight=False)
    return 0


def _everything(
    text: Path | None, steps: int, scale: float, hidden: int, seed: int
) -> pictures.Data:
    """The data of all pictures, with a bar for each part that takes its time."""
    _figures("--report")  # before a model is trained for it
    from bptt_verify.cli.train import split_of

    scales = sorted({*pictures.SCALES, scale})
    split = split_of(text)
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def watch(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done)

        try:
            return pictures.everything(split, steps, scales, hidden=hidden, seed=seed, watch=watch)
        except DivergedError as error:
            raise UsageError(f"--text: {error}: try another --seed") from error


def _chart(norms: Norms, steps: int, most_rows: int = 16) -> Text:
    """The curves on a logarithmic scale; zeros and what overflowed are not drawn."""
    columns = min(steps, max(10, console.width - 10))
    at = np.linspace(0, steps - 1, columns).round().astype(int)
    logs = {name: _log10(values[at]) for name, values in norms.items()}
    finite = np.concatenate([v[np.isfinite(v)] for v in logs.values()])
    if not finite.size:
        return Text("every δ_t is zero or beyond float64")
    low, high = int(np.floor(finite.min())), int(np.ceil(finite.max()))
    each = max(1, -(-(high - low) // (most_rows - 1)))  # powers of ten a row
    rows = -(-(high - low) // each) + 1
    grid: list[list[list[str]]] = [[[] for _ in range(columns)] for _ in range(rows)]
    for name, values in logs.items():
        for column, value in enumerate(values):
            if np.isfinite(value):
                grid[round((high - value) / each)][column].append(name)
    chart = Text()
    for i, line in enumerate(grid):
        chart.append(f"{f'10^{high - each * i}':<9}│", style="dim")
        for column, names in enumerate(line):
            if names:  # where curves meet, they take turns
                name = names[column % len(names)]
                chart.append(MARKS[name], style=COLOURS[name])
            else:
                chart.append(" ")
        chart.append("\n")
    chart.append(" " * 9 + "└" + "─" * columns + "\n", style="dim")
    chart.append(f"{'':10}1{f'T = {steps}':>{columns - 1}}", style="dim")
    return chart


def _log10(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log10(values)


def _figures(option: str) -> ModuleType:
    """What draws; a missing matplotlib is the user's to install."""
    try:
        from bptt_verify.pictures import figures
    except ImportError as error:
        raise UsageError(f'{option} needs matplotlib: pip install "manual-bptt[plot]"') from error
    return figures


def _draw(path: Path, title: str, norms: pictures.Data) -> None:
    draw: Callable[[pictures.Data], Any] = _figures("--plot").norms
    figure = draw(norms)
    figure.suptitle(title, fontsize="medium")
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, facecolor="white")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
