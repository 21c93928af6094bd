"""What stands between a subject and the process that it runs in.

A call of the subject is interrupted when it passes its time limit, what it prints is dropped, the
process-wide state that it changes is put back. All of this is cheap, and for code that returns to
Python now and then. Code that does not (a loop in C) ends the process, with a message: only a
process of its own (`bptt_verify.isolate`) turns that into a row of the report.

Signals, file descriptors and state belong to the main thread. In any other thread the subject runs
without them, and only the watchdog holds its time limit.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Self

import jax
import numpy as np

LIMIT = 60.0
"""Seconds that one call of the subject, forward and backward, may take unless told otherwise."""

LONGEST = 1e6
"""The longest limit: timers and poll() take no infinity."""

SOON = 1e-6
"""Seconds to an alarm that was due while a call ran."""

MARGIN = 5.0
"""Seconds granted to a busy machine before a subject counts as one that cannot be interrupted."""


class OverTimeError(BaseException):
    """Raised inside the subject when its time is up. No `except Exception` stops it."""


class Interrupted(KeyboardInterrupt):
    """The user's Ctrl-C, told from a KeyboardInterrupt that the subject raises itself."""


class Guard:
    """Runs calls of a subject under a time limit, silently, and puts back what they change.

    Args:
        limit: seconds for one call.
        watch: end the process when a call cannot be interrupted.
    """

    def __init__(self, limit: float = LIMIT, *, watch: bool = True) -> None:
        self.limit = limit
        self.phase = ""
        """What the subject is at, as messages say it."""
        self.over = ""
        """The phase in which the last call passed the limit."""
        self.changed: list[str] = []
        """Process-wide state that the last call left changed."""
        self._armed = False
        self._timing = False
        self._in_case = False
        self._later: list[int] = []
        """Signals that came in a case and are for somebody else, once it has ended."""
        self._watch = watch
        self._exit = os._exit

    @property
    def patience(self) -> float:
        """Seconds after which a subject cannot be interrupted: two calls of it, and a margin."""
        return 2 * self.limit + MARGIN

    def __enter__(self) -> Self:
        self._main = threading.current_thread() is threading.main_thread()
        with ExitStack() as undo:
            self._silence = _Silence()
            undo.callback(self._silence.close)
            self._watchdog = _Watchdog(self, self._silence.stderr)
            if self._watch:
                undo.callback(self._unwatch)
                self._watchdog.start()
                os._exit = self._refuse
                if not faulthandler.is_enabled():  # where a crash happened, which ends this process
                    undo.callback(faulthandler.disable)
                    faulthandler.enable(file=self._silence.stderr)
            self._ours = self._handlers() if self._main else {}
            self._theirs = {s: signal.getsignal(s) for s in self._ours}
            undo.callback(self._give_back)
            self._take_over()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _unwatch(self) -> None:
        os._exit = self._exit
        self._watchdog.stop()

    def _take_over(self) -> None:
        """See that signals come here, and know who else wants them."""
        for number, ours in self._ours.items():
            if (handler := signal.getsignal(number)) != ours:
                self._theirs[number] = handler
                signal.signal(number, ours)

    def _give_back(self) -> None:
        for number, ours in self._ours.items():
            if signal.getsignal(number) == ours:
                signal.signal(number, self._theirs[number])

    @contextmanager
    def case(self) -> Iterator[None]:
        """Around the calls of one case: output, warnings and signals of the main thread."""
        if not self._main:
            yield
            return
        self._take_over()
        self._later, self._in_case = [], True
        try:
            with self._silence(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # also where the user makes them errors
                yield
        finally:
            self._in_case = False
            if any(signal.getsignal(s) != handler for s, handler in self._ours.items()):
                self.changed.append("signal handlers")
                for number, handler in self._ours.items():
                    signal.signal(number, handler)
            for number in dict.fromkeys(self._later):
                signal.raise_signal(number)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises `OverTimeError`, or leaves it to `over` if that was swallowed."""
        self.over, self.changed = "", []
        before = _state() if self._main else {}
        self._process = os.getpid()
        timer = None
        start = self._watchdog.since = time.monotonic()
        try:
            if self._time_up in self._ours.values():
                # again and again: the subject may swallow the first
                self._timing = True
                timer = signal.setitimer(signal.ITIMER_REAL, self.limit, self.limit)
            self._armed = True
            yield
        finally:
            self._armed = False  # first: until then a signal may still raise
            self.end_child()
            self._watchdog.since = None
            if timer is not None:
                self._timing = False
                left, again = timer  # of the user's own, which may have been due meanwhile
                left = left and max(left - (time.monotonic() - start), SOON)
                signal.setitimer(signal.ITIMER_REAL, left, again)
            if before and (now := _state()) != before:
                self.changed = [name for name in before if now[name] != before[name]]
                _restore(before)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around one call that is not part of a case."""
        with self.case(), self.call():
            yield

    def end_child(self, error: BaseException | None = None) -> None:
        """Leave a process that the subject forked: the run is not its own.

        It ends as it would have if nobody caught what it raised.
        """
        if os.getpid() == self._process:
            return
        code = error.code if isinstance(error, SystemExit) else error and 1
        self._exit(code if isinstance(code, int) else int(code is not None))

    def _handlers(self) -> dict[int, Any]:
        ours: dict[int, Any] = {}
        # what is not Python's could not be put back; who ignores Ctrl-C goes on doing so
        if hasattr(signal, "SIGALRM") and signal.getsignal(signal.SIGALRM) is not None:
            ours[signal.SIGALRM] = self._time_up
        if signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
            ours[signal.SIGINT] = self._interrupt
        return ours

    def _refuse(self, status: int) -> NoReturn:
        """What `os._exit` is for a subject: it would end the run without a verdict."""
        if self._armed and os.getpid() == self._process:
            raise SystemExit(f"os._exit({status})")
        self._exit(status)

    def _time_up(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self.over = self.over or self.phase
            raise OverTimeError
        if not self._timing:  # else it is ours, and late
            self._hand_on(number, frame)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._hand_on(number, frame)
        if self._armed:
            raise Interrupted

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        """A signal that is not about the subject is for whatever handled it before."""
        if self._in_case:  # which is not to be left half done
            self._later.append(number)
            return
        handler = self._theirs[number]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:  # which ends the process
            signal.signal(number, handler)
            signal.raise_signal(number)


# --- state

_JAX = ("jax_enable_x64", "jax_debug_nans", "jax_disable_jit", "jax_numpy_dtype_promotion")


def _state() -> dict[str, Any]:
    """Process-wide state, by what a report calls it.

    Not the global random numbers, which are put back once, at the end of a run.
    """
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = ""
    return {
        "NumPy's error handling": np.geterr(),
        "the working directory": folder,
        "environment variables": dict(vars(os.environ)["_data"]),  # 100 times faster than decoded
        "the recursion limit": sys.getrecursionlimit(),
        "JAX's configuration": [getattr(jax.config, name) for name in _JAX],
        "threads, left running": threading.active_count(),
    }


def _restore(before: dict[str, Any]) -> None:
    np.seterr(**before["NumPy's error handling"])
    with suppress(OSError):
        os.chdir(before["the working directory"])
    variables = before["environment variables"]
    if variables != vars(os.environ)["_data"]:
        os.environ.clear()
        os.environ.update({os.fsdecode(k): os.fsdecode(v) for k, v in variables.items()})
    sys.setrecursionlimit(before["the recursion limit"])
    for name, value in zip(_JAX, before["JAX's configuration"], strict=True):
        if getattr(jax.config, name) != value:
            jax.config.update(name, value)  # type: ignore[no-untyped-call]


# --- output


class _Silence:
    """Drops what is written to stdout and stderr, by Python or past it."""

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_WRONLY)
        self._text = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._kept: dict[int, int] = {}
        for descriptor in (1, 2):
            with suppress(OSError):  # not open in this process
                self._kept[descriptor] = os.dup(descriptor)
        self.stderr = self._kept.get(2, self._null)
        """Where a message still reaches the user."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        before = sys.stdout, sys.stderr
        flush()
        sys.stdout = sys.stderr = self._text
        for descriptor in self._kept:
            os.dup2(self._null, descriptor)
        try:
            yield
        finally:
            flush()
            for descriptor, kept in self._kept.items():
                os.dup2(kept, descriptor)
            sys.stdout, sys.stderr = before

    def close(self) -> None:
        self._text.close()
        for descriptor in (self._null, *self._kept.values()):
            os.close(descriptor)


def flush() -> None:
    """What is waiting in the real streams goes where it was meant to go, and nowhere else."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


# --- the last resort


class _Watchdog(threading.Thread):
    """Ends the process when a call cannot be interrupted.

    If even this thread cannot run, because the call holds the interpreter's lock, faulthandler
    does it, from C.
    """

    def __init__(self, guard: Guard, stderr: int) -> None:
        super().__init__(name="bptt watchdog", daemon=True)
        self.since: float | None = None
        """When the call began that is running now."""
        self._guard = guard
        self._stderr = stderr
        self._done = threading.Event()

    def run(self) -> None:
        patience = self._guard.patience
        while True:
            faulthandler.dump_traceback_later(2 * patience, exit=True, file=self._stderr)
            if self._done.wait(patience / 4):
                faulthandler.cancel_dump_traceback_later()
                return
            if self.since is not None and time.monotonic() - self.since > patience:
                self._give_up()

    def stop(self) -> None:
        self._done.set()
        if self.is_alive():
            self.join()

    def _give_up(self) -> None:
        message = (
            f"bptt: {self._guard.phase} did not end within {self._guard.limit:g} s and cannot be "
            "interrupted; in a process of its own (--isolate, isolate=True) that becomes a row "
            "of the report\n"
        )
        os.write(self._stderr, message.encode())
        faulthandler.dump_traceback(file=self._stderr)
        os._exit(1)
