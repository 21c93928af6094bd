"""Right code raises no alarm: a few thousand cases here, a million in the nightly profile."""

import os

import pytest

from bptt_verify import verify
from bptt_verify.pairs import REGISTRY

DTYPES = ("float32", "float64")
CASES = 1_000_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 6_000
EACH = -(-CASES // (len(REGISTRY) * len(DTYPES)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REGISTRY)
def test_right_code_raises_no_alarm(name, dtype):
    report = verify(REGISTRY[name], EACH, seed=EACH, dtype=dtype)
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]
    assert report.cases + report.redrawn == EACH
