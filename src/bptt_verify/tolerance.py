"""What "equal" means: how many σ an entry may be off.

INTERIM. These are the only numbers in the project that were set by hand. σ itself is derived (see
`bptt_verify.rounding`); the multiplier is to be replaced by a measured calibration with a stated
probability of a false alarm.
"""

from typing import Any

import numpy as np

INTERIM_MULTIPLIER = {"float32": 32.0, "float64": 32.0}

DTYPES = tuple(INTERIM_MULTIPLIER)

SHARP = 0.01
"""A band wider than this part of the value cannot see an error of 1 %."""


def multiplier(dtype: np.dtype[Any]) -> float:
    """How many σ an entry of this dtype may be off."""
    return INTERIM_MULTIPLIER[str(dtype)]
