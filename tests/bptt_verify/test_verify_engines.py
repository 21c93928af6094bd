import os

import pytest

from bptt_verify.pairs import BY_NAME, REGISTRY
from bptt_verify.verify import verify_each

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

# The layers on other engines are pairs like any other, beside the twins of the readable ones.

EVERY = [name for name in BY_NAME if name not in REGISTRY]
# what the drop-ins for JAX, which are verified too, run as well: compiled a second time nightly
TWICE = () if NIGHTLY else ("lstm-jax", "gru-jax")


@pytest.mark.parametrize("name", [name for name in EVERY if name not in TWICE])
def test_the_layers_on_other_engines_pass(name):
    # XLA takes a second to compile a shape: nightly as many as the others
    cases = 4 if name.endswith("-jax") and not NIGHTLY else 40
    for report in verify_each(BY_NAME[name], ["float32", "float64"], cases=cases, seed=1):
        assert report.verdict == "pass", report.first_failure
