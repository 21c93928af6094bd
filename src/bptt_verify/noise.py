"""The noise of stochastic arithmetic: what each rounding of each sample is drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from bptt_verify.primitives import SAMPLES

SHEET = np.random.default_rng(0).uniform(-1, 1, 262_139)
"""Random numbers; which of them an operation gets is drawn anew each time. Their number is a prime:
where an array needs more, its rows are not the same."""

FAR = np.copysign((1 + np.abs(SHEET)) / 2, SHEET)
"""The same, away from 0, for the few samples whose noise is shared."""

ALONE = SAMPLES // 2
"""Samples in which every rounding has noise of its own; in the others it is partly shared."""

EVERY = range(1, SAMPLES + 1)
"""All samples, by their number."""

FIRST = (1, 2, 3, 10, 13, 15)
"""Some of either kind. σ of sixteen that begin with six such is at least √(6/16) of theirs."""


class Places:
    """Where on a sheet to read noise: at every step of a loop the same places again."""

    def __init__(self, draw: Callable[[], int]) -> None:
        self._draw = draw
        self._known: list[int] = []
        self._next = 0

    def restart(self) -> None:
        """The next step begins."""
        self._next = 0

    def __call__(self) -> int:
        """The next place."""
        if self._next == len(self._known):
            self._known.append(self._draw())
        self._next += 1
        return self._known[self._next - 1]


class Noise:
    """A source of noise. Read from a fixed sheet: drawing it costs more than the arithmetic."""

    def __init__(self, rng: np.random.Generator, samples: Sequence[int] = EVERY) -> None:
        self._rng = rng
        self._samples = samples
        self._alone = 1 + sum(sample <= ALONE for sample in samples)
        self._shared: Callable[[], int] = self._place

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform in ±1, none in the first row: bounded away from 0, two such could only cancel.

        The same operation on the same numbers rounds the same way, and such errors add up: n equal
        terms are n times as far off as one, not √n times. So in the samples past ALONE noise is
        shared along some of the axes, and by all steps of a loop; three bits of the sample's number
        choose the axes.
        """
        alone = (self._alone, *shape[1:])
        shared = (shape[0] - self._alone, *shape[1:])
        noise = np.concatenate([self.alone(alone), _read(FAR, shared, self._shared())])
        noise[0] = 0
        for axis in range(1, noise.ndim):
            rows = [
                row
                for row, sample in enumerate(self._samples, 1)
                if sample > ALONE and sample >> (axis - 1) % 3 & 1
            ]
            first = noise.take([0], axis)[rows] if noise.shape[axis] else 0
            noise[rows] = first
        return noise

    def alone(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform in ±1, each by itself."""
        return _read(SHEET, shape, self._place())

    @contextmanager
    def loop(self) -> Iterator[Callable[[], None]]:
        """The steps of a loop, each of which begins by calling what this gives."""
        outer, places = self._shared, Places(self._shared)
        self._shared = places
        try:
            yield places.restart
        finally:
            self._shared = outer

    def _place(self) -> int:
        return int(self._rng.integers(SHEET.size))


def _read(sheet: NDArray[np.float64], shape: tuple[int, ...], at: int) -> NDArray[np.float64]:
    n = math.prod(shape)
    if at + n > sheet.size:  # around the end
        return sheet.take(np.arange(at, at + n), mode="wrap").reshape(shape)
    return sheet[at : at + n].reshape(shape)
