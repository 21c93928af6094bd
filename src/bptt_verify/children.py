"""Processes that work for this one, and Ctrl-C, which a terminal sends to all of them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker

GRACE = 2.0
"""Seconds in which a pool whose workers were killed has to clean up."""


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started in here do not hear Ctrl-C: their parent ends them.

    It hears what comes meanwhile afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # what starts with the first process would let Ctrl-C through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which they take over
    # other threads, of BLAS or XLA, do not block it, and what they are told is handled in this one
    handler, heard = signal.getsignal(signal.SIGINT), list[int]()
    holds = threading.current_thread() is threading.main_thread() and callable(handler)
    if holds:
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        if holds:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """So many workers, that end with what happens in here: nothing waits for what is left to do."""
    others = set(multiprocessing.active_children())
    workers = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield workers
    except BaseException:  # Ctrl-C above all
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
        # one that was killed as it wrote is waited for in vain
        ending = threading.Thread(
            target=workers.shutdown, kwargs={"cancel_futures": True}, daemon=True
        )
        ending.start()
        ending.join(GRACE)
        raise
    workers.shutdown()
