"""What the commands share: where they print, how they fail, how they write a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from manual_bptt._files import replacing

console = Console()
errors = Console(stderr=True)


class UsageError(Exception):
    """Something the user gave cannot be used: one line, exit 2."""


def progress(*columns: ProgressColumn) -> Progress:
    """A bar with rate columns of the command's own; quiet when not on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def check_writable(path: Path | None) -> None:
    """Raise `UsageError` where no file can be written there: before a long run, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: no permission to write in {path.parent}")


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
