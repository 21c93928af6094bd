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


def places(rng: np.random.Generator) -> Iterator[int]:
    """Places on a sheet, without end; drawn many at once, as one by one takes ten times as long."""
    while True:
        yield from rng.integers(SHEET.size, size=64).tolist()


class Repeated:
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
    """A source of noise. Read from a fixed sheet: drawing it costs more than the arithmetic.

    Args:
        at: the `places` to read it from.
        samples: the numbers of those that get noise.
    """

    def __init__(self, at: Iterator[int], samples: Sequence[int] = EVERY) -> None:
        self._place: Callable[[], int] = at.__next__
        self._alone = 1 + sum(sample <= ALONE for sample in samples)
        self._sharing = [
            np.flatnonzero([sample > ALONE and sample >> bit & 1 for sample in (0, *samples)])
            for bit in range(3)
        ]
        """The rows that share noise along an axis."""
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
            rows = self._sharing[(axis - 1) % 3]
            first = (slice(None),) * (axis - 1) + (slice(1),)
            noise[rows] = noise[(rows, *first)]
        return noise

    def alone(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform in ±1, each by itself."""
        return _read(SHEET, shape, self._place())

    @contextmanager
    def loop(self) -> Iterator[Callable[[], None]]:
        """The steps of a loop, each of which begins by calling what this gives."""
        outer, repeated = self._shared, Repeated(self._shared)
        self._shared = repeated
        try:
            yield repeated.restart
        finally:
            self._shared = outer


def _read(sheet: NDArray[np.float64], shape: tuple[int, ...], at: int) -> NDArray[np.float64]:
    n = math.prod(shape)
    if at + n > sheet.size:  # around the end
        return sheet.take(np.arange(at, at + n), mode="wrap").reshape(shape)
    return sheet[at : at + n].reshape(shape)
