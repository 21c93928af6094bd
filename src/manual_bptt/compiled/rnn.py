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

from collections.abc import Sequence

import numpy as np
from numba import njit

from manual_bptt import rnn
from manual_bptt._door import Array
from manual_bptt.activations import Activation
from manual_bptt.compiled.activations import KINDS, activate, reach_through
from manual_bptt.compiled.blocks import carry_over, put, take, take_from_before
from manual_bptt.compiled.inputs import collect, project
from manual_bptt.compiled.layer import Layer, Ways, ready_to_go, ready_to_return, tap
from manual_bptt.compiled.machine import PLAIN, TALLEST
from manual_bptt.compiled.product import columns, product
from manual_bptt.compiled.readout import head_of, read_out
from manual_bptt.compiled.threads import Sums, total

Params, Cache, Grads, init = rnn.Params, rnn.Cache, rnn.Grads, rnn.init


@njit(**PLAIN)
def forward_chunk(given, start, weights, f, kept, sizes, first_b, n):
    """(1) and (2) for n sequences of the batch."""
    T, B, H, most, tall = sizes
    (s0,), (Ut, Wt, b), (states,) = start, weights, kept
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
    given, start, kept, weights, f, head, each, beyond, sums, dx, dstart, taps, sizes, first_b, n
):
    """(8) to (12) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most, tall = sizes
    (s0,), (states,), (U, W) = start, kept, weights
    (dstates,), (dlast,), (dU, dW, db), (ds0,), (delta,) = each, beyond, sums, dstart, taps
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


@njit(**PLAIN)
def there_and_back(given, start, weights, f, kept, above, sums, dx, dstart, sizes, first_b, n):
    """(1) to (12) for n sequences of the batch, the weights made ready for them alone."""
    go = ready_to_go(given, weights, 1, sizes)
    forward_chunk(given, start, go, f, kept, sizes, first_b, n)
    back = ready_to_return(given, weights, 1, sizes)
    none, zero = kept[0][:0], np.zeros_like(start[0])
    return backward_chunk(
        given, start, kept, back, f, head_of(above), (none,), (zero,),
        sums, dx, dstart, (none,), sizes, first_b, n,
    )  # fmt: skip


class Recurrent(Layer):
    """The recurrent layer on a batch."""

    def __init__(self, params: rnn.Params, cache: rnn.Cache) -> None:
        f = KINDS.index(cache.activation.name)
        super().__init__(
            params, cache, 1, b=params.b, start=(cache.s0,), kept=(cache.states,), own=f
        )

    @property
    def ways(self) -> Ways:
        """Equations (1) to (12)."""
        return Ways(forward_chunk, backward_chunk, there_and_back)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return (self.cache.states,)

    def grads(self, parts: Sequence[Sums]) -> rnn.Grads:
        """What the threads found, put together."""
        x, s0, states, *_ = self.cache
        dU, dW, db = self.whole(*total(parts))
        return rnn.Grads(
            U=dU,
            W=dW,
            b=db,
            x=self.dx.reshape(x.shape) if x.ndim == 3 else None,
            s0=self.dstart[0].reshape(s0.shape),
            delta=tap(self.taps[0], states),
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
    grads: rnn.Grads = Recurrent(params, cache).run_backward((dstates,), (dlast,))
    return grads
