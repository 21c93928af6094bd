"""`bptt report`: the page of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bptt_verify.cli.console import (
    UsageError,
    check_outputs,
    console,
    write_json,
    write_page,
)


def report(
    run: Path,
    /,
    *,
    output: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Make the page of an earlier run, from what it wrote with --json.

    The page is one file of HTML, opens offline and asks nobody. It can be made of what
    `bptt verify`, `vectors check`, `mutants`, `bench` and `gradients` write.

    Example: `bptt report run.json`

    Parameters
    ----------
    run
        What a command wrote with --json.
    output
        Where the page goes; without it beside the run, with .html for .json.
    json_file
        Write there, as JSON, where the page is.
    """
    page = run.with_suffix(".html") if output is None else output
    check_outputs(page, json_file, read=run)
    try:
        data = json.loads(run.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {run}: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UsageError(f"cannot read {run}: expected JSON ({error})") from error
    write_page(page, data)
    if json_file is not None:
        write_json(json_file, {"command": "report", "run": str(run), "page": str(page)})
    console.print(f"{page}", soft_wrap=True, markup=False, highlight=False)
    return 0
