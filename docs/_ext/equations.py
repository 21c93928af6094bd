"""What belongs to a numbered equation: its formula, its lines of code, its line of a report.

A derivation is "article", for equations (1) to (13) of the recurrent layer, readout and update, or
the name of a cell's module. Numbers are strings, as they stand in the source: "9", "4′".
"""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bptt_verify.pair import Pair
from bptt_verify.pairs import ARTICLE, CELLS
from bptt_verify.pairs.cells import Cell

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

CELLS_OF: dict[str, dict[str, Cell]] = {}
"""For each module of a cell the entries of the registry that are made of it."""
for _name, _cell in CELLS.items():
    CELLS_OF.setdefault(_cell.by_hand.__name__.rpartition(".")[2], {})[_name] = _cell

MODULES = {"article": ("rnn", "readout", "training"), **{module: (module,) for module in CELLS_OF}}
"""For each derivation the modules by hand that hold it."""

TWINS = {"training": "update"}
"""Where the twin's module has another name."""

NUMBERS = r"\(\d+′?\)(?:, \(\d+′?\))*"
ABOVE = re.compile(rf"\s*# (?:into )?({NUMBERS})")
BEHIND = re.compile(rf"\S.*  # ({NUMBERS})")
DOCUMENTED = re.compile(rf"({NUMBERS})")
NUMBERED = re.compile(r"^( *)\((\d+′?)\) ", re.MULTILINE)
RESULT = re.compile(r"\s*return .*\b(Cache|Grads)\(")

CLOSE = 2
"""So many lines without a mark may stand between two marks that are shown as one."""


@dataclass(frozen=True)
class Snippet:
    """Some lines of a file, from `first` on, within a function of the module."""

    file: str
    first: int
    function: str
    text: str


@dataclass(frozen=True)
class Measured:
    """What a run says about an equation."""

    quantities: tuple[str, ...]
    """Those in which it is seen."""
    worst: Mapping[str, float]
    """In units of the tolerance, by dtype."""
    cases: int


@cache
def formulas(derivation: str) -> dict[str, str]:
    """The LaTeX of every equation, by its number."""
    found = tomllib.loads((DOCS / "equations.toml").read_text("utf-8"))[derivation]
    return dict(found)


@cache
def numbered(module: Path) -> dict[str, str]:
    """The numbered lines of the docstring that a module opens with."""
    docstring = ast.get_docstring(ast.parse(module.read_text("utf-8")), clean=False) or ""
    starts = list(NUMBERED.finditer(docstring))
    starts = [m for m in starts if m[1] == starts[0][1]]  # others begin a line of prose
    ends = [m.start() for m in starts[1:]] + [len(docstring)]
    texts = (docstring[m.end() : end] for m, end in zip(starts, ends, strict=True))
    return {m[2]: text.split("\n\n")[0] for m, text in zip(starts, texts, strict=True)}


def by_hand(derivation: str) -> list[Path]:
    """The files of the derivation."""
    return [ROOT / f"src/manual_bptt/{module}.py" for module in MODULES[derivation]]


def twins(derivation: str) -> list[Path]:
    """The files of the same forward pass in JAX."""
    names = (TWINS.get(module, module) for module in MODULES[derivation])
    return [ROOT / f"src/jax_ref/{name}.py" for name in names]


def stated(derivation: str) -> dict[str, str]:
    """Every equation as the docstrings by hand have it."""
    return {n: text for path in by_hand(derivation) for n, text in numbered(path).items()}


def forward(derivation: str) -> set[str]:
    """The numbers of the equations that the twin has too; it knows no gradient."""
    return {n for path in twins(derivation) for n in numbered(path)}


@cache
def marked(path: Path) -> dict[str, list[Snippet]]:
    """The lines of a file that are an equation, by its number.

    A comment that begins with numbers stands for the lines under it, up to the next comment, an
    empty line, or the end of the block; a comment behind a statement for that statement; a
    docstring that begins so for the whole function. Marks that are close together are shown as one.
    """
    source = path.read_text("utf-8")
    lines, tree = source.splitlines(), ast.parse(source)
    ranges: dict[str, list[tuple[int, int]]] = {}
    for numbers, first, last in sorted(_marks(lines, tree), key=lambda mark: mark[1]):
        for number in re.findall(r"\d+′?", numbers):
            found = ranges.setdefault(number, [])
            if found and first <= found[-1][1] + CLOSE + 1:
                first, last = found[-1][0], max(last, found.pop()[1])
            found.append((first, last))
    name = path.relative_to(ROOT).as_posix()
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]

    def cut(first: int, last: int) -> Snippet:
        first = _head(lines, first, last)
        around = [f.name for f in functions if f.lineno <= first <= (f.end_lineno or 0)]
        text = textwrap.dedent("\n".join(lines[first - 1 : last]))
        return Snippet(name, first, around[0], text)

    return {n: [cut(*r) for r in found] for n, found in ranges.items()}


