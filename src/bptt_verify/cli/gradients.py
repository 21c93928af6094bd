"""`bptt gradients`: the vanishing gradient, shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich.text import Text

from bptt_verify.cli.console import UsageError, Whole, check_writable, console, write_json
from manual_bptt._files import replacing
from manual_bptt.activations import ACTIVATIONS
from manual_bptt.flow import error_norms

Norms = dict[str, NDArray[np.float64]]

COLOURS = {"tanh": "blue", "sigmoid": "red", "relu": "green"}
MARKS = {"tanh": "●", "sigmoid": "▲", "relu": "■"}
FORMATS = (".svg", ".png")


def gradients(
    *,
    steps: Whole = 50,
    scale: float = 1.0,
    hidden: Whole = 64,
    seed: Whole = 0,
    plot: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Show how the error fades or grows on its way back: ‖δ_t‖ against t.

    The loss reaches the last state only; W is a random orthogonal matrix times the scale.

    Example: `bptt gradients --steps 100 --scale 1.5 --plot gradients.svg`

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
    json_file
        Write the norms there as JSON.
    """
    if plot is not None and plot.suffix not in FORMATS:
        raise UsageError(f"--plot: expected a name ending in {' or '.join(FORMATS)}, got {plot}")
    check_writable(json_file)
    check_writable(plot)
    if seed < 0:
        raise UsageError(f"--seed: expected at least 0, got {seed}")
    try:
        norms = {f: error_norms(f, steps, scale, hidden=hidden, seed=seed) for f in ACTIVATIONS}
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    title = f"‖δ_t‖ for t = 1 … {steps}, H = {hidden}, spectral radius of W = {scale:g}"
    try:
        if json_file is not None:
            plain = {
                name: [v if math.isfinite(v) else str(v) for v in values.tolist()]
                for name, values in norms.items()
            }
            write_json(json_file, plain)
        if plot is not None:
            _draw(plot, title, norms)
    finally:
        console.print(Text(title, style="bold"))
        console.print(_chart(norms, steps))
        for name, values in norms.items():
            line = f"{MARKS[name]} {name:8} ‖δ_1‖ = {values[0]:.2e}, ‖δ_T‖ = {values[-1]:.2e}"
            console.print(Text(line, style=COLOURS[name]))
    if plot is not None:
        console.print(f"drawn to {plot}", highlight=False)
    return 0


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
    grid = [[(" ", "")] * columns for _ in range(rows)]
    for name, values in logs.items():
        for column, value in enumerate(values):
            if np.isfinite(value):
                row = round((high - value) / each)
                grid[row][column] = (MARKS[name], COLOURS[name])
    chart = Text()
    for i, line in enumerate(grid):
        chart.append(f"{f'10^{high - each * i}':<9}│", style="dim")
        for mark, style in line:
            chart.append(mark, style=style)
        chart.append("\n")
    chart.append(" " * 9 + "└" + "─" * columns + "\n", style="dim")
    chart.append(f"{'':10}1{f'T = {steps}':>{columns - 1}}", style="dim")
    return chart


def _log10(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log10(values)


def _draw(path: Path, title: str, norms: Norms) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError('--plot needs matplotlib: pip install "manual-bptt[plot]"') from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, values in norms.items():
        shown = np.where(values > 0, values, np.nan)
        axes.semilogy(np.arange(1, len(values) + 1), shown, label=name, color=COLOURS[name])
    axes.set(title=title, xlabel="t", ylabel="‖δ_t‖")
    axes.legend()
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
