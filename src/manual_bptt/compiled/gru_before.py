"""The GRU that resets before the product, `manual_bptt.gru_before`, compiled.

    (1)  u_t = U x_t + b,  three parts: r z n
    (2)  r_t = σ(uʳ_t + Wʳ h_{t-1}),  z_t = σ(uᶻ_t + Wᶻ h_{t-1})
    (3)  q_t = r_t ⊙ h_{t-1}
    (4)  n_t = tanh(uⁿ_t + Wⁿ q_t)
    (5)  h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    (6)  ∂h_t = ∂L/∂h_t + z_{t+1} ⊙ ∂h_{t+1} + r_{t+1} ⊙ ∂q_{t+1} + Wʳᵀ δʳ_{t+1} + Wᶻᵀ δᶻ_{t+1}
    (7)  δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    (8)  δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    (9)  ∂q_t = Wⁿᵀ δⁿ_t
    (10) δʳ_t = ∂q_t ⊙ h_{t-1} ⊙ σ′(r_t)
    (11) ∂L/∂Wʳ = Σ_t δʳ_t h_{t-1}ᵀ,  ∂L/∂Wᶻ = Σ_t δᶻ_t h_{t-1}ᵀ,  ∂L/∂Wⁿ = Σ_t δⁿ_t q_tᵀ
    (12) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (13) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0: (6) without ∂L/∂h_t

How the work is shared out is said in `manual_bptt.compiled.rnn`, why a loop writes one array in
`manual_bptt.compiled.lstm`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from manual_bptt import gru_before
from manual_bptt._door import Array
from manual_bptt.compiled.blocks import (
    add_to,
    carry_over,
    put,
    put_parts,
    take,
    take_from_before,
    take_parts,
)
from manual_bptt.compiled.functions import like, sigmoid, tanh
from manual_bptt.compiled.inputs import collect, project
from manual_bptt.compiled.layer import Layer, Ways, ready_to_go, ready_to_return, tap
from manual_bptt.compiled.machine import FUSED, PLAIN, on_whole_vectors
from manual_bptt.compiled.parts import back_from, gather, onto
from manual_bptt.compiled.product import columns
from manual_bptt.compiled.readout import head_of, read_out
from manual_bptt.compiled.threads import Sums, total

Params, Cache, Grads = gru_before.Params, gru_before.Cache, gru_before.Grads
init = gru_before.init


@njit(**FUSED)
def reset(r, z, before, q):
    """(2) and (3) of one step; what is u_t in r and z becomes the gates where it stands."""
    on_whole_vectors()
    # (2) r_t = σ(uʳ_t + Wʳ h_{t-1}),  z_t = σ(uᶻ_t + Wᶻ h_{t-1})
    for j in range(len(q)):
        r[j] = sigmoid(r[j])
    for j in range(len(q)):
        z[j] = sigmoid(z[j])
    # (3) q_t = r_t ⊙ h_{t-1}
    for j in range(len(q)):
        q[j] = r[j] * before[j]


@njit(**FUSED)
def renew(z, n, before, h):
    """(4) and (5) of one step."""
    on_whole_vectors()
    one = like(1.0, h[0])
    # (4) n_t = tanh(uⁿ_t + Wⁿ q_t)
    for j in range(len(h)):
        n[j] = tanh(n[j])
    # (5) h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    for j in range(len(h)):
        h[j] = (one - z[j]) * n[j] + z[j] * before[j]


@njit(**FUSED)
def back_to_q(z, n, before, dh, d_z, d_n):
    """(7) and (8) of one step."""
    on_whole_vectors()
    one = like(1.0, dh[0])
    # (7) δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    for j in range(len(dh)):
        d_n[j] = dh[j] * (one - z[j]) * ((one - n[j]) * (one + n[j]))
    # (8) δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    for j in range(len(dh)):
        d_z[j] = dh[j] * (before[j] - n[j]) * (z[j] * (one - z[j]))


@njit(**FUSED)
def back_to_h(r, z, before, dh, dq, d_r, q, carried):
    """(10) of one step, and what goes on to step t - 1; q_t is made again."""
    on_whole_vectors()
    one = like(1.0, dh[0])
    # (10) δʳ_t = ∂q_t ⊙ h_{t-1} ⊙ σ′(r_t)
    for j in range(len(dh)):
        d_r[j] = dq[j] * before[j] * (r[j] * (one - r[j]))
    # (3) q_t = r_t ⊙ h_{t-1}
    for j in range(len(dh)):
        q[j] = r[j] * before[j]
    # (6) z_t ⊙ ∂h_t + r_t ⊙ ∂q_t
    for j in range(len(dh)):
        carried[j] = z[j] * dh[j] + r[j] * dq[j]


@njit(**PLAIN)
def forward_chunk(given, start, weights, own, kept, sizes, first_b, n):
    """(1) to (5) for n sequences of the batch."""
    T, B, H, most, tall = sizes
    (h0,), (Ut, Wt, b), (gates, all_h) = start, weights, kept
    row = len(b) // 3
    steps, step = min(T, max(1, most // n)), n * row
    apart = steps * step
    u, q = np.zeros(3 * apart, all_h.dtype), np.zeros(step, all_h.dtype)
    r, z, new = u[:apart], u[apart : 2 * apart], u[2 * apart :]
    h = np.zeros(apart + step, all_h.dtype)  # of the step before the block too
    scratch = np.zeros(steps * n * columns(all_h, given.D), all_h.dtype)
    Wt_n = Wt[2 * H * row :]
    take(h0, 0, 1, B, first_b, n, H, h, 0, row)
    for t in range(0, T, steps):
        last = min(T, t + steps)
        # (1) u_t = U x_t + b, for all steps of the block
        project(given, Ut, b, row, t, last, B, first_b, n, scratch, u)
        for k in range(last - t):
            now, then, after = k * step, (k + 1) * step, (k + 2) * step
            # (2) … + Wʳ h_{t-1}, … + Wᶻ h_{t-1}
            onto(h, now, row, H, Wt, u, now, apart, 2, row, n, tall, True)
            reset(r[now:then], z[now:then], h[now:then], q)
            # (4) … + Wⁿ q_t
            onto(q, 0, row, H, Wt_n, new, now, 0, 1, row, n, tall, True)
            renew(z[now:then], new[now:then], h[now:then], h[then:after])
        put_parts(u, row, gates, t, last, B, first_b, n, 3, H)
        put(h, step, row, all_h, t, last, B, first_b, n, H)
        end = (last - t) * step
        carry_over(h, end, 0, step)


@njit(**PLAIN)
def backward_chunk(
    given, start, kept, weights, own, head, each, beyond,
    sums, dx, dstart, taps, sizes, first_b, n,
):  # fmt: skip
    """(6) to (13) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most, tall = sizes
    (h0,), (gates, all_h), (U, W) = start, kept, weights
    (dstates,), (dlast,), (dU, dW, db), (dh0,), (delta,) = each, beyond, sums, dstart, taps
    row = len(db) // 3
    steps, step = min(T, max(1, most // n)), n * row
    apart = steps * step
    h, q = np.zeros(apart + step, all_h.dtype), np.zeros(apart, all_h.dtype)
    u, d = np.zeros(3 * apart, all_h.dtype), np.zeros(3 * apart, all_h.dtype)
    r, z, new = u[:apart], u[apart : 2 * apart], u[2 * apart :]
    d_r, d_z, d_n = d[:apart], d[apart : 2 * apart], d[2 * apart :]
    dh, dq = np.zeros(apart, all_h.dtype), np.zeros(step, all_h.dtype)
    scratch = np.zeros(steps * n * columns(all_h, given.D), all_h.dtype)
    carried = np.zeros(step, all_h.dtype)
    W_n = W[2 * H * row :]
    loss = 0.0
    # (6) what reaches h_T from beyond the last step
    take(dlast, 0, 1, B, first_b, n, H, carried, 0, row)
    for t in range((T - 1) // steps * steps, -1, -steps):
        last = min(T, t + steps)
        rows = (last - t) * n
        take_parts(gates, t, last, B, first_b, n, 3, H, u, row)
        take_from_before(h0, all_h, t, last, B, first_b, n, H, h, row)
        if head is not None:
            loss += read_out(head, h, step, row, H, t, last, B, first_b, n, dh)
        else:
            take(dstates, t, last, B, first_b, n, H, dh, 0, row)
        for k in range(last - t - 1, -1, -1):
            now, then = k * step, (k + 1) * step
            # (6) ∂h_t = ∂L/∂h_t + what reaches it from step t + 1
            add_to(dh[now:then], carried)
            back_to_q(
                z[now:then], new[now:then], h[now:then], dh[now:then], d_z[now:then], d_n[now:then]
            )
            # (9) ∂q_t = Wⁿᵀ δⁿ_t
            back_from(d_n, now, 0, 1, H, row, W_n, dq, 0, row, n, tall, False)
            back_to_h(
                r[now:then], z[now:then], h[now:then], dh[now:then], dq,
                d_r[now:then], q[now:then], carried,
            )  # fmt: skip
            # (6) … + Wʳᵀ δʳ_t + Wᶻᵀ δᶻ_t
            back_from(d, now, apart, 2, H, row, W, carried, 0, row, n, tall, True)
        # (11) ∂L/∂Wʳ = Σ_t δʳ_t h_{t-1}ᵀ,  ∂L/∂Wᶻ = Σ_t δᶻ_t h_{t-1}ᵀ,  ∂L/∂Wⁿ = Σ_t δⁿ_t q_tᵀ
        gather(d, apart, 2, H, row, h, 0, row, dW, 0, rows)
        gather(d_n, 0, 1, H, row, q, 0, row, dW, 2 * H * row, rows)
        # (12) and (13) for the input: ∂L/∂U, ∂L/∂b, ∂L/∂x_t
        collect(given, U, d, H, row, t, last, B, first_b, n, scratch, dU, db, dx)
        if len(delta):
            put_parts(d, row, delta, t, last, B, first_b, n, 3, H)
    # (13) ∂L/∂h_0: (6) without ∂L/∂h_t
    put(carried, 0, row, dh0, 0, 1, B, first_b, n, H)
    return loss


@njit(**PLAIN)
def there_and_back(given, start, weights, own, kept, above, sums, dx, dstart, sizes, first_b, n):
    """(1) to (13) for n sequences of the batch, the weights made ready for them alone."""
    go = ready_to_go(given, weights, 3, sizes)
    forward_chunk(given, start, go, own, kept, sizes, first_b, n)
    back = ready_to_return(given, weights, 3, sizes)
    none, zero = kept[0][:0], np.zeros_like(start[0])
    return backward_chunk(
        given, start, kept, back, own, head_of(above), (none,), (zero,),
        sums, dx, dstart, (none,), sizes, first_b, n,
    )  # fmt: skip


class Gated(Layer):
    """The GRU on a batch."""

    def __init__(self, params: gru_before.Params, cache: gru_before.Cache) -> None:
        kept = cache.gates, cache.h
        super().__init__(params, cache, 3, b=params.b, start=(cache.h0,), kept=kept)

    @property
    def ways(self) -> Ways:
        """Equations (1) to (13)."""
        return Ways(forward_chunk, backward_chunk, there_and_back)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return (self.cache.h,)

    def grads(self, parts: Sequence[Sums]) -> gru_before.Grads:
        """What the threads found, put together."""
        x, h0, gates = self.cache[:3]
        dU, dW, db = self.whole(*total(parts))
        return gru_before.Grads(
            U=dU,
            W=dW,
            b=db,
            x=self.dx.reshape(x.shape),
            h0=self.dstart[0].reshape(h0.shape),
            delta=tap(self.taps[0], gates),
        )


def layer(params: gru_before.Params, x: Array, h0: Array | None = None) -> Gated:
    """The layer on a batch, its states still to be computed; arguments as in `forward`."""
    sizes, params, x, h0 = gru_before._opened(params, x, h0)
    T, B, H = (sizes[letter] for letter in "TBH")
    gates, h = (np.empty((T, B, n * H), h0.dtype) for n in (3, 1))
    return Gated(params, gru_before.Cache(x, h0, gates, h, sizes, "numba"))


def forward(
    params: gru_before.Params, x: Array, h0: Array | None = None
) -> tuple[Array, gru_before.Cache]:
    """Equations (1) to (5), as `manual_bptt.gru_before.forward`."""
    cache: gru_before.Cache = layer(params, x, h0).run_forward()
    return cache.h, cache


def backward(
    params: gru_before.Params,
    cache: gru_before.Cache,
    dstates: Array | None,
    dlast: Array | None = None,
) -> gru_before.Grads:
    """Equations (6) to (13), as `manual_bptt.gru_before.backward`."""
    params, dstates, dlast = gru_before._opened_backward(params, cache, dstates, dlast)
    grads: gru_before.Grads = Gated(params, cache).run_backward((dstates,), (dlast,))
    return grads
