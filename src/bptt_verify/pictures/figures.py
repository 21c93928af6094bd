"""One function for each picture: it takes the data of `pictures.data`, returns a matplotlib figure.

Nothing of pyplot and no global state: a `matplotlib.figure.Figure` that its owner shows or saves.
The background is transparent, and all colours can be seen on light and on dark.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Any

import numpy as np

from bptt_verify.pictures.data import array

try:
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ImportError as error:
    raise ImportError('pictures need matplotlib: pip install "manual-bptt[plot]"') from error

Data = Mapping[str, Any]

INK = "#767676"
"""Of text and axes: in the middle between white and black. `drawn` makes it the reader's own."""

COLOURS = ("#2f7fd6", "#e0503c", "#2f9350", "#b264d6", "#b8760a", "#0f8f96", "#d6498f", "#7d8020")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles, for who cannot tell the colours apart."""

CHINESE = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC"),
    *("Hiragino Sans GB", "Heiti SC", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)
"""Fonts for what the first one lacks: those that are there are asked, one after another."""

WIDTH = 5.6
"""Inches; the height is by the panels."""

MOST = 1e300
"""What is larger is not drawn: margins and ticks around it would leave float64."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}
"""What stands for a character that cannot be seen."""

GATES = {"i": "input gate i", "f": "forget gate f", "g": "candidate g", "o": "output gate o"}

Draw = Callable[[Data], Figure]


def _styled(draw: Draw) -> Draw:
    @wraps(draw)
    def styled(data: Data) -> Figure:
        names = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor")
        style: dict[Any, Any] = dict.fromkeys(names, INK)
        style |= {"font.family": _family(), "axes.titlesize": "medium"}
        with matplotlib.rc_context(style):
            return draw(data)

    return styled


@_styled
def norms(data: Data) -> Figure:
    """‖δ_t‖ against t on a logarithmic scale, a panel for each scale of W.

    What is 0 or beyond float64 is not drawn.

    Args:
        data: of `data.norms`.
    """
    figure, panels = _stacked(len(data["scales"]), 2.2)
    for axes, part in zip(panels, data["scales"], strict=True):
        axes.set(title=_scale(part), ylabel="‖δ_t‖")
        # of the logarithms, because the margin of a logarithmic axis may leave float64
        logs = {name: _log10(array(values)) for name, values in part["layers"].items()}
        _curves(axes, data["t"], logs)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda k, _: _power_of_ten(k)))
        if all(np.isnan(v).all() for v in logs.values()):
            says = "every δ_t is 0 or beyond float64"
            axes.text(0.5, 0.5, says, transform=axes.transAxes, ha="center")
    panels[-1].set_xlabel("t")
    _legend(figure, panels[0])
    return figure


@_styled
def radii(data: Data) -> Figure:
    """The spectral radius of ∂s_t/∂s_{t-1} against t, a panel for each scale of W.

    The line at 1 parts what shrinks from what grows.

    Args:
        data: of `data.radii`.
    """
    figure, panels = _stacked(len(data["scales"]), 1.9)
    for axes, part in zip(panels, data["scales"], strict=True):
        axes.set(title=_scale(part), ylabel="spectral radius")
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        _curves(axes, data["t"], {n: _drawable(v) for n, v in part["layers"].items()})
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("t")
    _legend(figure, panels[0])
    return figure


