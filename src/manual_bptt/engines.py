"""Which machinery runs the equations of a layer: the readable NumPy code, or a faster one.

`engine` is "numpy"; "numba", the same compiled (the extra `fast`); or "jax", the same as XLA runs
it. None is the one that is preferred, which is "numpy" until `prefer` says otherwise. The gradients
are those of one derivation either way; they differ by rounding.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

HOMES = {"numba": "manual_bptt.compiled", "jax": "manual_bptt.by_jax"}
"""Where the layers of an engine are."""

ENGINES = ("numpy", *HOMES)

CELLS = ("rnn", "lstm", "gru", "gru_before")
"""The cells whose `forward` can be told an engine."""

MADE_OF_LAYERS = ("model", "network")
"""What runs on an engine that has it not whole as well: layer by layer."""

LAYERS = {"numba": (*CELLS, *MADE_OF_LAYERS), "jax": CELLS}
"""What each engine has."""

_preferred: str | None = "numpy"


def prefer(engine: str | None) -> None:
    """Take this engine wherever none is named; None for the fastest that has what is asked for.

    Raises `ValueError` for an engine that there is not or that is not installed.
    """
    global _preferred
    _preferred = _known(engine)


def compiled(engine: str | None, layer: str, lacks: str = "") -> ModuleType | None:
    """The module of the layer on the engine that is to be used; None for the readable one.

    Args:
        engine: "numpy", "numba", "jax", or None for the one that is preferred.
        layer: the name of the module.
        lacks: what is asked for that only the readable module has; "" for nothing.

    Raises `ValueError` when an engine is named that there is not, that is not installed or that
    lacks something.
    """
    named = _known(engine)
    chosen = named or _preferred or ("numba" if installed("numba") else "numpy")
    has = layer in LAYERS.get(chosen, ())
    if chosen == "numpy" or (layer in MADE_OF_LAYERS and not has):
        return None
    if has and not lacks:
        return module(chosen, layer)
    if named:
        lacks = lacks or f"the cell {layer}"
        raise ValueError(f"engine: expected 'numpy' or None for {lacks}, got {engine!r}")
    return None


def made(layer: str, cache: Any, kind: type[Any]) -> ModuleType | None:
    """The module of the engine that made the cache, None if the readable one did, or nobody."""
    engine = getattr(cache, "engine", "numpy")
    if engine not in HOMES or not isinstance(cache, kind):
        return None
    return module(engine, layer)


@cache
def module(engine: str, layer: str) -> ModuleType:
    """That of the layer on an engine other than "numpy"."""
    return import_module(f"{HOMES[engine]}.{layer}")


def _known(engine: str | None) -> str | None:
    if engine is not None and engine not in ENGINES:
        names = ", ".join(ENGINES)
        raise ValueError(f"engine: expected one of {names} or None, got {engine!r}")
    if engine in HOMES and not installed(engine):
        how = "'manual-bptt[fast]'" if engine == "numba" else engine
        raise ValueError(f"engine: {engine!r} is not installed here; python -m pip install {how}")
    return engine


@cache
def installed(engine: str) -> bool:
    """Whether what the engine needs is there."""
    return find_spec(engine) is not None
