"""What the processor offers to compiled products: how wide its vectors are, and how many it has."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def vectors() -> tuple[int, int]:
    """Bytes in a vector register, and how many registers there are."""
    has = llvm.get_host_cpu_features()
    if has.get("avx512f"):
        return 64, 32
    if has.get("avx2") and has.get("fma"):
        return 32, 16
    return 16, 32 if has.get("neon") else 16


BYTES, REGISTERS = vectors()

TALLEST = 8
"""The most rows in a tile."""


def widths(rows: int) -> tuple[int, ...]:
    """How many vectors a tile of so many rows may have, the widest first.

    A tile keeps rows × vectors sums in registers, and beside them a row of the right factor and one
    number of the left. Two products a cycle with a latency of four ask for eight sums or more, so
    more than eight vectors bring nothing. Every width is a piece of code to be compiled: there are
    just enough for any number of vectors to be made of few of them, and a lower tile has all those
    of a taller one.
    """
    most = max(1, min(8, (REGISTERS - 1) // (rows + 1)))
    return tuple(v for v in (8, 4, 3, 2, 1) if v <= most)


WIDTHS = tuple(widths(rows) for rows in range(1, TALLEST + 1))


def lanes(itemsize: int) -> int:
    """How many numbers of that size are in a vector."""
    return BYTES // itemsize


PLAIN: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
"""How everything here is compiled: once for each machine, free to run beside other threads, and
without a check of every division, which would keep loops from running on vectors."""

FUSED: dict[str, Any] = {**PLAIN, "fastmath": {"contract"}}
"""The same, with a product and a sum rounded once where the processor can."""


@intrinsic
def on_whole_vectors(typing: Any) -> Any:
    """The loops of the function that calls this use vectors as wide as the processor has.

    Left to itself the compiler takes half of the widest, since early processors that had them
    slowed down; for functions such as tanh the whole is 1.4 times as fast.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        # llvmlite's own `add` knows only attributes without a value
        set.add(builder.function.attributes, f'"prefer-vector-width"="{8 * BYTES}"')
        return context.get_dummy_value()

    return types.void(), build
