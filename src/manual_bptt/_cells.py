"""What a cell is to whatever is made of cells: a module with Params, Grads, forward and backward.

    forward(params, x, *start, **options) -> states, cache
    backward(params, cache, dstates, dlast) -> Grads

where states is one array (T, B, N), or the cell's `States` of several; the output is the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from manual_bptt import _door
from manual_bptt._door import Array


def a_cell(name: str, value: Any) -> ModuleType:
    """The module of a cell; `TypeError` for anything else."""
    needed = ("Params", "Grads", "forward", "backward")
    if not all(hasattr(value, k) for k in needed):
        got = getattr(value, "__name__", type(value).__name__)
        raise TypeError(
            f"{name}: expected the module of a cell, such as manual_bptt.lstm, got {got}"
        )
    cell: ModuleType = value
    return cell


def of_the_cell(cell: ModuleType, states: Sequence[Array]) -> None:
    """Raise `ValueError` when what a cache holds are the states of a cell with more or fewer."""
    if len(states) != len(starts(cell)):
        wanted = f"that of {cell.__name__}, of {len(starts(cell))} states"
        raise ValueError(f"cache: expected {wanted}, got one of {len(states)}")


def tupled(states: Any) -> tuple[Array, ...]:
    """The states of a cell one by one, also of one that has a single one."""
    return tuple(states) if isinstance(states, tuple) else (states,)


def grouped(cell: ModuleType, arrays: Sequence[Array | None]) -> Any:
    """As the cell takes them: the one array, or its `States` of several."""
    return arrays[0] if len(arrays) == 1 else cell.States(*arrays)


def starts(cell: ModuleType) -> list[str]:
    """The names of the states before the first step, "h0"."""
    return [name for name in cell.Grads._fields if name.endswith("0")]


def each_state(cell: ModuleType, name: str, arrays: Sequence[Any] | None) -> list[Any]:
    """One array or None for each state of the cell; None for all when None or empty.

    Raises `TypeError` or `ValueError` for anything else.
    """
    names = [start.removesuffix("0") for start in starts(cell)]
    wanted = f"expected {len(names)} of them ({', '.join(names)})"
    if isinstance(arrays, np.ndarray) or not isinstance(arrays, Sequence | None):
        raise TypeError(f"{name}: {wanted}, got {type(arrays).__name__}")
    if not arrays:
        return [None] * len(names)
    if len(arrays) != len(names):
        raise ValueError(f"{name}: {wanted}, got {len(arrays)}")
    return list(arrays)


def cotangents(
    cell: ModuleType,
    dstates: Sequence[Array | None] | None,
    dlast: Sequence[Array | None] | None,
    states: Sequence[Array],
) -> tuple[list[Array], list[Array]]:
    """Those of all states, (T, B, N) as these are, and of the last ones, (B, N); None is zero.

    Raises `TypeError` or `ValueError` for a cache of another cell, and for other shapes or numbers.
    """
    of_the_cell(cell, states)
    each, last = each_state(cell, "dstates", dstates), each_state(cell, "dlast", dlast)
    for n, s in enumerate(states):
        shapes = _door.Shapes()
        each[n] = shapes.cotangents(f"dstates[{n}]", each[n], "T B N", s)
        last[n] = shapes.cotangents(f"dlast[{n}]", last[n], "B N", s[0])
    return each, last


def steps(x: object) -> tuple[Array, int, int]:
    """The input of a sequence, and how many steps and sequences it has; there are some."""
    x = _door.ndarray("x", x)
    if x.ndim < 2 or not x.size:
        raise ValueError(f"x: expected shape (T, B, D) without empty axes, got {x.shape}")
    return x, x.shape[0], x.shape[1]


def joined(cell: ModuleType, parts: Sequence[Any]) -> dict[str, Any]:
    """The gradients of a sequence from those of its pieces, in order: all but those of the start.

    Weights add up, from the last piece on; what each step has of its own is put one behind another.
    """
    whole: dict[str, Any] = {}
    for name in cell.Grads._fields:
        if name in starts(cell):
            continue
        each = [getattr(part, name) for part in parts]
        if each[0] is None:
            whole[name] = None
        elif name in cell.Params._fields:
            whole[name] = sum(reversed(each[:-1]), start=each[-1])
        else:
            whole[name] = np.concatenate(each)
    return whole
