"""The directive `equation`: a numbered equation, its code on both sides, and its error in a run.

It takes a derivation and a number: `{equation} lstm 9`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equations
from docutils import nodes
from equations import Snippet
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WORDS = {
    "en": {
        "by hand": "By hand",
        "twin": "Twin",
        "no twin": "no formula; jax.vjp takes this from the forward lines",
        "measured": "Measured",
        "error": "{errors} of the tolerance in {cases} cases",
        "each": "{error:.3f} ({dtype})",
        "and": " and ",
        "seen": ", seen in {quantities}",
        "comma": ", ",
        "colon": ": ",
    },
    "zh": {
        "by hand": "手写",
        "twin": "孪生实现",
        "no twin": "没有公式，由 jax.vjp 从前向各行求出",
        "measured": "实测",
        "error": "{cases} 个例子中，最大误差为容差的 {errors}",
        "each": "{error:.3f} 倍（{dtype}）",
        "and": "、",
        "seen": "，见于 {quantities}",
        "comma": "、",
        "colon": "：",
    },
}

RUN = "equations_run"
"""The setting with the path of a run of `bptt verify --json`, or what measure.py keeps of one."""


class EquationDirective(SphinxDirective):
    """A derivation and the number of an equation."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Called where the directive stands."""
        derivation, number = self.arguments
        words = WORDS["zh" if self.env.docname.startswith("zh/") else "en"]
        try:
            content = list(_content(self.config[RUN], derivation, number, words))
        except LookupError as error:
            raise self.error(f"equation: {error}") from error
        for path in (*equations.by_hand(derivation), *equations.twins(derivation)):
            self.env.note_dependency(str(path))
        self.env.note_dependency(str(equations.DOCS / "equations.toml"))
        anchor = f"{derivation}-{number}".replace("_", "-").replace("′", "-prime")
        return [nodes.container("", *content, classes=["equation"], ids=[anchor])]


def _content(
    run: Mapping[str, Any], derivation: str, number: str, words: Mapping[str, str]
) -> Iterator[nodes.Node]:
    latex = equations.formulas(derivation)[number]
    yield nodes.math_block(latex, latex, number=number, label=None, nowrap=False)
    yield from _code(words, "by hand", equations.snippets(equations.by_hand(derivation), number))
    if number in equations.forward(derivation):
        yield from _code(words, "twin", equations.snippets(equations.twins(derivation), number))
    else:
        yield _line(words, "twin", words["no twin"])
    found = equations.measured(run, derivation, number)
    each = (words["each"].format(error=e, dtype=dtype) for dtype, e in found.worst.items())
    text = words["error"].format(errors=words["and"].join(each), cases=found.cases)
    quantities = words["comma"].join(found.quantities)
    yield _line(words, "measured", text + words["seen"].format(quantities=quantities))


def _code(words: Mapping[str, str], what: str, snippets: Sequence[Snippet]) -> Iterator[nodes.Node]:
    if not snippets:
        raise LookupError(f"no line of the source, {what}, is marked with this number")
    for snippet in snippets:
        yield _line(words, what, f"{snippet.file}:{snippet.first} ({snippet.function})")
        block = nodes.literal_block(snippet.text, snippet.text, language="python")
        block["linenos"] = True
        block["highlight_args"] = {"linenostart": snippet.first}
        yield block


def _line(words: Mapping[str, str], what: str, text: str) -> nodes.paragraph:
    label = nodes.strong("", words[what])
    return nodes.paragraph("", "", label, nodes.Text(words["colon"] + text), classes=["about"])


def _load(app: Sphinx, _: object) -> None:
    """Read the run; the pages depend on what it says."""
    app.config[RUN] = json.loads(Path(app.config[RUN]).read_text("utf-8"))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_config_value(RUN, "", "env", types=(str, dict))
    app.connect("config-inited", _load)
    app.add_directive("equation", EquationDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
