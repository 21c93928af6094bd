"""The GRU that resets after the product, equations (1) to (13) of `manual_bptt.gru`, compiled.

    (1)  u_t = U x_t + b,  v_t = W h_{t-1},  three parts: r z n
    (2)  r_t = σ(uʳ_t + vʳ_t),  z_t = σ(uᶻ_t + vᶻ_t)
    (3)  q_t = vⁿ_t + bⁿ
    (4)  n_t = tanh(uⁿ_t + r_t ⊙ q_t)
    (5)  h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    (6)  ∂h_t = ∂L/∂h_t + z_{t+1} ⊙ ∂h_{t+1} + Wᵀ ε_{t+1}
    (7)  δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    (8)  δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    (9)  δʳ_t = δⁿ_t ⊙ q_t ⊙ σ′(r_t)
    (10) ε_t = (δʳ_t, δᶻ_t, r_t ⊙ δⁿ_t)
    (11) ∂L/∂W = Σ_t ε_t h_{t-1}ᵀ,  ∂L/∂bⁿ = Σ_t εⁿ_t
    (12) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (13) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = z_1 ⊙ ∂h_1 + Wᵀ ε_1

How the work is shared out is said in `manual_bptt.compiled.rnn`, why a loop writes one array in
`manual_bptt.compiled.lstm`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from manual_bptt import gru
from manual_bptt._door import Array
from manual_bptt.compiled.blocks import (
    add_rows,
    add_to,
    bias,
    carry_over,
    parted,
    put,
    put_part,
    put_parts,
    repeat,
    take,
    take_from_before,
    take_parts,
    without_padding,
)
from manual_bptt.compiled.functions import like, sigmoid, tanh
from manual_bptt.compiled.inputs import collect, project
from manual_bptt.compiled.layer import Layer, Ways, ready_to_go, ready_to_return, tap
from manual_bptt.compiled.machine import FUSED, PLAIN, on_whole_vectors
from manual_bptt.compiled.parts import back_from, gather, onto
from manual_bptt.compiled.product import columns
from manual_bptt.compiled.readout import head_of, read_out
from manual_bptt.compiled.threads import Sums, total

Params, Cache, Grads, init = gru.Params, gru.Cache, gru.Grads, gru.init


@njit(**FUSED)
def step_forward(r, z, n, v_r, v_z, v_n, b_n, before, q, h):
    """(2) to (5) of one step; what is u_t in r, z, n becomes the gates where it stands."""
    on_whole_vectors()
    one = like(1.0, h[0])
    # (2) r_t = σ(uʳ_t + vʳ_t),  z_t = σ(uᶻ_t + vᶻ_t)
    for j in range(len(h)):
        r[j] = sigmoid(r[j] + v_r[j])
    for j in range(len(h)):
        z[j] = sigmoid(z[j] + v_z[j])
    # (3) q_t = vⁿ_t + bⁿ
    for j in range(len(h)):
        q[j] = v_n[j] + b_n[j]
    # (4) n_t = tanh(uⁿ_t + r_t ⊙ q_t)
    for j in range(len(h)):
        n[j] = tanh(n[j] + r[j] * q[j])
    # (5) h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    for j in range(len(h)):
        h[j] = (one - z[j]) * n[j] + z[j] * before[j]


@njit(**FUSED)
def step_backward(r, z, n, before, q, dh, d_r, d_z, d_n, e_n, carried):
    """(7) to (10) of one step, and z_t ⊙ ∂h_t, which goes on to step t - 1."""
    on_whole_vectors()
    one = like(1.0, q[0])
    # (7) δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    for j in range(len(q)):
        d_n[j] = dh[j] * (one - z[j]) * ((one - n[j]) * (one + n[j]))
    # (8) δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    for j in range(len(q)):
        d_z[j] = dh[j] * (before[j] - n[j]) * (z[j] * (one - z[j]))
    # (9) δʳ_t = δⁿ_t ⊙ q_t ⊙ σ′(r_t)
    for j in range(len(q)):
        d_r[j] = d_n[j] * q[j] * (r[j] * (one - r[j]))
    # (10) ε_t = (δʳ_t, δᶻ_t, r_t ⊙ δⁿ_t), of which the last part is not in δ_t
    for j in range(len(q)):
        e_n[j] = r[j] * d_n[j]
    # (6) what goes on to step t - 1, but for Wᵀ ε_t
    for j in range(len(q)):
        carried[j] = z[j] * dh[j]


@njit(**PLAIN)
def forward_chunk(given, start, weights, b_n, kept, sizes, first_b, n):
    """(1) to (5) for n sequences of the batch."""
    T, B, H, most, tall = sizes
    (h0,), (Ut, Wt, b), (gates, all_q, all_h) = start, weights, kept
    row = len(b) // 3
    steps, step = min(T, max(1, most // n)), n * row
    apart = steps * step
    u, v = np.zeros(3 * apart, all_h.dtype), np.zeros(3 * step, all_h.dtype)
    r, z, new = u[:apart], u[apart : 2 * apart], u[2 * apart :]
    v_r, v_z, v_n = v[:step], v[step : 2 * step], v[2 * step :]
    q, each_b_n = np.zeros(apart, all_h.dtype), np.empty(step, all_h.dtype)
    h = np.zeros(apart + step, all_h.dtype)  # of the step before the block too
    scratch = np.zeros(steps * n * columns(all_h, given.D), all_h.dtype)
    repeat(parted(b_n, 1), n, each_b_n)
    take(h0, 0, 1, B, first_b, n, H, h, 0, row)
    for t in range(0, T, steps):
        last = min(T, t + steps)
        # (1) u_t = U x_t + b, for all steps of the block
        project(given, Ut, b, row, t, last, B, first_b, n, scratch, u)
        for k in range(last - t):
            now, then, after = k * step, (k + 1) * step, (k + 2) * step
            # (1) v_t = W h_{t-1}
            onto(h, now, row, H, Wt, v, 0, step, 3, row, n, tall, False)
            step_forward(
                r[now:then], z[now:then], new[now:then], v_r, v_z, v_n, each_b_n,
                h[now:then], q[now:then], h[then:after],
            )  # fmt: skip
        put_parts(u, row, gates, t, last, B, first_b, n, 3, H)
        put(q, 0, row, all_q, t, last, B, first_b, n, H)
        put(h, step, row, all_h, t, last, B, first_b, n, H)
        end = (last - t) * step
        carry_over(h, end, 0, step)


@njit(**PLAIN)
def backward_chunk(
    given, start, kept, weights, b_n, head, each, beyond,
    sums, dx, dstart, taps, sizes, first_b, n,
):  # fmt: skip
    """(6) to (13) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most, tall = sizes
    (h0,), (gates, all_q, all_h), (U, W) = start, kept, weights
    (dstates,), (dlast,), (dU, dW, db, db_n) = each, beyond, sums
    (dh0,), (delta, epsilon) = dstart, taps
    row = len(db_n)
    steps, step = min(T, max(1, most // n)), n * row
    apart = steps * step
    h, q = np.zeros(apart + step, all_h.dtype), np.zeros(apart, all_h.dtype)
    u, d = np.zeros(3 * apart, all_h.dtype), np.zeros(3 * apart, all_h.dtype)
    r, z, new = u[:apart], u[apart : 2 * apart], u[2 * apart :]
    d_r, d_z, d_n = d[:apart], d[apart : 2 * apart], d[2 * apart :]
    e_n, dh = np.zeros(apart, all_h.dtype), np.zeros(apart, all_h.dtype)
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
        take(all_q, t, last, B, first_b, n, H, q, 0, row)
        take_from_before(h0, all_h, t, last, B, first_b, n, H, h, row)
        if head is not None:
            loss += read_out(head, h, step, row, H, t, last, B, first_b, n, dh)
        else:
            take(dstates, t, last, B, first_b, n, H, dh, 0, row)
        for k in range(last - t - 1, -1, -1):
            now, then = k * step, (k + 1) * step
            # (6) ∂h_t = ∂L/∂h_t + z_{t+1} ⊙ ∂h_{t+1} + Wᵀ ε_{t+1}
            add_to(dh[now:then], carried)
            step_backward(
                r[now:then], z[now:then], new[now:then], h[now:then], q[now:then], dh[now:then],
                d_r[now:then], d_z[now:then], d_n[now:then], e_n[now:then], carried,
            )  # fmt: skip
            back_from(d, now, apart, 2, H, row, W, carried, 0, row, n, tall, True)
            back_from(e_n, now, 0, 1, H, row, W_n, carried, 0, row, n, tall, True)
        # (11) ∂L/∂W = Σ_t ε_t h_{t-1}ᵀ,  ∂L/∂bⁿ = Σ_t εⁿ_t
        gather(d, apart, 2, H, row, h, 0, row, dW, 0, rows)
        gather(e_n, 0, 1, H, row, h, 0, row, dW, 2 * H * row, rows)
        add_rows(e_n[: rows * row], db_n)
        # (12) and (13) for the input: ∂L/∂U, ∂L/∂b, ∂L/∂x_t
        collect(given, U, d, H, row, t, last, B, first_b, n, scratch, dU, db, dx)
        if len(delta):
            put_parts(d, row, delta, t, last, B, first_b, n, 3, H)
            put_parts(d, row, epsilon, t, last, B, first_b, n, 3, H)
            put_part(e_n, 0, row, epsilon, t, last, B, first_b, n, 2, 3, H)
    # (13) ∂L/∂h_0 = z_1 ⊙ ∂h_1 + Wᵀ ε_1
    put(carried, 0, row, dh0, 0, 1, B, first_b, n, H)
    return loss


@njit(**PLAIN)
def there_and_back(given, start, weights, b_n, kept, above, sums, dx, dstart, sizes, first_b, n):
    """(1) to (13) for n sequences of the batch, the weights made ready for them alone."""
    go = ready_to_go(given, weights, 3, sizes)
    forward_chunk(given, start, go, b_n, kept, sizes, first_b, n)
    back = ready_to_return(given, weights, 3, sizes)
    none, zero = kept[0][:0], np.zeros_like(start[0])
    return backward_chunk(
        given, start, kept, back, b_n, head_of(above), (none,), (zero,),
        sums, dx, dstart, (none, none), sizes, first_b, n,
    )  # fmt: skip


class Gated(Layer):
    """The GRU on a batch."""

    def __init__(self, params: gru.Params, cache: gru.Cache) -> None:
        kept = cache.gates, cache.q, cache.h
        b_n = bias(params.b_n, cache.sizes["H"], params.W)
        super().__init__(
            params, cache, 3, b=params.b, start=(cache.h0,), kept=kept, taps=2, own=b_n
        )

    @property
    def ways(self) -> Ways:
        """Equations (1) to (13)."""
        return Ways(forward_chunk, backward_chunk, there_and_back)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return (self.cache.h,)

    def sums(self) -> Sums:
        """Where a thread adds up what belongs to U, W, b and bⁿ."""
        return *super().sums(), np.zeros(self.row, self.none.dtype)

    def grads(self, parts: Sequence[Sums]) -> gru.Grads:
        """What the threads found, put together."""
        x, h0, gates = self.cache[:3]
        *sums, db_n = total(parts)
        delta, epsilon = self.taps
        dU, dW, db = self.whole(*sums)
        return gru.Grads(
            U=dU,
            W=dW,
            b=db,
            b_n=None if self.params.b_n is None else without_padding(db_n, 1, h0.shape[1]),
            x=self.dx.reshape(x.shape),
            h0=self.dstart[0].reshape(h0.shape),
            delta=tap(delta, gates),
            epsilon=tap(epsilon, gates),
        )


def layer(params: gru.Params, x: Array, h0: Array | None = None) -> Gated:
    """The layer on a batch, its states still to be computed; arguments as in `forward`."""
    sizes, params, x, h0 = gru._opened(params, x, h0)
    T, B, H = (sizes[letter] for letter in "TBH")
    gates, q, h = (np.empty((T, B, n * H), h0.dtype) for n in (3, 1, 1))
    return Gated(params, gru.Cache(x, h0, gates, q, h, sizes, "numba"))


def forward(params: gru.Params, x: Array, h0: Array | None = None) -> tuple[Array, gru.Cache]:
    """Equations (1) to (5), as `manual_bptt.gru.forward`."""
    cache: gru.Cache = layer(params, x, h0).run_forward()
    return cache.h, cache


def backward(
    params: gru.Params, cache: gru.Cache, dstates: Array | None, dlast: Array | None = None
) -> gru.Grads:
    """Equations (6) to (13), as `manual_bptt.gru.backward`."""
    params, dstates, dlast = gru._opened_backward(params, cache, dstates, dlast)
    grads: gru.Grads = Gated(params, cache).run_backward((dstates,), (dlast,))
    return grads
