"""What the compiled layers have in common: how a batch is shared out, and the gradients gathered.

A layer is made from its weights and a cache that is being filled or was. Its module has three
compiled functions for a chunk of sequences: `forward_chunk`, `backward_chunk` and, from one end to
the other with a readout above, `there_and_back`. Their arguments are the same in every module,
though not every cell needs each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from manual_bptt._door import Array
from manual_bptt.compiled import inputs, threads
from manual_bptt.compiled.blocks import (
    back,
    bias,
    flat,
    forth,
    narrow,
    of_ours,
    parted,
    without_padding,
)
from manual_bptt.compiled.machine import PLAIN
from manual_bptt.compiled.product import columns, tallest
from manual_bptt.compiled.readout import Head, Readout
from manual_bptt.compiled.threads import R, Sums

LARGE = 2**21
"""Bytes of weights, the readout's too, from which on they are made ready once for all threads, and
for one way at a time. Small ones each thread makes ready for itself: so all its work is one call,
and Python, which takes longer than the layer where a batch is small, does little else."""


class Ways(NamedTuple):
    """The compiled functions of a layer, for a chunk of sequences."""

    forward: Callable[..., None]
    backward: Callable[..., float]
    there_and_back: Callable[..., float]


@njit(**PLAIN)
def _numbers_to_go(given, W, G):
    """How many numbers U and W are, as the way forward reads them."""
    H = W.shape[1]
    wide = G * columns(W, H)
    return given.D * wide, H * wide


@njit(**PLAIN)
def _numbers_to_return(given, W):
    """The same for the way back."""
    GH, H = W.shape
    wide = 0 if len(given.classes) else columns(W, given.D)
    return GH * wide, GH * columns(W, H)


@njit(**PLAIN)
def _go(given, weights, G, tall, Ut, Wt):
    U, W, b = weights
    inputs.ahead(given, U, G, Ut)
    forth(W, G, tall, Wt)
    return parted(b, G)


@njit(**PLAIN)
def _return(given, weights, G, tall, U_back, W_back):
    U, W, _ = weights
    inputs.behind(given, U, G, U_back)
    back(W, G, tall, W_back)


@njit(**PLAIN)
def ready_to_go(given, weights, G, sizes):
    """U, W and b as the way forward reads them."""
    W = weights[1]
    for_U, for_W = _numbers_to_go(given, W, G)
    Ut, Wt = np.zeros(for_U, W.dtype), np.zeros(for_W, W.dtype)
    return Ut, Wt, _go(given, weights, G, sizes[-1], Ut, Wt)


@njit(**PLAIN)
def ready_to_return(given, weights, G, sizes):
    """U and W as the way back reads them."""
    W = weights[1]
    for_U, for_W = _numbers_to_return(given, W)
    U_back, W_back = np.zeros(for_U, W.dtype), np.zeros(for_W, W.dtype)
    _return(given, weights, G, sizes[-1], U_back, W_back)
    return U_back, W_back


class Layer:
    """A layer on a batch.

    Args:
        params: its weights, of which U is (G H, D) and W (G H, H).
        cache: with x and the sizes.
        G: how many parts, of H rows each, the weights have.
        b: the bias (G H,) or None.
        start: the states before the first step, (B, H) each.
        kept: what the cache holds of all steps, (T, B, ·) each; the first as the taps are.
        taps: how many intermediate cotangents there are.
        own: what the cell needs beside.
    """

    def __init__(
        self,
        params: Any,
        cache: Any,
        G: int,
        *,
        b: Array | None,
        start: Sequence[Array],
        kept: Sequence[Array],
        taps: int = 1,
        own: Any = 0,
    ) -> None:
        self.params, self.cache, self.G, self.own = params, cache, G, own
        T, B, D, H = (cache.sizes[letter] for letter in "TBDH")
        U = params.U
        self.b = bias(b, len(U), U)
        self.row = columns(U, H)
        self.given = inputs.inputs(of_ours(cache.x), D, U)
        self.start = tuple(map(flat, start))
        self.kept = tuple(a.reshape(-1) for a in kept)
        self.none = np.empty(0, U.dtype)
        self.taps: Sequence[Array] = (self.none,) * taps
        self.chunks = threads.chunks(B, T * B * G * H * (H + D))
        tall = max(tallest(n) for _, n in self.chunks)
        self.sizes = T, B, H, threads.rows(), tall

    @property
    def weights(self) -> tuple[Array, Array, Array]:
        """U, W and b, for the compiled functions; who holds them may hold copies."""
        return of_ours(self.params.U), of_ours(self.params.W), self.b

    @property
    def ways(self) -> Ways:
        """The compiled functions."""
        raise NotImplementedError

    def outputs(self) -> Sequence[Array]:
        """All states (T, B, H), the output first."""
        raise NotImplementedError

    def grads(self, parts: Sequence[Sums]) -> Any:
        """The gradients, from what each thread found; in the order of the chunks."""
        raise NotImplementedError

    def sums(self) -> Sums:
        """Where a thread adds up what belongs to U, W and b."""
        W = self.params.W
        return (
            inputs.start(self.given, self.G, W.shape[1], self.row, W),
            np.zeros(len(W) * self.row, W.dtype),
            np.zeros(self.G * self.row, W.dtype),
        )

    def whole(self, dU: Array, dW: Array, db: Array) -> tuple[Array, Array, Array | None]:
        """The gradients of U, W and b, of what was added up."""
        GH, H = self.params.W.shape
        none = self.params.b is None
        return (
            inputs.end(self.given, dU, self.G, H, self.row),
            narrow(dW, GH, H),
            None if none else without_padding(db, self.G, H),
        )

    def forward(self) -> Callable[[int, int], None]:
        """The way forward, for a chunk of sequences; it fills what the cache holds."""
        W = self.params.W
        # NumPy asks for large pages where an array is large, numba does not
        Ut, Wt = (np.zeros(N, W.dtype) for N in _numbers_to_go(self.given, W, self.G))
        b = _go(self.given, self.weights, self.G, self.sizes[-1], Ut, Wt)
        return partial(
            self.ways.forward,
            self.given, self.start, (Ut, Wt, b), self.own, self.kept, self.sizes,
        )  # fmt: skip

    def backward(
        self,
        dstates: Sequence[Array] | None = None,
        dlast: Sequence[Array] | None = None,
        *,
        taps: bool = True,
    ) -> Callable[..., tuple[float, Sums]]:
        """The way back, for a chunk of sequences, with a head from the loss on: the loss, the sums.

        Without `dstates` there has to be a head, which gives them; a `dlast` that is None is zero.
        Without taps, the intermediate cotangents are not kept.
        """
        W = self.params.W
        ready = tuple(np.zeros(N, W.dtype) for N in _numbers_to_return(self.given, W))
        _return(self.given, self.weights, self.G, self.sizes[-1], *ready)
        each = [self.none for _ in self.outputs()] if dstates is None else map(flat, dstates)
        last = map(np.zeros_like, self.start) if dlast is None else map(flat, dlast)
        cotangents = tuple(each), tuple(last)
        self._make_room(taps=taps)

        def run(first_b: int, n: int, head: Head | None = None) -> tuple[float, Sums]:
            sums = self.sums()
            loss = self.ways.backward(
                self.given, self.start, self.kept, ready, self.own, head, *cotangents,
                sums, self.dx, self.dstart, self.taps, self.sizes, first_b, n,
            )  # fmt: skip
            return loss, sums

        return run

    def _make_room(self, *, taps: bool) -> None:
        """For the gradients that each thread has a part of."""
        self.dx = np.empty_like(self.given.x)
        self.dstart = tuple(map(np.empty_like, self.start))
        if taps:
            self.taps = tuple(np.empty_like(self.kept[0]) for _ in self.taps)

    def _each(self, run: Callable[[int, int], R]) -> list[R]:
        """What each chunk gives, in their order."""
        return threads.run([partial(run, *chunk) for chunk in self.chunks])

    def run_forward(self) -> Any:
        """All chunks forward: the cache, whose states nobody may change any more."""
        self._each(self.forward())
        for s in self.outputs():
            s.flags.writeable = False
        return self.cache

    def run_backward(self, dstates: Sequence[Array], dlast: Sequence[Array]) -> Any:
        """All chunks back: the gradients."""
        found = self._each(self.backward(dstates, dlast))
        return self.grads([sums for _, sums in found])

    def from_the_loss(self, readout: Readout) -> tuple[Any, Any, Array, Array | None]:
        """Forward and back with the readout above: the loss, the gradients, ∂L/∂V and ∂L/∂c."""
        large = self.params.U.nbytes + self.params.W.nbytes + readout.V.nbytes > LARGE
        run = (self._one_after_the_other if large else self._in_one_go)(readout)
        losses, sums, tops = zip(*self._each(run), strict=True)
        loss = self.none.dtype.type(sum(losses))
        return loss, self.grads(sums), *readout.grads(tops)

    def _in_one_go(self, readout: Readout) -> Callable[[int, int], tuple[float, Sums, Sums]]:
        """A chunk goes there and back."""
        weights, above = self.weights, readout.aboves()
        self._make_room(taps=False)

        def run(first_b: int, n: int) -> tuple[float, Sums, Sums]:
            sums, tops = self.sums(), readout.sums()
            loss = self.ways.there_and_back(
                self.given, self.start, weights, self.own, self.kept, above(tops),
                sums, self.dx, self.dstart, self.sizes, first_b, n,
            )  # fmt: skip
            return loss, sums, tops

        return run

    def _one_after_the_other(
        self, readout: Readout
    ) -> Callable[[int, int], tuple[float, Sums, Sums]]:
        """All chunks go forward; what is left is the way back."""
        self._each(self.forward())  # what it had ready is forgotten
        backward, head = self.backward(taps=False), readout.heads()

        def run(first_b: int, n: int) -> tuple[float, Sums, Sums]:
            tops = readout.sums()
            return *backward(first_b, n, head(tops)), tops

        return run


def tap(found: Array, like: Array) -> Any:
    """An intermediate cotangent in the shape of `like`, or None where it was not wanted."""
    return found.reshape(like.shape) if len(found) else None