def _head(lines: list[str], first: int, last: int) -> int:
    """The first line, or where they begin within a block and end outside of it, its head."""
    margin = min(_margin(line) for line in lines[first - 1 : last] if line.strip())
    while _margin(lines[first - 1]) > margin:
        first -= 1
    return first


def _marks(lines: list[str], tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Numbers, first and last line of each place that is marked."""
    statements = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not hasattr(n, "body")]
    for at, line in enumerate(lines, 1):
        if above := ABOVE.match(line):
            yield above[1], at, _last(lines, at)
        elif behind := BEHIND.search(line):
            own = [s for s in statements if s.lineno <= at <= (s.end_lineno or 0)]
            yield from ((behind[1], s.lineno, s.end_lineno or 0) for s in own)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            documented = DOCUMENTED.match(ast.get_docstring(node) or "")
            if documented:
                yield documented[1], node.lineno, node.end_lineno or 0


def _last(lines: list[str], comment: int) -> int:
    """The last line of what the comment on this line stands above."""
    margin = _margin(lines[comment - 1])
    last = comment
    for line in lines[comment:]:
        if not line.strip() or line.lstrip().startswith("#") or _margin(line) < margin:
            break
        last += 1
    while last > comment and (lines[last - 1].endswith(":") or RESULT.match(lines[last - 1])):
        last -= 1  # the beginning of something else, or what is only handed back
    return last


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def snippets(paths: list[Path], number: str) -> list[Snippet]:
    """The lines of these files that are the equation."""
    return [snippet for path in paths for snippet in marked(path).get(number, [])]


def pairs(derivation: str, number: str) -> dict[str, Pair]:
    """The entries of the registry in which the equation is computed.

    (4′) is another form of (4), which has entries of its own.
    """
    if derivation == "article":
        return ARTICLE
    cells = CELLS_OF[derivation]
    if f"{number.rstrip('′')}′" in stated(derivation):
        cells = {k: c for k, c in cells.items() if ("form" in c.options) == ("′" in number)}
    return {name: cell.pair() for name, cell in cells.items()}


def seen_in(derivation: str, number: str) -> tuple[int, tuple[str, ...]]:
    """The number of the equation that a report shows, and the quantities that show it.

    One that no quantity shows, a gate, is seen where the next one is; one for a block of δ in δ.
    """
    shown: dict[int, dict[str, None]] = {}
    for pair in pairs(derivation, number).values():
        for quantity, equation in pair.equations.items():
            shown.setdefault(equation.number, {})[quantity] = None
    own = int(number.rstrip("′"))
    if own not in shown:
        if not re.search(r"δ[^\W\d_]_t =", stated(derivation)[number]):
            return seen_in(derivation, str(own + 1))
        own = next(n for n, quantities in shown.items() if "delta" in quantities)
    return own, tuple(shown[own])


def measured(run: Mapping[str, Any], derivation: str, number: str) -> Measured:
    """The worst error of the equation in a run of `bptt verify --json`.

    Raises `LookupError` where the run does not show the equation, or where it did not pass.
    """
    at, quantities = seen_in(derivation, number)
    names = set(pairs(derivation, number))
    worst: dict[str, float] = {}
    cases = 0
    for report in run["reports"]:
        rows = [r for r in report["rows"] if (r["equation"] or {}).get("number") == at]
        if report["pair"] not in names or not rows:
            continue
        if any(row["verdict"] != "pass" for row in rows):
            raise LookupError(f"equation ({number}) of {derivation}: {report['pair']} did not pass")
        error = max(float(row["error"]) for row in rows)
        worst[report["dtype"]] = max(error, worst.get(report["dtype"], 0.0))
        cases += max(row["cases"] for row in rows)
    if not worst:
        raise LookupError(f"equation ({number}) of {derivation}: not in the run")
    return Measured(quantities, worst, cases)
