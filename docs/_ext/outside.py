"""Links of a page that lead out of the site.

What they lead to, the README or a folder of the repository, is no page: the words stay, without the
link. A source file is copied beside the pages and stays linked.
"""

from __future__ import annotations

from pathlib import Path

from docutils.nodes import inline
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class Outside(SphinxTransform):
    """Takes the links out, before anyone looks for the pages they name."""

    default_priority = 1

    def apply(self, **_: object) -> None:
        """Called once for each page."""
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftype") == "myst" and self._leaves(node):
                node.replace_self(inline("", "", *node[0].children))

    def _leaves(self, node: addnodes.pending_xref) -> bool:
        """Whether it names something that is there, and beside or above the pages."""
        pages = Path(self.env.srcdir).resolve()
        target = (pages / self.env.docname).parent / str(node["reftarget"]).partition("#")[0]
        there = node.get("refdomain") == "doc" or target.exists()  # a page has lost its suffix
        return there and not target.resolve().is_relative_to(pages)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_transform(Outside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
