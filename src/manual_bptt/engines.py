"""Which machinery runs the equations of a layer: the readable NumPy code, or the same compiled.

`engine` is "numpy" or "numba" (the extra `fast`); None is the one that is preferred, which is
"numpy" until `prefer` says otherwise. The gradients are those of one derivation either way; they
differ by rounding.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

ENGINES = ("numpy", "numba")

COMPILED = ("rnn", "lstm", "gru", "gru_before")
"""The cells that are compiled too."""

_preferred: str | None = "numpy"


def prefer(engine: str | None) -> None:
    """Take this engine wherever none is named; None for the fastest that has what is asked for.

    Raises `ValueError` for an engine that there is not or that is not installed.
    """
    global _preferred
    _preferred = _known(engine)


def compiled(engine: str | None, layer: str, lacks: str = "") -> ModuleType | None:
    """The compiled module of the layer if it is to be used, None for the readable one.

    Args:
        engine: "numpy", "numba", or None for the one that is preferred.
        layer: the name of the module.
        lacks: what is asked for that no compiled code exists for; "" for nothing.

    Raises `ValueError` when an engine is named that there is not, that is not installed or that
    lacks something.
    """
    named = _known(engine)
    chosen = named or _preferred or ("numba" if installed() else "numpy")
    if chosen == "numpy" or (lacks and named is None):
        return None
    if lacks:
        raise ValueError(f"engine: expected 'numpy' or None for {lacks}, got 'numba'")
    return import_module(f"manual_bptt.compiled.{layer}")


def made(layer: str, cache: Any, kind: type[Any]) -> ModuleType | None:
    """The compiled module if it made the cache, None if the readable one did, or nobody."""
    if getattr(cache, "engine", "numpy") == "numpy" or not isinstance(cache, kind):
        return None
    return import_module(f"manual_bptt.compiled.{layer}")


def _known(engine: str | None) -> str | None:
    if engine is not None and engine not in ENGINES:
        names = ", ".join(ENGINES)
        raise ValueError(f"engine: expected one of {names} or None, got {engine!r}")
    if engine == "numba" and not installed():
        raise ValueError(
            "engine: 'numba' is not installed here; python -m pip install 'manual-bptt[fast]'"
        )
    return engine


@cache
def installed() -> bool:
    """Whether numba is there."""
    return find_spec("numba") is not None
