"""The product of two small matrices, as a recurrence needs it: thousands of times, rows few.

    C = A B  or  C = C + A B,    A (m, k), B (k, n), C (m, n)

A library for large matrices spends half its time around such a product. Here C is cut in tiles that
fit the processor's registers, and a tile runs through k once: for every step it multiplies one
number of each of its rows of A with a stretch of a row of B. A may have any strides, so that Aᵀ is
as good as A; the rows of B and C are contiguous, and n is a whole number of vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from manual_bptt.compiled.machine import BYTES, PLAIN, TALLEST, WIDTHS, lanes

MOST = tuple(widths[0] for widths in WIDTHS)


@intrinsic
def _tile(
    typing: Any,
    rows: Any, wide: Any, add: Any,
    a: Any, a_at: Any, a_row: Any, a_step: Any,
    b: Any, b_at: Any, b_step: Any,
    c: Any, c_at: Any, c_row: Any,
    k: Any,
) -> Any:  # fmt: skip
    """One tile: rows × wide vectors of C. There is a piece of code for each size that occurs."""
    n = types.intp
    signature = types.void(n, n, n, a, n, n, n, b, n, n, c, n, n, n)

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows, wide, add, _, a_at, a_row, a_step, _, b_at, b_step, _, c_at, c_row, k = args

        def base(n: int, at: Any) -> Any:
            array = context.make_array(signature.args[n])(context, builder, args[n])
            return builder.gep(array.data, [at])

        left = _Left(base(3, a_at), a_row, a_step)
        right = _Right(base(7, b_at), b_step)
        result = _Result(base(10, c_at), c_row)
        size = signature.args[3].dtype.bitwidth // 8
        builder.function.attributes.add("noinline")  # `product` is large, and called often
        end = builder.append_basic_block("end")
        known = builder.switch(builder.add(builder.mul(rows, rows.type(16)), wide), end)
        for r in range(1, TALLEST + 1):
            for v in WIDTHS[r - 1]:
                block = builder.append_basic_block(f"tile_{r}_{v}")
                known.add_case(rows.type(16 * r + v), block)
                builder.position_at_end(block)
                _build_tile(builder, r, v, size, left, right, result, k, add)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, build


class _Left(NamedTuple):
    base: Any
    row: Any
    step: Any


class _Right(NamedTuple):
    base: Any
    step: Any


class _Result(NamedTuple):
    base: Any
    row: Any


def _build_tile(
    builder: ir.IRBuilder,
    rows: int,
    wide: int,
    size: int,
    A: _Left,
    B: _Right,
    C: _Result,
    k: Any,
    add: Any,
) -> None:
    number = ir.FloatType() if size == 4 else ir.DoubleType()
    many = lanes(size)
    vector = ir.VectorType(number, many)
    intp = k.type
    fused = ("contract",)  # one rounding where the processor can

    def load(pointer: Any, v: int) -> Any:
        at = builder.bitcast(builder.gep(pointer, [intp(v * many)]), vector.as_pointer())
        return builder.load(at, align=size, typ=vector)

    def spread(pointer: Any) -> Any:
        one = builder.load(pointer, align=size, typ=number)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), many), [0] * many)
        return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    row_a = [builder.gep(A.base, [builder.mul(A.row, intp(r))]) for r in range(rows)]
    row_c = [builder.gep(C.base, [builder.mul(C.row, intp(r))]) for r in range(rows)]
    before = builder.block
    loop = builder.append_basic_block("k")
    after = builder.append_basic_block("store")
    builder.branch(loop)

    builder.position_at_end(loop)
    step = builder.phi(intp)
    sums = [[builder.phi(vector) for _ in range(wide)] for _ in range(rows)]
    at = builder.mul(step, A.step)
    right = builder.gep(B.base, [builder.mul(step, B.step)])
    stretch = [load(right, v) for v in range(wide)]
    zero = ir.Constant(vector, [0.0] * many)
    step.add_incoming(intp(0), before)
    for r in range(rows):
        left = spread(builder.gep(row_a[r], [at]))
        for v in range(wide):
            s = sums[r][v]
            s.add_incoming(zero, before)
            term = builder.fmul(left, stretch[v], flags=fused)
            s.add_incoming(builder.fadd(s, term, flags=fused), loop)
    following = builder.add(step, intp(1))
    step.add_incoming(following, loop)
    final = [[s.incomings[1][0] for s in row] for row in sums]
    builder.cbranch(builder.icmp_signed("<", following, k), loop, after)

    builder.position_at_end(after)

    def store(r: int, v: int, value: Any) -> None:
        at = builder.gep(row_c[r], [intp(v * many)])
        builder.store(value, builder.bitcast(at, vector.as_pointer()), align=size)

    with builder.if_else(cgutils.is_not_null(builder, add)) as (onto, fresh):
        with onto:
            for r in range(rows):
                for v in range(wide):
                    store(r, v, builder.fadd(load(row_c[r], v), final[r][v]))
        with fresh:
            for r in range(rows):
                for v in range(wide):
                    store(r, v, final[r][v])


@njit(**PLAIN)
def columns(array, n):
    """n numbers as those of the array, up to a whole vector."""
    many = BYTES // array.itemsize
    return -(-n // many) * many


@njit(**PLAIN)
def tallest(m: int) -> int:
    """The most rows of a tile, where m rows are cut in tiles of about the same number."""
    return -(-m // -(-m // TALLEST))


@njit(**PLAIN)
def _wide(tall: int, left: int) -> int:
    """How many of the vectors left the next tiles take, none of which has more rows than `tall`."""
    for wide in WIDTHS[0]:
        if wide <= MOST[tall - 1] and wide <= left:
            return wide
    return 1


@njit(**PLAIN)
def pack(b, parts, b_row, b_column, k, n, tall, out):
    """B (k, n) as tiles of at most `tall` rows read it: each stretch of columns from end to end.

    So for each of as many equal `parts` of b, one after the other. Element (l, j) is
    b[l * b_row + j * b_column] in its part. It goes to `out`, which is of zeros: columns up to a
    whole vector stay so.
    """
    many = BYTES // b.itemsize
    whole = columns(b, n)
    at = 0
    for part in range(parts):
        first = part * (len(b) // parts)
        j = 0
        while j < whole:
            wide = _wide(tall, (whole - j) // many) * many
            for step in range(k):
                here = first + step * b_row + j * b_column
                line = out[at : at + min(wide, n - j)]
                if b_column == 1:
                    stretch = b[here : here + len(line)]
                    for v in range(len(line)):
                        line[v] = stretch[v]
                else:
                    for v in range(len(line)):
                        line[v] = b[here + v * b_column]
                at += wide
            j += wide


@njit(**PLAIN)
def _product(a, a_at, a_row, a_step, b, b_at, b_step, c, c_at, c_row, m, n, k, tall, add):
    many = BYTES // a.itemsize
    tiles = -(-m // TALLEST)
    short, longer = m // tiles, m % tiles
    j = 0
    while j < n:
        wide = _wide(tall, (n - j) // many)
        right, step = (b_at + j, b_step) if b_step else (b_at + j * k, wide * many)
        i = 0
        for tile in range(tiles):
            rows = short + (tile < longer)
            _tile(
                rows, wide, add,
                a, a_at + i * a_row, a_row, a_step,
                b, right, step,
                c, c_at + i * c_row + j, c_row, k,
            )  # fmt: skip
            i += rows
        j += wide * many


@njit(inline="always")
def product(a, a_at, a_row, a_step, b, b_at, b_step, c, c_at, c_row, m, n, k, tall, add):
    """C = A B, or C = C + A B where `add`; each matrix is a flat array, a place in it and strides.

    Args:
        a, a_at, a_row, a_step: A: its element (i, l) is a[a_at + i a_row + l a_step].
        b, b_at, b_step: B: its element (l, j) is b[b_at + l b_step + j]; b_step 0 for one that is
            made by `pack` for tiles of at most `tall` rows.
        c, c_at, c_row: C: its element (i, j) is c[c_at + i c_row + j].
        m, n, k: the sizes, all above 0; n a whole number of vectors.
        tall: at least `tallest(m)`.
        add: whether to add to C.
    """
    # a number that stands in the call would otherwise make the compiler build it all anew
    _product(
        a, np.intp(a_at), np.intp(a_row), np.intp(a_step),
        b, np.intp(b_at), np.intp(b_step),
        c, np.intp(c_at), np.intp(c_row),
        np.intp(m), np.intp(n), np.intp(k), np.intp(tall), np.intp(add),
    )  # fmt: skip
