"""What the compiled layers have in common: how a batch is shared out, and the gradients gathered.

A layer is made from its weights and a cache that is being filled or was. `forward` and `backward`
give a function to be called for each chunk of sequences, in whatever thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from manual_bptt._door import Array
from manual_bptt.compiled import threads
from manual_bptt.compiled.blocks import back, bias, forth, narrow, of_ours, parted, without_padding
from manual_bptt.compiled.inputs import ahead, behind, end, inputs, start
from manual_bptt.compiled.machine import PLAIN
from manual_bptt.compiled.product import columns, tallest
from manual_bptt.compiled.readout import Head, Readout
from manual_bptt.compiled.threads import Sums

LARGE = 2**21
"""Bytes of weights from which on both ways do not have theirs ready at the same time: to start the
threads once more, some 50 µs, then counts for less than the memory."""


@njit(**PLAIN)
def _ready_to_go(given, U, W, b, G, tall, Ut, Wt):
    ahead(given, U, G, Ut)
    forth(W, G, tall, Wt)
    return parted(b, G)


@njit(**PLAIN)
def _ready_to_return(given, U, W, G, tall, U_back, W_back):
    behind(given, U, G, U_back)
    back(W, G, tall, W_back)


class Layer:
    """A layer on a batch.

    Args:
        params: its weights, of which U is (G H, D), W (G H, H) and b (G H,) or None.
        cache: with x and the sizes.
        G: how many parts, of H rows each, the weights have.
    """

    def __init__(self, params: Any, cache: Any, G: int) -> None:
        self.params, self.cache, self.G = params, cache, G
        T, B, D, H = (cache.sizes[letter] for letter in "TBDH")
        self.sizes = T, B, D, H
        self.chunks = threads.chunks(B, T * B * G * H * (H + D))
        self.most = threads.rows()
        self.tall = max(tallest(n) for _, n in self.chunks)
        self.row = columns(params.U, H)
        self.given = inputs(of_ours(cache.x), D, params.U)
        self.none = np.empty(0, params.U.dtype)

    def weights_ahead(self) -> tuple[Array, Array, Array]:
        """U, W and b as the way forward reads them."""
        U, W, b = self.params[:3]
        _, _, D, H = self.sizes
        # NumPy asks for large pages where an array is large, numba does not
        Ut, Wt = (np.zeros(N * self.G * self.row, U.dtype) for N in (D, H))
        b = bias(b, len(U), U)
        b = _ready_to_go(self.given, of_ours(U), of_ours(W), b, self.G, self.tall, Ut, Wt)
        return Ut, Wt, b

    def weights_behind(self) -> tuple[Array, Array]:
        """U and W as the way back reads them."""
        U, W = self.params[:2]
        wide = 0 if len(self.given.classes) else columns(U, self.given.D)
        U_back, W_back = (np.zeros(len(U) * N, U.dtype) for N in (wide, self.row))
        _ready_to_return(self.given, of_ours(U), of_ours(W), self.G, self.tall, U_back, W_back)
        return U_back, W_back

    def sums(self) -> Sums:
        """Where a thread adds up what belongs to U, W and b."""
        U = self.params.U
        _, _, _, H = self.sizes
        return (
            start(self.given, self.G, H, self.row, U),
            np.zeros((self.G * H, self.row), U.dtype),
            np.zeros(self.G * self.row, U.dtype),
        )

    def whole(self, dU: Array, dW: Array, db: Array) -> tuple[Array, Array, Array | None]:
        """The gradients of U, W and b, of what was added up."""
        _, _, _, H = self.sizes
        none = self.params.b is None
        return (
            end(self.given, dU, H, self.row),
            narrow(dW, H),
            None if none else without_padding(db, self.G, H),
        )

    def forward(self) -> Callable[[int, int], None]:
        """The way forward, for a chunk of sequences; it fills what the cache holds."""
        raise NotImplementedError

    def backward(
        self, dstates: Any, dlast: Any, *, taps: bool = True
    ) -> Callable[..., tuple[float, Sums]]:
        """The way back, for a chunk of sequences, with a head from the loss on: the loss, the sums.

        Cotangents that are None are zero. Without taps, the intermediate ones are not kept.
        """
        raise NotImplementedError

    def grads(self, parts: Sequence[Sums]) -> Any:
        """The gradients, from what each thread found; in the order of the chunks."""
        raise NotImplementedError

    def outputs(self) -> Sequence[Array]:
        """All states (T, B, H), the output first."""
        raise NotImplementedError

    def run_forward(self) -> Any:
        """All chunks forward: the cache, whose states nobody may change any more."""
        run = self.forward()
        threads.run([partial(run, *chunk) for chunk in self.chunks])
        for s in self.outputs():
            s.flags.writeable = False
        return self.cache

    def run_backward(self, dstates: Any, dlast: Any) -> Any:
        """All chunks back: the gradients."""
        run = self.backward(dstates, dlast)
        found = threads.run([partial(run, *chunk) for chunk in self.chunks])
        return self.grads([sums for _, sums in found])

    def from_the_loss(self, readout: Readout) -> tuple[Any, Any, Array, Array | None]:
        """Forward and back with the readout above: the loss, the gradients, ∂L/∂V and ∂L/∂c.

        A thread goes there and back; with `LARGE` weights all wait for one another in between.
        """
        forward = self.forward()
        if self.params.U.nbytes + self.params.W.nbytes > LARGE:
            threads.run([partial(forward, *chunk) for chunk in self.chunks])
            forward = _done
        backward = self.backward(None, None, taps=False)

        def run(first_b: int, n: int) -> tuple[float, Sums, Head]:
            forward(first_b, n)
            head = readout.head()
            return *backward(first_b, n, head), head

        found = threads.run([partial(run, *chunk) for chunk in self.chunks])
        losses, sums, heads = zip(*found, strict=True)
        loss = self.none.dtype.type(sum(losses))
        return loss, self.grads(sums), *readout.grads(heads)


def _done(first_b: int, n: int) -> None:
    """Nothing is left of the way forward."""


def kept(tap: Array, like: Array) -> Any:
    """An intermediate cotangent in the shape of `like`, or None where it was not wanted."""
    return tap.reshape(like.shape) if len(tap) else None
