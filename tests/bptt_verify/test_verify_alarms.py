"""Right code raises no alarm: a few thousand cases here, a million in the nightly profile.

The cells are in the nightly profile alone: here `bptt verify`, the README's first command, has run
them all in both dtypes.
"""

import os

import pytest

from bptt_verify import verify
from bptt_verify.pairs import ARTICLE, REGISTRY

DTYPES = ("float32", "float64")
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
PAIRS = REGISTRY if NIGHTLY else ARTICLE
EACH = -(-(1_000_000 if NIGHTLY else 6_000) // (len(PAIRS) * len(DTYPES)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
def test_right_code_raises_no_alarm(name, dtype):
    report = verify(PAIRS[name], EACH, seed=EACH, dtype=dtype)
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]
    assert report.cases + report.redrawn == EACH
