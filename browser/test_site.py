"""The documentation in a real browser, offline: build it, then `SITE=folder pytest browser`."""

import os
from pathlib import Path

import pytest

SITE = Path(os.environ.get("SITE", "docs/_build/html"))
PAGES = (
    *("index", "derivation/backward", "derivation/lstm", "reports"),
    *("zh/index", "zh/derivation/backward"),
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_and_has_no_error(name, opened):
    window = opened((SITE / f"{name}.html").absolute())
    assert window.said == []
    asked = [url for url in window.asked if not url.startswith(("file:", "data:"))]
    assert asked == []


@pytest.mark.parametrize("name", [name for name in PAGES if "derivation" in name])
def test_formulas_are_drawn_by_the_browser_itself(name, opened):
    page = opened((SITE / f"{name}.html").absolute()).page
    formula = page.locator("math[display=block]").first
    assert formula.is_visible()
    box = formula.bounding_box()
    assert box["height"] > 15
    assert box["width"] > 60


def test_no_picture_is_missing(opened):
    page = opened((SITE / "reports.html").absolute()).page
    widths = page.evaluate("[...document.querySelectorAll('article img')].map(i => i.naturalWidth)")
    assert len(widths) >= 5
    assert min(widths) > 0
