"""What "equal" means: how many σ an entry may be off.

σ is derived (`bptt_verify.rounding`). The multiplier is measured: the smallest whole number that
the largest |error|/σ of a correct case exceeds less than once in a million cases, for every pair
and dtype, a standard error of that estimate included. The distributions are in docs/tolerance.md,
made by benchmarks/calibration.py.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

MULTIPLIER = 9.0
"""The same for every dtype: σ is in units of each."""

DTYPES = ("float64", "float32", "bfloat16", "float16")


LIBRARY = 4.0
"""How many u a library's tanh, exp and the like may be off."""


def multiplier(dtype: np.dtype[Any]) -> float:
    """How many σ an entry of this dtype may be off."""
    return MULTIPLIER


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """The largest relative error of rounding to this dtype."""
    return float(ml_dtypes.finfo(dtype).eps) / 2  # type: ignore[no-untyped-call]


def largest(dtype: np.dtype[Any]) -> float:
    """The largest finite number."""
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def sharp(dtype: np.dtype[Any]) -> float:
    """A band wider than this part of the value cannot see an error of 1 %.

    Where the dtype itself is that coarse: than what one library function makes in it.
    """
    return max(0.01, LIBRARY * multiplier(dtype) * unit_roundoff(dtype))
