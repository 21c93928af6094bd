"""`bptt new`: a file to start from."""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from cyclopts import Parameter

from bptt_verify.cli.console import UsageError, check_writable, console, write_json
from manual_bptt._files import replacing

FEWER = {"jax": " --cases 20"}
"""XLA compiles the subject for every shape; then 200 cases take minutes."""

TAKEN = {"numpy", "jax", "torch", "bptt_verify", "manual_bptt", *sys.stdlib_module_names}
"""Modules that a file of this name would stand in front of, for what lies beside it."""


def new(
    file: Path,
    /,
    *,
    start: Annotated[Literal["numpy", "torch", "jax"], Parameter(name="--from")] = "numpy",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Write a file to start from: a small recurrent cell, its backward, its twin and their Pair.

    It passes `bptt verify` as it is, and its comments say what to put where. What is there is never
    overwritten.

    Example: `bptt new my_cell.py`

    Example: `bptt new my_cell.py --from torch`

    Parameters
    ----------
    file
        A name of letters, digits, _ and - that ends in .py, in a folder that is there. The pair
        gets the same name.
    start
        numpy for two functions, torch for a torch.autograd.Function, jax for a jax.custom_vjp.
    json_file
        Write there, as JSON, the file's path and the command that verifies it.
    """
    check_writable(json_file)
    if not re.fullmatch(r"[\w-]+\.py", file.name):
        raise UsageError(
            f"expected a name of letters, digits, _ and - that ends in .py, got {str(file)!r}"
        )
    if file.stem in TAKEN:
        raise UsageError(f"expected another name than {file.name}: the module {file.stem} is meant")
    if not os.path.isdir(file.parent):
        raise UsageError(f"cannot write {file}: there is no folder {file.parent}")
    if os.path.lexists(file):
        raise UsageError(f"cannot write {file}: it is there already")
    template = files("bptt_verify") / "templates" / f"{start}.py.txt"
    name = file.stem.replace("-", "_")
    text = Template(template.read_text(encoding="utf-8")).substitute(name=name)
    try:
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None
    following = f"bptt verify {shlex.quote(str(file))}{FEWER.get(start, '')}"
    if json_file is not None:
        write_json(json_file, {"command": "new", "file": str(file), "next": following})
    _say(f"{file}: forward, backward and twin of a recurrent cell, to be made your own")
    if find_spec(start) is None:
        _say('it needs PyTorch: pip install "manual-bptt[peers]"')
    _say(f"next: {following}")
    return 0


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
