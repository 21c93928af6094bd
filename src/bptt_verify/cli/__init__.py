"""The command `bptt`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from cyclopts import App, CycloptsError

from bptt_command import INTERRUPTED, SAID, loading
from bptt_verify.cli.console import OutputError, UsageError, errors, speak_plainly
from bptt_verify.cli.console import console as output

DEFECT = 70
UNHEARD = 74
USAGE = 2

app = App(
    name="bptt",
    help="Backpropagation through time by hand, held against autodiff that knows no formula.\n\n"
    "Example: `bptt verify rnn`",
    version=lambda: version("manual-bptt"),
    console=output,
    error_console=errors,
    suppress_keyboard_interrupt=False,  # it is told below
)
app.command("bptt_verify.cli.new:new", name="new")
app.command("bptt_verify.cli.verify:verify", name="verify")
app.command("bptt_verify.cli.mutants:mutants", name="mutants")
app.command("bptt_verify.cli.bench:bench", name="bench")
app.command("bptt_verify.cli.train:train", name="train")
app.command("bptt_verify.cli.gradients:gradients", name="gradients")
app.command("bptt_verify.cli.report:report", name="report")

_vectors = App(
    name="vectors",
    help="Golden vectors, for a port of a cell to another language: written, and its work judged.",
)
_vectors.command("bptt_verify.cli.vectors:write", name="write")
_vectors.command("bptt_verify.cli.vectors:check", name="check")
app.command(_vectors)
app.register_install_completion_command(
    help="Let the tab key complete commands and options in your shell.\n\n"
    "Example: `bptt --install-completion --shell bash`"
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 pass, 1 fail, 2 usage, 3 inconclusive.

    Beyond these: 70 a defect of ours, 74 nobody to print to, 130 interrupted.
    """
    threads = set(threading.enumerate())
    speak_plainly()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with loading():
            _load(words)
        status = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, UsageError) as error:
        errors.print(f"bptt: {error}", style="red", markup=False, soft_wrap=True)
        status = USAGE
    except OutputError as error:
        errors.print(f"bptt: {error}", style="red", markup=False, soft_wrap=True)
        status = UNHEARD
    except Exception:  # a defect of ours: not to be taken for a verdict
        errors.print_exception()
        status = DEFECT
    except KeyboardInterrupt:
        errors.print(SAID, style="red")
        status = INTERRUPTED
    if any(not thread.daemon for thread in set(threading.enumerate()) - threads):
        # a subject left them running, and they may never end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _load(words: Sequence[str]) -> None:
    """Load the command that is asked for, or those that are listed: a list says what each does."""
    asked, rest = (_vectors, words[1:]) if words[:1] == ["vectors"] else (app, words)
    listed = all(word in app.help_flags for word in rest)
    for name in asked if listed else [name for name in asked if name in rest[:1]]:
        _ = asked[name]
