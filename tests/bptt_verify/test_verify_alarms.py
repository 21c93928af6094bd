"""Right code raises no alarm: a few thousand cases here, a million in the nightly profile.

Of the million 600,000 are of the article's pairs, the others of the cells and what is made of them.
Those are in the nightly profile alone: here `bptt verify`, the README's first command, has run them
all in both dtypes.
"""

import os

import pytest

from bptt_verify import verify
from bptt_verify.pairs import ARTICLE, REGISTRY

DTYPES = ("float32", "float64")
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
PAIRS = REGISTRY if NIGHTLY else ARTICLE
OF_THE_ARTICLE, OF_OTHERS = (600_000, 400_000) if NIGHTLY else (3_000, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_right_code_raises_no_alarm(name, dtype):
    if name in ARTICLE:
        count, pairs = OF_THE_ARTICLE, len(ARTICLE)
    else:
        count, pairs = OF_OTHERS, len(REGISTRY) - len(ARTICLE)
    each = -(-count // (pairs * len(DTYPES)))
    report = verify(PAIRS[name], each, seed=each, dtype=dtype)
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]
    assert report.cases + report.redrawn == each
