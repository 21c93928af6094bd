"""The recurrent layer, equations (1), (2) and (8) to (12) of `manual_bptt.rnn`, compiled.

    (1)  a_t = U x_t + W s_{t-1} + b
    (2)  s_t = f(a_t)
    (9)  δ_t = [∂L/∂s_t + Wᵀ δ_{t+1}] ⊙ f′(a_t)
    (10) ∂L/∂W = Σ_t δ_t s_{t-1}ᵀ
    (11) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (12) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂s_0 = Wᵀ δ_1

It is the same derivation; what differs is the order of the work. Sequences of a batch never meet
but in the sums over them: so each thread takes some of them from the first step to the last and
back, and only its sums for the weights are added up at the end. Sums over time are made by blocks
of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from manual_bptt import rnn
from manual_bptt._door import Array
from manual_bptt.activations import Activation
from manual_bptt.compiled.activations import KINDS, activate, reach_through
from manual_bptt.compiled.blocks import carry_over, flat, put, take, take_from_before
from manual_bptt.compiled.inputs import collect, project
from manual_bptt.compiled.layer import Layer, kept
from manual_bptt.compiled.machine import PLAIN, TALLEST
from manual_bptt.compiled.product import columns, product
from manual_bptt.compiled.readout import Head, read_out
from manual_bptt.compiled.threads import Sums, total

Params, Cache, Grads, init = rnn.Params, rnn.Cache, rnn.Grads, rnn.init


@njit(**PLAIN)
def forward_chunk(given, s0, Ut, b, Wt, f, states, sizes, first_b, n, tall):
    """(1) and (2) for n sequences of the batch."""
    T, B, H, most = sizes
    row = len(b)
    steps, step = min(T, max(1, most // n)), n * row
    a = np.zeros(steps * step, states.dtype)
    s = np.zeros((steps + 1) * step, states.dtype)  # of the step before the block too
    scratch = np.zeros(steps * n * columns(states, given.D), states.dtype)
    take(s0, 0, 1, B, first_b, n, H, s, 0, row)
    for t in range(0, T, steps):
        last = min(T, t + steps)
        # (1) U x_t + b, for all steps of the block
        project(given, Ut, b, row, t, last, B, first_b, n, scratch, a)
        for k in range(last - t):
            now, then = k * step, (k + 1) * step
            # (1) … + W s_{t-1}
            product(s, now, row, 1, Wt, 0, 0, a, now, row, n, row, H, tall, True)
            # (2) s_t = f(a_t)
            activate(f, a[now:then], s[then : then + step])
        put(s, step, row, states, t, last, B, first_b, n, H)
        end = (last - t) * step
        carry_over(s, end, 0, step)


@njit(**PLAIN)
def backward_chunk(
    given, s0, states, U, W, f, head, dstates, dlast, sums, dx, ds0, delta, sizes, first_b, n, tall
):
    """(8) to (12) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most = sizes
    dU, dW, db = sums
    row = len(db)
    steps, step = min(T, max(1, most // n)), n * row
    s = np.zeros((steps + 1) * step, states.dtype)
    ds, d = np.zeros(steps * step, states.dtype), np.zeros(steps * step, states.dtype)
    scratch = np.zeros(steps * n * columns(states, given.D), states.dtype)
    carried = np.zeros(step, states.dtype)
    loss = 0.0
    # (8) what reaches s_T from beyond the last step: a cotangent of its own
    take(dlast, 0, 1, B, first_b, n, H, carried, 0, row)
    for t in range((T - 1) // steps * steps, -1, -steps):
        last = min(T, t + steps)
        rows = (last - t) * n
        take_from_before(s0, states, t, last, B, first_b, n, H, s, row)
        if head is not None:
            loss += read_out(head, s, step, row, H, t, last, B, first_b, n, ds)
        else:
            take(dstates, t, last, B, first_b, n, H, ds, 0, row)
        for k in range(last - t - 1, -1, -1):
            now, then = k * step, (k + 1) * step
            # (9) δ_t = [∂L/∂s_t + Wᵀ δ_{t+1}] ⊙ f′(a_t)
            reach_through(f, s[then : then + step], ds[now:then], carried, d[now:then])
            product(d, now, row, 1, W, 0, 0, carried, 0, row, n, row, H, tall, False)
        # (10) ∂L/∂W = Σ_t δ_t s_{t-1}ᵀ
        product(d, 0, 1, row, s, 0, row, dW, 0, row, H, row, rows, TALLEST, True)
        # (11) and (12) for the input: ∂L/∂U, ∂L/∂b, ∂L/∂x_t
        collect(given, U, d, H, row, t, last, B, first_b, n, scratch, dU, db, dx)
        if len(delta):
            put(d, 0, row, delta, t, last, B, first_b, n, H)
    # (12) ∂L/∂s_0 = Wᵀ δ_1
    put(carried, 0, row, ds0, 0, 1, B, first_b, n, H)
    return loss


class Recurrent(Layer):
    """The recurrent layer on a batch."""

    def __init__(self, params: rnn.Params, cache: rnn.Cache) -> None:
        super().__init__(params, cache, 1)
        self.s0, self.states = flat(cache.s0), cache.states.reshape(-1)
        self.f = KINDS.index(cache.activation.name)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return (self.cache.states,)

    def forward(self) -> Callable[[int, int], None]:
        """Equations (1) and (2) for a chunk of sequences."""
        T, B, _, H = self.sizes
        Ut, Wt, b = self.weights_ahead()

        def run(first_b: int, n: int) -> None:
            forward_chunk(
                self.given, self.s0, Ut, b, Wt, self.f, self.states,
                (T, B, H, self.most), first_b, n, self.tall,
            )  # fmt: skip

        return run

    def backward(
        self, dstates: Array | None, dlast: Array | None, *, taps: bool = True
    ) -> Callable[..., tuple[float, Sums]]:
        """Equations (8) to (12) for a chunk of sequences, with a head from the loss on."""
        T, B, _, H = self.sizes
        U, W = self.weights_behind()
        dstates = self.none if dstates is None else flat(dstates)
        dlast = np.zeros(self.s0.size, U.dtype) if dlast is None else flat(dlast)
        self.dx, self.ds0 = np.empty_like(self.given.x), np.empty_like(self.s0)
        self.delta = np.empty_like(self.states) if taps else self.none

        def run(first_b: int, n: int, head: Head | None = None) -> tuple[float, Sums]:
            sums = self.sums()
            loss = backward_chunk(
                self.given, self.s0, self.states, U, W, self.f, head, dstates, dlast,
                tuple(map(flat, sums)), self.dx, self.ds0, self.delta,
                (T, B, H, self.most), first_b, n, self.tall,
            )  # fmt: skip
            return loss, sums

        return run

    def grads(self, parts: Sequence[Sums]) -> rnn.Grads:
        """What the threads found, put together."""
        x, _, states, *_ = self.cache
        dU, dW, db = self.whole(*total(parts))
        return rnn.Grads(
            U=dU,
            W=dW,
            b=db,
            x=self.dx.reshape(x.shape) if x.ndim == 3 else None,
            s0=self.ds0.reshape(self.cache.s0.shape),
            delta=kept(self.delta, states),
        )


def layer(
    params: rnn.Params, x: Array, s0: Array | None = None, activation: str | Activation = "tanh"
) -> Recurrent:
    """The layer on a batch, its states still to be computed; arguments as in `forward`."""
    f, sizes, params, x, s0 = rnn._opened(params, x, s0, activation)
    states = np.empty((sizes["T"], *s0.shape), s0.dtype)
    return Recurrent(params, rnn.Cache(x, s0, states, f, sizes, "numba"))


def forward(
    params: rnn.Params, x: Array, s0: Array | None = None, activation: str | Activation = "tanh"
) -> tuple[Array, rnn.Cache]:
    """Equations (1) and (2), as `manual_bptt.rnn.forward`."""
    cache: rnn.Cache = layer(params, x, s0, activation).run_forward()
    return cache.states, cache


def backward(
    params: rnn.Params, cache: rnn.Cache, dstates: Array | None, dlast: Array | None = None
) -> rnn.Grads:
    """Equations (8) to (12), as `manual_bptt.rnn.backward`."""
    params, dstates, dlast = rnn._opened_backward(params, cache, dstates, dlast)
    grads: rnn.Grads = Recurrent(params, cache).run_backward(dstates, dlast)
    return grads
