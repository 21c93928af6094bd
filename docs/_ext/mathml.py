"""Formulas as MathML, made when the pages are: the browser needs no script and no network."""

from __future__ import annotations

import re
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx

PRIMED = re.compile(r"<msup>(<mi>[^<]*</mi>)(?:<mrow>)?<mi>&#x02032;</mi>(?:</mrow>)?</msup>")


def mathml(latex: str, *, display: bool = False) -> str:
    """The formula as a `<math>` element.

    A prime is raised by nature. As a superscript most fonts raise it twice, so it stands beside.
    """
    found = latex2mathml.converter.convert(latex, display="block" if display else "inline")
    return PRIMED.sub(r'\1<mo lspace="0" rspace="0">&#x02032;</mo>', found)


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", "", CLASS="formula"))
    translator.body.append(f"<div>{mathml(node.astext(), display=True)}</div>")
    if node.get("number"):
        translator.body.append(f'<span class="number">({node["number"]})</span>')
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
