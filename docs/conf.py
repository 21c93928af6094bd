"""How Sphinx makes the site: `python -m sphinx docs site`. It opens offline, formulas included."""

import os
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "manual-bptt"
author = "the authors of manual-bptt"
extensions = ["myst_parser", "mathml", "equation_directive", "outside"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False

# the errors that stand beside the equations: of this run, or of another `bptt verify --json`
equations_run = os.environ.get("BPTT_RUN", str(HERE / "measured.json"))

html_theme = "sphinx_book_theme"
html_title = "manual-bptt"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["equations.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"use_download_button": False, "navbar_persistent": []}
html_context = {"default_mode": "auto"}


def _language(_app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    if page.startswith("zh/"):
        context["language"] = "zh-CN"


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("html-page-context", _language)
