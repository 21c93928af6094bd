"""A failing case as a small test file, to be kept with the tests of the code that failed."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path

from bptt_verify.pairs import BY_NAME, REGISTRY
from bptt_verify.render import in_words
from bptt_verify.report import Report
from manual_bptt._files import replacing

TEMPLATE = '''\
"""A case in which a hand-written gradient was wrong, written by `bptt verify --regression`."""

{found}

{imports}


def test_{name}():
    {load}
    assert_verified(
        pair,
        dtypes=[{dtype!r}],
        case={case!r},
    )
'''


def write(path: str | Path, report: Report, target: str) -> Path:
    """Write a pytest file that fails as long as the report's first failure is there.

    Args:
        path: a folder, where the file is called after pair, row and dtype, with a number behind it
            if another file has that name; or the file itself, ending in ".py".
        report: a report with a `first_failure`.
        target: where the test finds the pair: "file.py:name", or the name of a built-in pair.

    Returns the path of the file. A file that says the same already stays as it is.
    Raises `ValueError` for a report without a failure and for an unknown target, `FileExistsError`
    for a file of other contents at `path`, `OSError` when there is no writing there.
    """
    if report.first_failure is None:
        raise ValueError(f"report: expected one with a first failure, got a {report.verdict}")
    wanted = Path(path)
    name = re.sub(r"\W+", "_", f"{report.pair}_{report.first_failure.row}_{report.dtype}")
    if wanted.is_dir():
        text = _text(name, report, target, wanted)
        stem = f"test_regression_{name}"
        names = (f"{stem}_{n}.py" if n > 1 else f"{stem}.py" for n in count(1))
        free = next(p for p in map(wanted.joinpath, names) if _is_free(p, text))
    elif wanted.suffix == ".py":
        text = _text(name, report, target, wanted.parent)
        free = wanted
        if not _is_free(free, text):
            raise FileExistsError(f"path: {free} exists and says something else")
    else:
        raise ValueError(f"path: expected a folder or a name ending in .py, got {str(path)!r}")
    with replacing(free) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return free


def _is_free(path: Path, text: str) -> bool:
    return not path.exists() or path.read_bytes() == text.encode()


def _text(name: str, report: Report, target: str, folder: Path) -> str:
    first = report.first_failure
    assert first is not None
    file, _, pair = target.partition(".py:")
    if pair:
        file = Path(os.path.relpath(f"{file}.py", folder)).as_posix()
        imports = (
            "from pathlib import Path\n\n"
            "from bptt_verify import assert_verified\n"
            "from bptt_verify.load import load\n\n"
            f"FILE = Path(__file__).parent / {file!r}"
        )
        load = f'(pair,) = load(f"{{FILE}}:{pair}")'
    elif target in BY_NAME:
        where = "REGISTRY" if target in REGISTRY else "BY_NAME"
        imports = f"from bptt_verify import assert_verified\nfrom bptt_verify.pairs import {where}"
        load = f"pair = {where}[{target!r}]"
    else:
        raise ValueError(
            f"target: expected file.py:name or one of {', '.join(BY_NAME)}, got {target!r}"
        )
    versions = "  ".join(f"{package} {v}" for package, v in report.versions.items())
    lines = [*in_words(report).plain.strip().splitlines(), f"  with           {versions}"]
    found = "\n".join(f"# {_printable(line)}" for line in lines)
    return TEMPLATE.format(
        found=found, imports=imports, name=name, load=load, dtype=report.dtype, case=first.case
    )


def _printable(line: str) -> str:
    """The line without what cannot stand in a comment: the message is the subject's own."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
