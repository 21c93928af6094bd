"""The readout of a block: equations (3) to (7) of `manual_bptt.readout`, for class indices.

    (3) z_t = V s_t + c
    (4) o_t = softmax(z_t)
    (5) L_t = -log o_{t,y}
    (6) ∂L/∂z_t = o_t - y_t
    (7) ∂L/∂V = Σ_t (o_t - y_t) s_tᵀ,  ∂L/∂c = Σ_t (o_t - y_t);  ∂L/∂s_t = Vᵀ (o_t - y_t)

The logits of a block are made, turned into o_t - y_t where they stand, used, and forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from manual_bptt import readout
from manual_bptt._door import Array
from manual_bptt.compiled.blocks import (
    add_rows,
    back,
    bias,
    flat,
    forth,
    narrow,
    of_ours,
    parted,
    repeat,
)
from manual_bptt.compiled.functions import exp
from manual_bptt.compiled.machine import FUSED, PLAIN, TALLEST, on_whole_vectors
from manual_bptt.compiled.product import columns, product
from manual_bptt.compiled.threads import Sums, total


class Head(NamedTuple):
    """What a thread needs of the readout, and where it adds what it finds."""

    Vt: Any  # Vᵀ (H, C), packed
    V: Any  # (C, H), packed
    c: Any  # (C,), up to a whole vector
    C: int
    targets: Any  # T·B class indices, -1 for a step without loss
    dloss: Any
    dV: Any  # (C, row)  # noqa: N815
    dc: Any  # as c


class Readout:
    """The readout on a batch."""

    def __init__(self, params: readout.Params, targets: Array, row: int, dloss: float) -> None:
        V, c = params
        self.C, self.H = V.shape
        self.row, self.has_bias = row, c is not None
        self.V, self.c = V, bias(c, self.C, V)
        self.targets, self.dloss = flat(targets), V.dtype.type(dloss)

    def sums(self) -> Sums:
        """Where a thread adds up what belongs to V and c."""
        V = self.V
        return np.zeros(self.C * self.row, V.dtype), np.zeros(columns(V, self.C), V.dtype)

    def aboves(self) -> Callable[[Sums], tuple[Any, ...]]:
        """What gives one thread all that `head_of` makes a head of."""
        V = of_ours(self.V)
        return lambda sums: (V, self.c, self.targets, self.dloss, *sums)

    def heads(self) -> Callable[[Sums], Head]:
        """What gives one thread a head, of weights that are ready for all."""
        # NumPy asks for large pages where an array is large, numba does not
        Vt, V_back = (np.zeros(N, self.V.dtype) for N in _numbers(self.V, self.row))
        c = _ready(of_ours(self.V), self.c, Vt, V_back)
        return lambda sums: Head(Vt, V_back, c, self.C, self.targets, self.dloss, *sums)

    def grads(self, parts: Sequence[Sums]) -> tuple[Array, Array | None]:
        """∂L/∂V and ∂L/∂c, from what each thread found."""
        dV, dc = total(parts)
        return narrow(dV, self.C, self.H), dc[: self.C] if self.has_bias else None


@njit(**PLAIN)
def _numbers(V, row):
    """How many numbers Vᵀ and V are, as the products read them."""
    C, H = V.shape
    return H * columns(V, C), C * row


@njit(**PLAIN)
def _ready(V, c, Vt, V_back):
    """From states to logits, and from logits to states."""
    forth(V, 1, TALLEST, Vt)
    back(V, 1, TALLEST, V_back)
    return parted(c, 1)


@njit(**PLAIN)
def head_of(above):
    """A head with weights of its own."""
    V, c, targets, dloss, dV, dc = above
    C = len(V)
    for_Vt, for_V = _numbers(V, len(dV) // C)
    Vt, V_back = np.zeros(for_Vt, V.dtype), np.zeros(for_V, V.dtype)
    c = _ready(V, c, Vt, V_back)
    return Head(Vt, V_back, c, C, targets, dloss, dV, dc)


@njit(**{**PLAIN, "fastmath": True})
def _sum(z):
    """In whatever order is fastest."""
    total = z[0] - z[0]
    for j in range(len(z)):
        total += z[j]
    return total


@intrinsic
def _larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers, said so that a loop can do many at a time.

    Of NaN and a number it may be either: the sum of the exponentials is NaN all the same.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = args[0].type
        maxnum = builder.module.declare_intrinsic(
            "llvm.maxnum", [kind], ir.FunctionType(kind, [kind, kind])
        )
        return builder.call(maxnum, args, fastmath=("nnan", "nsz"))

    return a(a, b), build


@njit(**{**PLAIN, "fastmath": True})
def _largest(z):
    most = z[0]
    for j in range(len(z)):
        most = _larger(most, z[j])
    return most


@njit(**FUSED)
def _exponentials(z, most):
    on_whole_vectors()
    for j in range(len(z)):
        z[j] = exp(z[j] - most)


@njit(**PLAIN)
def read_out(head, s, at, row, H, t, last, B, first_b, n, ds):
    """The loss of a block of states, in float64; ∂L/∂s goes to `ds`, ∂L/∂V and ∂L/∂c are added."""
    Vt, V, c, C, targets, dloss, dV, dc = head
    rows = (last - t) * n
    width = columns(s, C)
    z = np.empty(rows * width, s.dtype)
    # (3) z_t = V s_t + c
    repeat(c, rows, z)
    product(s, at, row, 1, Vt, 0, 0, z, 0, width, rows, width, H, TALLEST, True)
    loss = 0.0
    for r in range(rows):
        line = z[r * width : r * width + C]
        y = targets[(t + r // n) * B + first_b + r % n]
        if y < 0:
            for j in range(C):
                line[j] = 0
            continue
        # (4) o_t = softmax(z_t)
        most = _largest(line)
        right = line[y] - most
        _exponentials(line, most)  # e^z cannot overflow; softmax does not change
        total = _sum(line)
        # (5) L_t = -log o_{t,y}
        loss += math.log(total) - right
        # (6) ∂L/∂z_t = o_t - y_t
        scale = dloss / total
        for j in range(C):
            line[j] *= scale
        line[y] -= dloss
    # (7) ∂L/∂V = Σ_t (o_t - y_t) s_tᵀ,  ∂L/∂c = Σ_t (o_t - y_t);  ∂L/∂s_t = Vᵀ (o_t - y_t)
    product(z, 0, 1, width, s, at, row, dV, 0, row, C, row, rows, TALLEST, True)
    add_rows(z, dc)
    product(z, 0, width, 1, V, 0, 0, ds, 0, row, rows, row, C, TALLEST, False)
    return loss
