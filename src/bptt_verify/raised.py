"""An exception of the user's own code, in a line."""

from __future__ import annotations

import site
import sysconfig
import traceback
from pathlib import Path

SHOWN = 300
"""Characters of a message that are shown."""

_OURS = Path(__file__).parent
_LIBRARIES = {
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")),
    *map(Path, (*site.getsitepackages(), site.getusersitepackages())),
}


def in_words(error: BaseException) -> str:
    """Its type, its message and where in the user's files it was raised; never raises itself."""
    try:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    except BaseException as raised:
        text = f"(its text cannot be had: {type(raised).__name__})"
    shown = "".join(c if c.isprintable() else " " for c in text[:SHOWN])
    shown += "…" if len(text) > SHOWN else ""
    return f"{type(error).__name__}{': ' if shown else ''}{shown}{_place(error)}"


def _place(error: BaseException) -> str:
    """The innermost line that is of no library, or else of one; empty where all lines are ours."""
    frames = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    theirs = [(path, line) for path, line in frames if not path.is_relative_to(_OURS)]
    own = [(p, n) for p, n in theirs if not any(p.is_relative_to(lib) for lib in _LIBRARIES)]
    if not theirs:
        return ""
    path, line = (own or theirs)[-1]
    return f" ({path.name}:{line})"
