"""What the command `bptt` starts with: Ctrl-C is heard while everything else is being loaded.

It stands outside of `bptt_verify`, whose import brings JAX and takes a second, and imports next to
nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

INTERRUPTED = 130
SAID = "bptt: interrupted"


def main() -> NoReturn:
    """Load the command line and run it: `bptt_verify.cli.main`.

    After Ctrl-C the process ends at once: XLA may still be at work in threads of its own, and crash
    when the interpreter is taken down around them.
    """
    with loading():
        from bptt_verify.cli import main
    try:
        main()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(INTERRUPTED)
        raise


@contextmanager
def loading() -> Iterator[None]:
    """Ctrl-C ends the process at once in here, where there is nothing yet to be left whole.

    An exception would not do: what is written in C may lose it as it is being loaded, or raise
    another one for it. Who hears Ctrl-C otherwise than Python does by itself is left alone.
    """
    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not plain or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: Any) -> NoReturn:
    os.write(2, f"{SAID}\n".encode())
    os._exit(INTERRUPTED)