@_styled
def eigenvalues(data: Data) -> Figure:
    """The eigenvalues of W in the complex plane, with the unit circle.

    On the left W as it is drawn at each scale, on the right the blocks of a trained LSTM.

    Args:
        data: of `data.eigenvalues`.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {"drawn": "orthogonal W, times a scale", "trained": "W of the trained LSTM, by gate"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        _bare(figure, axes)
        turn = np.linspace(0, 2 * math.pi, 200)
        axes.plot(np.cos(turn), np.sin(turn), color=INK, linewidth=0.8)
        for one, colour in zip(data[name], _colours(len(data[name])), strict=True):
            re, im = _drawable(one["re"]), _drawable(one["im"])
            label = one["gate"] if "gate" in one else f"× {one['scale']:g}"
            axes.scatter(re, im, s=9, color=colour, label=label)
        axes.set(title=title, xlabel="real part", ylabel="imaginary part")
        axes.set_aspect("equal", adjustable="datalim")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4, **_LEGEND)
    return figure


@_styled
def gates(data: Data) -> Figure:
    """The four gates of an LSTM while it reads, a line for each unit, in its colour.

    Args:
        data: of `data.gates`.
    """
    figure, panels = _stacked(len(data["gates"]), 1.4)
    colours = _colours(len(data["units"]))
    for axes, (name, traces) in zip(panels, data["gates"].items(), strict=True):
        low = -1 if name == "g" else 0  # tanh, σ
        axes.tick_params(axis="x", length=0)
        axes.set(title=GATES[name], ylim=(low - 0.05, 1.05), yticks=(low, (low + 1) / 2, 1))
        for unit, trace, colour in zip(data["units"], traces, colours, strict=True):
            axes.plot(array(trace), color=colour, linewidth=1.2, label=f"unit {unit}")
    _characters(panels[-1], data["characters"])
    _legend(figure, panels[0], 3)
    return figure


@_styled
def states(data: Data) -> Figure:
    """The state of all units of a model while it reads: a row for each, a column a character.

    Args:
        data: of `data.states`.
    """
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    _bare(figure, axes)
    h = np.array([array(row) for row in data["h"]])  # (H, T)
    image = axes.imshow(h, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set(ylabel="unit")
    _characters(axes, data["characters"])
    bar = figure.colorbar(image, ax=axes, label="h", pad=0.02)
    _bare(figure, bar.ax)
    bar.outline.set_edgecolor(INK)
    return figure


def drawn(data: Data) -> list[tuple[str, str, str]]:
    """Title, caption and SVG of each picture of which the data tell, for a page.

    The SVG is an element to stand inside HTML: it refers to nothing outside, its ids are its own,
    text is text and has the colour of the page. The same data give the same SVG.

    Args:
        data: what `bptt gradients --json` writes, or `data.everything` returns.
    """
    draw: dict[str, Draw] = {
        "norms": norms,
        "radii": radii,
        "eigenvalues": eigenvalues,
        "gates": gates,
        "states": states,
    }
    about = _captions(data)
    made = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # nobody's own style: the same data give the same page
        for name, picture in draw.items():
            if name in data:
                made.append((*about[name], _svg(picture(data[name]), name)))
    return made


def _captions(data: Data) -> dict[str, tuple[str, str]]:
    """Title and caption of each picture."""
    model = data.get("model")
    told = ""
    if model is not None:
        told = (
            f"The model is an LSTM of {model['hidden']} units after {model['steps']} steps of "
            f"training on {model['characters']} different characters, at "
            f"{model['bits']:.2f} bits per character."
        )
    return {
        "norms": (
            "The error on its way back: ‖δ_t‖",
            "The loss reaches the last step only, on the right, with a cotangent of norm 1. Each "
            "block of W is orthogonal, times the scale. A line that falls to the left is a "
            "gradient that vanishes, one that rises to the left explodes. What is 0 or beyond "
            "float64 is not drawn. For LSTM and GRU δ_t is that of all gates together.",
        ),
        "radii": (
            "The spectral radius of ∂s_t/∂s_{t-1}",
            "The largest absolute eigenvalue of the Jacobian of each step: diag(f′(a_t)) W for "
            "tanh, sigmoid and relu; for the LSTM that of (h, c). Below 1 a step shrinks what it "
            "is repeated on, above 1 it makes it grow. In one sequence.",
        ),
        "eigenvalues": (
            "The eigenvalues of W",
            "Left: orthogonal W has them on the unit circle (the line), and a scale is the radius "
            f"of their circle. Right: the four blocks of W of a trained model. {told}",
        ),
        "gates": (
            "The gates of an LSTM on text",
            "Each line is a unit, in the same colour in all four pictures; those whose gates vary "
            f"most. The forget gate is what ∂c_t is multiplied by on its way back. {told}",
        ),
        "states": (
            "The state of a character model over a sentence",
            "h of every unit after each character, from a state of zeros at the start of the "
            f"sentence, which is of the held-out text. {told}",
        ),
    }


_LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": INK, "fontsize": "small"}


@cache
def _family() -> tuple[str, ...]:
    there = set(font_manager.get_font_names())
    return ("sans-serif", *(name for name in CHINESE if name in there))


def _ticks() -> dict[str, Any]:
    """Said once for all ticks, also of those that are made when the figure is drawn."""
    return {"which": "both", "colors": INK, "labelsize": "small", "labelfontfamily": _family()}


def _bare(figure: Figure, axes: Axes) -> None:
    """Nothing behind it."""
    figure.set_facecolor("none")
    axes.set_facecolor("none")
    axes.tick_params(**_ticks())
    axes.set_axisbelow(True)


def _stacked(panels: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Panels one above the other, so that they can be read on a phone."""
    figure = Figure(figsize=(WIDTH, 0.9 + height * panels), layout="constrained")
    found = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for axes in found:
        _bare(figure, axes)
        axes.grid(color=INK, alpha=0.25, linewidth=0.5)
    return figure, list(found)


def _curves(axes: Axes, t: Sequence[int], curves: Mapping[str, Any]) -> None:
    # a point by itself, or between two that are not drawn, is no line
    mark = "." if len(t) == 1 else None
    styles = zip(_colours(len(curves)), LINES * len(curves), strict=False)
    for (name, values), (colour, line) in zip(curves.items(), styles, strict=False):
        axes.plot(t, values, color=colour, linestyle=line, linewidth=1.6, marker=mark, label=name)


def _legend(figure: Figure, axes: Axes, columns: int = 5) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, **_LEGEND)


def _characters(axes: Axes, text: str) -> None:
    """A tick for each character that was read."""
    axes.set_xticks(range(len(text)), [SHOWN.get(c, c) for c in text])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(text) - 0.5)


def _colours(count: int) -> list[str]:
    return [COLOURS[n % len(COLOURS)] for n in range(count)]


def _scale(part: Data) -> str:
    return f"W × {part['scale']:g}"


def _drawable(values: Sequence[float | str]) -> Any:
    """An array of what `data.numbers` wrote; NaN, which is not drawn, for what is too large."""
    found = array(values)
    return np.where(np.abs(found) < MOST, found, np.nan)


def _log10(values: Any) -> Any:
    """NaN, which is not drawn, for 0 and infinity."""
    some = (values > 0) & (values < np.inf)
    return np.log10(values, out=np.full_like(values, np.nan), where=some)


def _power_of_ten(k: float) -> str:
    return f"10{str(round(k)).translate(SUPERSCRIPTS)}"


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for the inside of a page."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        # the reader's fonts have them
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(out, format="svg", metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<[^>]+>", lambda tag: _of_the_page(tag[0], name), svg)
    # its style is for its own elements, not for all of the page
    return svg.replace("*{", f"#{name} *{{", 1).replace("<svg", f'<svg id="{name}" role="img"', 1)


def _of_the_page(tag: str, name: str) -> str:
    """A tag with ids that no other picture has, and with the page's ink."""
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    return tag.replace(INK, "currentColor")
