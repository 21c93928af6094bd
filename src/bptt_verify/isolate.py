"""Running a subject in a process of its own: a crash, or a loop in C, ends that process alone.

Each case forks. So any pair will do, also one made of closures; nothing that the subject does
outlives its case; and there is no worker to keep in step. What JAX warns of at a fork does not
apply: the child computes with NumPy alone and leaves by `os._exit`.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bptt_verify import subject
from bptt_verify.compare import Wrong
from bptt_verify.draw import Case, Drawn
from bptt_verify.guard import Guard, flush
from bptt_verify.pair import Pair
from bptt_verify.subject import ALIVE, TIME, Ran


def run(
    pair: Pair,
    case: Case,
    drawn: Drawn,
    dtype: np.dtype[Any],
    guard: Guard,
    *,
    again: bool = True,
) -> Ran:
    """As `subject.run`, in a forked process, which is killed when it does not answer in time."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    flush()  # or the child would have it in its buffers too
    with reader:
        # an interrupt in the middle of a fork would be lost in the hooks that run there
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with writer, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX's, and Python's, of forks beside threads
            child = os.fork()
            if child == 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
                _answer(writer, pair, case, drawn, dtype, guard, again=again)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)  # now it may come
            late = not reader.poll(guard.patience)
            answer = b"" if late else reader.recv_bytes()
        except EOFError:
            late, answer = False, b""
        finally:
            code = _end(child)
    if answer:
        return _unpack(answer)
    if late:
        problem = f"did not end within {guard.limit:g} s, nor when interrupted: killed"
        return Ran({}, {TIME: problem})
    crash = f"crashed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Ran({}, {ALIVE: f"the process ended: {crash}"})


def _answer(writer: Connection, *arguments: Any, again: bool) -> None:
    """What the child does. It never returns."""
    try:
        os.setsid()  # what it starts is killed with it, and Ctrl-C is for the parent
        faulthandler.disable()  # a crash is a row, not a traceback for each case
        gc.freeze()  # nothing of JAX's is to be freed here, where its threads are missing
        writer.send_bytes(_pack(subject.run(*arguments, again=again)))
    finally:
        os._exit(0)


def _end(child: int) -> int:
    """Its exit status, once it and what it started are gone."""
    with suppress(ProcessLookupError):  # nothing is left of the group
        os.killpg(child, signal.SIGKILL)
    with suppress(ProcessLookupError):  # it did not get as far as to have one
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _pack(ran: Ran) -> bytes:
    """A line of JSON, then the arrays, one after the other."""
    about = {
        name: a.problem if isinstance(a, Wrong) else [a.dtype.name, a.shape]
        for name, a in ran.arrays.items()
    }
    arrays = [a.tobytes() for a in ran.arrays.values() if not isinstance(a, Wrong)]
    head = json.dumps([about, ran.problems, ran.again])
    return b"".join([head.encode(), b"\n", *arrays])


def _unpack(data: bytes) -> Ran:
    head, _, rest = data.partition(b"\n")
    about, problems, again = json.loads(head)
    arrays: dict[str, Any] = {}
    for name, kind in about.items():
        if isinstance(kind, str):
            arrays[name] = Wrong(kind)
            continue
        dtype, shape = np.dtype(kind[0]), tuple(kind[1])
        size = dtype.itemsize * int(np.prod(shape))
        arrays[name] = np.frombuffer(rest[:size], dtype).reshape(shape)
        rest = rest[size:]
    return Ran(arrays, problems, again)
