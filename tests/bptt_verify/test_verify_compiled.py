import pytest

from bptt_verify.pairs.compiled import PAIRS
from bptt_verify.verify import verify_each

# The compiled layers are pairs like any other, beside the twins of the readable ones.


@pytest.mark.parametrize("name", PAIRS)
def test_the_compiled_layers_pass(name):
    for report in verify_each(PAIRS[name], ["float32", "float64"], cases=40, seed=1):
        assert report.verdict == "pass", report.first_failure
