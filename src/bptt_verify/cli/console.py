"""What the commands share: where they print, how they fail, how they write a file."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from manual_bptt._files import replacing


class UsageError(Exception):
    """Something the user gave cannot be used: one line, exit 2."""


class OutputError(Exception):
    """What was to be printed cannot be: the reader has gone, or the disk is full."""


class _Console(Console):
    """One that says so when its reader has gone away."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self._heard():
            super().print(*objects, **options)

    def write(self, text: str) -> None:
        """Print the text as it is, with all its control characters."""
        with self._heard():
            self.file.write(f"{text}\n")
            self.file.flush()

    def on_broken_pipe(self) -> None:
        raise  # what rich does here is to exit with 1, which would be a verdict

    @contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.quiet = True
            # what is left in the stream's own buffer would fail once more at the end
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
            if self is not errors:
                raise OutputError(f"cannot print: {error.strerror}") from error


# of itself rich leaves out colours only: no bold, no dim, no italics either
_STYLED: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"

console = _Console(color_system=_STYLED)
errors = _Console(color_system=_STYLED, stderr=True)
"""Who does not hear the errors is told by the exit code."""


def speak_plainly() -> None:
    """Letters that the terminal cannot show, δ in ASCII, come out as question marks.

    Unless the user has said what is to be done with them.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """Not the nearest whole number, which cyclopts would take for 1.5."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, got {text!r}") from None


Whole = Annotated[int, Parameter(converter=_whole)]


class _Rate(ProgressColumn):
    """How many are done a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        text = f"{1 / speed:.0f} s each" if speed < 0.1 else f"{speed:,.{int(speed < 10)}f}/s"
        return Text(text, style="progress.data.speed")


def progress(rate: ProgressColumn | None = None) -> Progress:
    """A bar with rate and remaining time; quiet when not on a terminal.

    The rate is in what the bar counts, unless the command has a better one.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        rate or _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def check_writable(path: Path | None) -> None:
    """Raise `UsageError` where no such file can be written: before a long run, not after it.

    What is there and is no regular file, a device or a pipe, would be replaced: it is refused. So
    is a Python file, which may be the one that was to be verified.
    """
    if path is None:
        return
    if not path.name:
        raise UsageError(f"cannot write {path}: expected the name of a file")
    if path.suffix == ".py":
        raise UsageError(f"cannot write {path}: expected a name that does not end in .py")
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "there, and no file"
            raise UsageError(f"cannot write {path}: it is {what}")
        with suppress(_Tried), replacing(path) as temporary:
            temporary.touch()
            raise _Tried
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def check_least(option: str, value: int, least: int) -> None:
    """Raises `UsageError` for an option's number below the least that it may be."""
    if value < least:
        raise UsageError(f"{option}: expected at least {least}, got {value}")


def check_outputs(*written: Path | None, read: Path | None = None) -> None:
    """`check_writable` for several files, each of its own, and none the one that is read.

    Raises `UsageError`.
    """
    taken = {} if read is None else {read.resolve(): "which is read"}
    for path in filter(None, written):
        if (place := path.resolve()) in taken:
            raise UsageError(f"cannot write {path}: expected a file of its own, {taken[place]}")
        taken[place] = "not one for two things"
        check_writable(path)


class _Tried(Exception):  # noqa: N818
    """No error: what was tried works, and is not to be done yet."""


def check_folder(path: Path | None) -> None:
    """Raise `UsageError` where there is no such folder and none can be made."""
    if path is None:
        return
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"cannot write in {path}: {there} is no folder, or not yours to write")
    except OSError as error:
        raise UsageError(f"cannot write in {path}: {error.strerror}") from None


def write_page(path: Path, data: Mapping[str, Any]) -> None:
    """Write the data as a page: whole or not at all.

    Raises `UsageError` when it cannot be written there, or when these are no data of ours.
    """
    from bptt_verify import page  # jinja2 is for who asks for a page

    try:
        page.write(path, data)
    except (page.PageError, ImportError) as error:  # or what draws it is not installed
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def write_json(path: Path, data: object) -> None:
    """Write the data under a temporary name, then rename: whole or not at all.

    Raises `UsageError` when it cannot be written there.
    """
    try:
        with replacing(path) as temporary:
            text = json.dumps(data, indent=2, ensure_ascii=False)
            temporary.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
