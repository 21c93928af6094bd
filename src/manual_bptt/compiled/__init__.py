"""The hand-written layers compiled for the processor at hand, by numba.

What was compiled is kept on disk. numba takes it for up to date as long as the one file that a
function stands in has not changed, though most functions here call some in other files; so there is
a folder for each state of all of them together.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from numba import config


def _folder() -> Path:
    """Beside these files, or where numba is told to keep its own, or in the user's cache."""
    here = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))
    name = hashlib.sha256(sources).hexdigest()[:16]
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "manual_bptt" / name
    ours = here / "__pycache__" / "numba"
    if not os.access(here, os.W_OK):
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "manual_bptt" / name
    with contextlib.suppress(OSError):
        for other in ours.glob("*"):
            if other.name != name:
                shutil.rmtree(other)  # of an earlier state
    return ours / name


_before = config.CACHE_DIR
config.CACHE_DIR = str(_folder())
try:
    from manual_bptt.compiled import gru, gru_before, lstm, memory, model, network, rnn
finally:
    config.CACHE_DIR = _before

memory.keep()

__all__ = ["gru", "gru_before", "lstm", "model", "network", "rnn"]
