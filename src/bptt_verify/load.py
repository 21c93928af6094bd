"""Pairs from a user's file."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

from bptt_verify import raised
from bptt_verify.pair import Pair


class LoadError(ValueError):
    """The file cannot be read, does not run, or defines no such pair."""


def load(target: str) -> list[Pair]:
    """Every `Pair` that a Python file defines ("file.py"), or the one named ("file.py:name").

    The file is imported, with its own folder on the path. Raises `LoadError`.
    """
    name, _, wanted = target.partition(".py:")
    name = f"{name}.py" if wanted else target
    path = Path(name)
    if not path.is_file():
        raise LoadError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"_verified_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look themselves up there
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # kept: its functions may import when they run
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise LoadError(f"{path}: {raised.in_words(error)}") from error
    found = {k: v for k, v in vars(module).items() if isinstance(v, Pair)}
    if not found:
        raise LoadError(f"{path}: defines no Pair")
    if wanted and wanted not in found:
        raise LoadError(f"{path}: no Pair {wanted!r}; it defines {', '.join(found)}")
    chosen = {wanted: found[wanted]} if wanted else found
    return [replace(pair, origin=f"{path}:{k}") for k, pair in chosen.items()]
