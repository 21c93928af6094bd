"""exp, σ and tanh of one number, in arithmetic that a loop can do on whole vectors.

    (1) x = n log 2 + r,  n whole,  |r| ≤ ½ log 2
    (2) p = e^r - 1 = r + r²/2! + r³/3! + …, up to the first term far below an ulp
    (3) e^x = 2ⁿ (1 + p)
    (4) σ(x) = 1 / (1 + e) for x ≥ 0, and e / (1 + e) for x < 0,  e = e^-|x|
    (5) |tanh x| = E / (E + 2),  E = e^{2|x|} - 1 = 2ⁿ p + (2ⁿ - 1)

Near 0 nothing cancels: there n = 0 and E = p, whose first term is r itself.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from manual_bptt.compiled.machine import FUSED

ULP = {
    "exp": {"float32": 0.77, "float64": 0.77},
    "sigmoid": {"float32": 1.48, "float64": 1.48},
    "tanh": {"float32": 1.5, "float64": 1.5},
}
"""No error is larger, in ulp of the right value: over every float32, 0.764, 1.475 and 1.49993 at
most, and over a dense grid of float64, 0.75, 1.42 and 1.43 of four million numbers each
(tests/manual_bptt/test_compiled_functions.py)."""

TERMS = {types.float32: 8, types.float64: 14}
DIGITS = {types.float32: 23, types.float64: 52}
BIAS = {types.float32: 127, types.float64: 1023}
WHOLE = {types.float32: types.int32, types.float64: types.int64}

LOG2_HIGH = 0.693145751953125
LOG2_LOW = 1.428606820309417232e-06
"""log 2 in two parts, the first of 15 binary digits: n times it is exact in float32 too."""


def _ready(x: Any) -> float:
    """1.5 · 2^digits: a number of moderate size added to it is rounded to a whole one."""
    return 1.5 * 2.0 ** DIGITS[x]


@intrinsic
def like(typing: Any, value: Any, x: Any) -> Any:
    """The constant in the type of x; a plain 2.0 would make everything float64."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[0], signature.args[0], signature.return_type)

    return x(value, x), build


@intrinsic
def _nearest(typing: Any, x: Any) -> Any:
    """The nearest whole number, and twice a power of two whose product is 2 to that number."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        number, whole = context.get_value_type(x), context.get_value_type(WHOLE[x])
        ready = number(_ready(x))
        moved = builder.fadd(args[0], ready)
        n = builder.fsub(moved, ready)
        digits = builder.sub(
            builder.bitcast(moved, whole), builder.bitcast(ready, whole)
        )  # n, as an integer
        half = builder.ashr(digits, whole(1))  # 2ⁿ alone may be beyond the normal numbers

        def power(n: Any) -> Any:
            return builder.bitcast(
                builder.shl(builder.add(n, whole(BIAS[x])), whole(DIGITS[x])), number
            )

        parts = [n, power(half), power(builder.sub(digits, half))]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(x, 3)(x), build


@intrinsic
def _range(typing: Any, x: Any) -> Any:
    """Where e^x has become 0, and infinity."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        low, high = {types.float32: (-104.0, 89.0), types.float64: (-745.5, 710.0)}[x]
        number = context.get_value_type(x)
        return context.make_tuple(builder, signature.return_type, [number(low), number(high)])

    return types.UniTuple(x, 2)(x), build


@intrinsic
def _series(typing: Any, r: Any) -> Any:
    """(2) from the last term on, without the first, r itself."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        (x,) = args
        fused = ("contract",)
        total = x.type(1 / math.factorial(TERMS[r]))
        for k in range(TERMS[r] - 1, 1, -1):
            term = builder.fmul(total, x, flags=fused)
            total = builder.fadd(term, x.type(1 / math.factorial(k)), flags=fused)
        return builder.fmul(total, builder.fmul(x, x))

    return r(r), build


@intrinsic
def _signed(typing: Any, size: Any, x: Any) -> Any:
    """The size with the sign of x."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = args[0].type
        copysign = builder.module.declare_intrinsic(
            "llvm.copysign", [kind], ir.FunctionType(kind, [kind, kind])
        )
        return builder.call(copysign, args)

    return size(size, x), build


@njit(**FUSED)
def _split(x):
    """r, what p is beside it, and two powers of two whose product is 2ⁿ."""
    # (1) x = n log 2 + r
    n, two, again = _nearest(x * like(1 / math.log(2), x))
    high, low = x - n * like(LOG2_HIGH, x), n * like(LOG2_LOW, x)
    r = high - low
    # (2) p = e^r - 1, and what r lost
    return r, _series(r) + ((high - r) - low), two, again


@njit(**FUSED)
def _quotient(numerator, e, whole):
    """numerator / (e + whole), rounded about once: what the sum and the quotient lose is put back.

    e is not above 1 or not below the whole, so that nothing is lost of `lost` itself.
    """
    both = whole + e
    lost = e - (both - whole) if e < whole else whole - (both - e)
    inverse = like(1.0, e) / both
    quotient = numerator * inverse
    remains = (numerator - quotient * both) - quotient * lost
    return quotient + remains * inverse


@njit(**FUSED)
def exp(x):
    """e^x; 0 and infinity beyond the range of the type."""
    low, high = _range(x)
    x = low if x < low else x
    x = high if x > high else x
    r, rest, two, again = _split(x)
    # (3) e^x = 2ⁿ (1 + p)
    one = like(1.0, x)
    near = one + r
    return (near + (rest + (r - (near - one)))) * two * again


@njit(**FUSED)
def sigmoid(x):
    """σ(x)"""
    one = like(1.0, x)
    e = exp(-abs(x))
    # (4) σ(x) = 1 / (1 + e) for x ≥ 0, and e / (1 + e) for x < 0
    return _quotient(one if x >= 0 else e, e, one)


@njit(**FUSED)
def tanh(x):
    """tanh x"""
    one, end = like(1.0, x), like(20.0, x)  # from 9.1 in float32 and 19.1 in float64 on it is 1
    size = abs(x)
    size = end if size > end else size
    r, rest, two, again = _split(size + size)
    power = two * again
    # (5) E = 2ⁿ p + (2ⁿ - 1),  |tanh x| = E / (E + 2)
    near = power * r + (power - one)
    E = near + (power * rest + (power * r - (near - (power - one))))
    return _signed(_quotient(E, E, one + one), x)
