"""The page of `bptt gradients`: its pictures, drawn anew from the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from bptt_verify.pictures.figures import drawn

TEMPLATE = "gradients.html"


def context(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the template is filled with."""
    pictures = [
        {"title": title, "caption": caption, "svg": Markup(svg)}
        for title, caption, svg in drawn(data)
    ]
    if not pictures:
        raise ValueError("no picture")
    return {"pictures": pictures}
