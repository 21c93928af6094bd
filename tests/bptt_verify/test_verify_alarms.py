"""Right code raises no alarm: a few thousand cases here, a million in the nightly profile.

Half of the million are of the article's pairs, half of the cells and what is made of them. Those
are in the nightly profile alone: here `bptt verify`, the README's first command, has run them all
in both dtypes.
"""

import os

import pytest

from bptt_verify import verify
from bptt_verify.pairs import ARTICLE, REGISTRY

DTYPES = ("float32", "float64")
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
PAIRS = REGISTRY if NIGHTLY else ARTICLE
HALF = 500_000 if NIGHTLY else 6_000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_right_code_raises_no_alarm(name, dtype):
    half = ARTICLE if name in ARTICLE else PAIRS.keys() - ARTICLE.keys()
    each = -(-HALF // (len(half) * len(DTYPES)))
    report = verify(PAIRS[name], each, seed=each, dtype=dtype)
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]
    assert report.cases + report.redrawn == each
