"""A contestant in a process of its own, which runs when asked and stands still otherwise.

Thread pools spin for a while after their work and slow whoever comes next, so a process is stopped
by a signal whenever it is not its turn.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bptt_verify.bench.contestants import CONTESTANTS
from bptt_verify.bench.work import Work
from bptt_verify.children import deaf

PR_SET_PDEATHSIG = 1
"""Of Linux: the signal that a process gets when its parent ends."""

SHORTEST = 0.1
"""Seconds: a round is as many steps as take at least so long."""


class ContestError(Exception):
    """A contestant could not do its work."""


class Process:
    """A contestant at its work.

    Args:
        name: of the table.
        work: what to do.
        small: what the gradients are compared on.
        threads: the number of cores that the process may use.
    """

    def __init__(self, name: str, work: Work, small: Work, threads: int) -> None:
        self.name = name
        here, there = multiprocessing.get_context("spawn").Pipe()
        self._pipe = here
        self._process = multiprocessing.get_context("spawn").Process(
            target=_live, args=(name, work, small, threads, there), daemon=True
        )
        try:
            with deaf():
                self._process.start()
            there.close()
            self.first, self.prepared, self.memory = self._answer()
            self._stop()
        except BaseException:  # Ctrl-C above all
            self.close()
            raise

    def round(self) -> float:
        """The seconds of a step, over as many steps as a round has."""
        os.kill(self._pid, signal.SIGCONT)
        self._pipe.send("round")
        seconds: float = self._answer()
        self._stop()
        return seconds

    def close(self) -> None:
        """End it."""
        if self._process.pid is not None:  # it has started
            self._process.kill()
            self._process.join()
        self._pipe.close()

    @property
    def _pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def _stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise ContestError(f"{self.name}: ended at its work") from None
        if isinstance(answer, str):
            raise ContestError(f"{self.name}: {answer}")
        return answer


def _live(name: str, work: Work, small: Work, threads: int, pipe: Connection) -> None:
    if sys.platform == "linux":  # also when it is killed, and we stand still
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        prepare = CONTESTANTS[name].prepare
        start = time.perf_counter()
        step = prepare(small)
        found = {k: np.array(v) for k, v in step().items()}
        ready = time.perf_counter() - start
        if small != work:
            step = prepare(work)
        memory = _peak(step)
        steps = _steps_of_a_round(step)
        pipe.send((found, ready, memory))
        while pipe.recv():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            pipe.send((time.perf_counter() - start) / steps)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _steps_of_a_round(step: Callable[[], Any]) -> int:
    step()
    start = time.perf_counter()
    step()
    return max(1, int(SHORTEST / (time.perf_counter() - start)))


def _peak(step: Callable[[], Any]) -> dict[str, float] | None:
    """In MiB: resident before a step, and the highest level during it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    gc.collect()
    _trim()
    Path("/proc/self/clear_refs").write_text("5")  # the highest level so far is forgotten
    before = _level(status, "VmRSS")
    step()
    return {"idle": before, "peak": _level(status, "VmHWM")}


def _trim() -> None:
    """Give back to the system what the allocator only keeps for later."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _level(status: Path, name: str) -> float:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
