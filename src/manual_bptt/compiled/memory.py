"""Memory that a step of training frees is kept for the next one.

glibc gives freed memory back to the system once there is more of it than twice the largest block
that was mapped by itself and freed (malloc(3), M_MMAP_THRESHOLD); the next step then gets it anew,
page by page. At T, B, D, H, C = 35, 20, 650, 650, 1000, with many arrays and none of them large,
two fifths of a step went so. One block of the largest size that counts, freed before anybody
touches it, lets twice as much be kept. With another library for memory it does nothing.
"""

from __future__ import annotations

import numpy as np

LARGEST = 32 * 2**20
"""Bytes: larger blocks do not count (DEFAULT_MMAP_THRESHOLD_MAX where a pointer has 64 bits)."""


def keep() -> None:
    """Let each thread of the process keep what it frees, up to twice that much."""
    np.empty(LARGEST - 2**16, np.uint8)  # a block is somewhat larger than what it holds
