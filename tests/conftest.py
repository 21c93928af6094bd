import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# `ci` draws the same cases on every run; `nightly` draws many fresh ones:
# HYPOTHESIS_PROFILE=nightly pytest
quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, database=None, print_blob=True, **quiet)
settings.register_profile("nightly", max_examples=2000, **quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def hearing():
    """Ctrl-C is heard, by processes that are started too: a job in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
