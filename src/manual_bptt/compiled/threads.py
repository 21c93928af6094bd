"""How the work is cut: which thread takes which sequences of a batch, and in what blocks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

from manual_bptt import _door
from manual_bptt._door import Array

R = TypeVar("R")

Sums = tuple[Array, ...]
"""What a thread adds up for each of the weights."""

WORTH_IT = 1_000_000
"""Products of two numbers below which another thread costs more than it brings: some 20 µs."""

ROWS = 256
"""About how many rows, steps times sequences, are worked on at a time: enough for the products over
all of them to be fast, and few enough to stay near the processor."""


class _Cut(threading.local):
    """Rows of a block and threads, where the calling thread is told to cut finely."""

    told: tuple[int, int] | None = None


_count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_pool: ThreadPoolExecutor | None = None
_cut = _Cut()


def use(count: int) -> None:
    """Let so many threads share a batch; at first as many as the process has cores.

    Results are the same bit for bit for the same number. Raises `TypeError` or `ValueError` for
    anything but an int of at least 1.
    """
    global _count, _pool
    _count = _door.size("count", count)
    if _pool is not None:
        _pool.shutdown()
    _pool = None


@contextmanager
def finely(rows: int, count: int) -> Iterator[None]:
    """Blocks of so few rows, and so many threads however little there is to do.

    In the calling thread, for whoever tests: so that small batches have borders too.
    """
    before = _cut.told
    _cut.told = rows, count
    try:
        yield
    finally:
        _cut.told = before


def rows() -> int:
    """How many rows a block has at most, but for a single step that has more."""
    return _cut.told[0] if _cut.told else ROWS


def chunks(B: int, work: int) -> list[tuple[int, int]]:
    """The first of its sequences and their number, for each thread that gets some."""
    most = _cut.told[1] if _cut.told else min(_count, max(1, work // WORTH_IT))
    many = min(B, most)
    ends = [B * k // many for k in range(many + 1)]
    return [(b, end - b) for b, end in pairwise(ends)]


def run(jobs: Sequence[Callable[[], R]]) -> list[R]:
    """What each job returns; the first runs in the calling thread."""
    global _pool
    first, *others = jobs
    if others and _pool is None:
        _pool = ThreadPoolExecutor(max(1, _count - 1), thread_name_prefix="manual_bptt")
    waiting = [_pool.submit(job) for job in others] if _pool else []
    return [first(), *(job.result() for job in waiting)]


def total(parts: Sequence[Sums]) -> Sums:
    """The sums of all threads, added up in the order of the chunks, in the place of the first."""
    first, *others = parts
    for other in others:
        for sum_, more in zip(first, other, strict=True):
            sum_ += more
    return first


def _forget() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # threads do not live on in a child
    os.register_at_fork(after_in_child=_forget)
