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

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from manual_bptt import gru_before
from manual_bptt._door import Array
from manual_bptt.compiled.blocks import (
    add_to,
    back,
    bias,
    carry_over,
    forth,
    put,
    take,
    take_from_before,
    whole,
)
from manual_bptt.compiled.functions import like, sigmoid, tanh
from manual_bptt.compiled.inputs import ahead, behind, collect, project
from manual_bptt.compiled.layer import Layer, kept
from manual_bptt.compiled.machine import FUSED, PLAIN, TALLEST, on_whole_vectors
from manual_bptt.compiled.product import columns, product
from manual_bptt.compiled.readout import Head, read_out
from manual_bptt.compiled.threads import Sums, total

Params, Cache, Grads = gru_before.Params, gru_before.Cache, gru_before.Grads
init = gru_before.init


@njit(**FUSED)
def reset(u, before, q, row):
    """(2) and (3) of one step and one sequence; u becomes the gates where it stands."""
    on_whole_vectors()
    r_and_z = u[: 2 * row]
    # (2) r_t = σ(uʳ_t + Wʳ h_{t-1}),  z_t = σ(uᶻ_t + Wᶻ h_{t-1})
    for j in range(2 * row):
        r_and_z[j] = sigmoid(r_and_z[j])
    # (3) q_t = r_t ⊙ h_{t-1}
    for j in range(row):
        q[j] = r_and_z[j] * before[j]


@njit(**FUSED)
def renew(u, before, h, row):
    """(4) and (5) of one step and one sequence."""
    on_whole_vectors()
    one = like(1.0, h[0])
    z, n = u[row : 2 * row], u[2 * row :]
    # (4) n_t = tanh(uⁿ_t + Wⁿ q_t)
    for j in range(row):
        n[j] = tanh(n[j])
    # (5) h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    for j in range(row):
        h[j] = (one - z[j]) * n[j] + z[j] * before[j]


@njit(**FUSED)
def back_to_q(gates, before, dh, delta, row):
    """(7) and (8) of one step and one sequence."""
    on_whole_vectors()
    one = like(1.0, dh[0])
    z, n = gates[row : 2 * row], gates[2 * row :]
    d_z, d_n = delta[row : 2 * row], delta[2 * row :]
    # (7) δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    for j in range(row):
        d_n[j] = dh[j] * (one - z[j]) * ((one - n[j]) * (one + n[j]))
    # (8) δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    for j in range(row):
        d_z[j] = dh[j] * (before[j] - n[j]) * (z[j] * (one - z[j]))


@njit(**FUSED)
def back_to_h(gates, before, dh, dq, delta, q, carried, row):
    """(10) of one step and one sequence, and what goes on to step t - 1; q_t is made again."""
    on_whole_vectors()
    one = like(1.0, dh[0])
    r, z, d_r = gates[:row], gates[row : 2 * row], delta[:row]
    # (10) δʳ_t = ∂q_t ⊙ h_{t-1} ⊙ σ′(r_t)
    for j in range(row):
        d_r[j] = dq[j] * before[j] * (r[j] * (one - r[j]))
    # (3) q_t = r_t ⊙ h_{t-1}
    for j in range(row):
        q[j] = r[j] * before[j]
    # (6) z_t ⊙ ∂h_t + r_t ⊙ ∂q_t
    for j in range(row):
        carried[j] = z[j] * dh[j] + r[j] * dq[j]


@njit(**PLAIN)
def forward_chunk(given, h0, Ut, b, Wt_rz, Wt_n, gates, all_h, sizes, first_b, n, tall):
    """(1) to (5) for n sequences of the batch."""
    T, B, H, most = sizes
    wide, row = len(b), len(b) // 3
    steps, step = min(T, max(1, most // n)), n * row
    u, q = np.zeros(3 * steps * step, all_h.dtype), np.zeros(step, all_h.dtype)
    h = np.zeros((steps + 1) * step, all_h.dtype)  # of the step before the block too
    scratch = np.empty(steps * n * given.D, all_h.dtype)
    take(h0, 0, 1, B, first_b, n, 1, H, h, 0, row)
    for t in range(0, T, steps):
        last = min(T, t + steps)
        # (1) u_t = U x_t + b, for all steps of the block
        project(given, Ut, b, t, last, B, first_b, n, scratch, u)
        for k in range(last - t):
            now, here = k * step, 3 * k * step
            # (2) … + Wʳ h_{t-1}, … + Wᶻ h_{t-1}
            product(h, now, row, 1, Wt_rz, 0, 0, u, here, wide, n, 2 * row, H, tall, True)
            for r in range(n):
                gate, old = here + r * wide, now + r * row
                reset(u[gate : gate + wide], h[old : old + row], q[r * row : (r + 1) * row], row)
            # (4) … + Wⁿ q_t
            product(q, 0, row, 1, Wt_n, 0, 0, u, here + 2 * row, wide, n, row, H, tall, True)
            for r in range(n):
                gate, old = here + r * wide, now + r * row
                new = old + step
                renew(u[gate : gate + wide], h[old : old + row], h[new : new + row], row)
        put(u, 0, row, gates, t, last, B, first_b, n, 3, H)
        put(h, step, row, all_h, t, last, B, first_b, n, 1, H)
        end = (last - t) * step
        carry_over(h, end, 0, step)


@njit(**PLAIN)
def backward_chunk(
    given, h0, gates, all_h, U, W_rz, W_n, head, dstates, dlast,
    sums, dx, dh0, delta, sizes, first_b, n, tall,
):  # fmt: skip
    """(6) to (13) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most = sizes
    dU, dW, db = sums
    wide, row = len(db), len(db) // 3
    steps, step = min(T, max(1, most // n)), n * row
    h, q = np.zeros((steps + 1) * step, all_h.dtype), np.zeros(steps * step, all_h.dtype)
    u, d = np.zeros(3 * steps * step, all_h.dtype), np.zeros(3 * steps * step, all_h.dtype)
    dh, dq = np.zeros(steps * step, all_h.dtype), np.zeros(step, all_h.dtype)
    scratch = np.empty(steps * n * columns(all_h, given.D), all_h.dtype)
    carried = np.zeros(step, all_h.dtype)
    loss = 0.0
    # (6) what reaches h_T from beyond the last step
    take(dlast, 0, 1, B, first_b, n, 1, H, carried, 0, row)
    for t in range((T - 1) // steps * steps, -1, -steps):
        last = min(T, t + steps)
        rows = (last - t) * n
        take(gates, t, last, B, first_b, n, 3, H, u, 0, row)
        take_from_before(h0, all_h, t, last, B, first_b, n, H, h, row)
        if head is not None:
            loss += read_out(head, h, step, row, H, t, last, B, first_b, n, dh)
        else:
            take(dstates, t, last, B, first_b, n, 1, H, dh, 0, row)
        for k in range(last - t - 1, -1, -1):
            now, here = k * step, 3 * k * step
            # (6) ∂h_t = ∂L/∂h_t + what reaches it from step t + 1
            add_to(dh[now : now + step], carried)
            for r in range(n):
                gate, old = here + r * wide, now + r * row
                back_to_q(
                    u[gate : gate + wide], h[old : old + row], dh[old : old + row],
                    d[gate : gate + wide], row,
                )  # fmt: skip
            # (9) ∂q_t = Wⁿᵀ δⁿ_t
            product(d, here + 2 * row, wide, 1, W_n, 0, 0, dq, 0, row, n, row, row, tall, False)
            for r in range(n):
                gate, old, one = here + r * wide, now + r * row, r * row
                back_to_h(
                    u[gate : gate + wide], h[old : old + row], dh[old : old + row],
                    dq[one : one + row], d[gate : gate + wide], q[old : old + row],
                    carried[one : one + row], row,
                )  # fmt: skip
            # (6) … + Wʳᵀ δʳ_t + Wᶻᵀ δᶻ_t
            product(d, here, wide, 1, W_rz, 0, 0, carried, 0, row, n, row, 2 * row, tall, True)
        # (11) ∂L/∂Wʳ = Σ_t δʳ_t h_{t-1}ᵀ,  ∂L/∂Wᶻ = Σ_t δᶻ_t h_{t-1}ᵀ,  ∂L/∂Wⁿ = Σ_t δⁿ_t q_tᵀ
        product(h, 0, 1, row, d, 0, wide, dW, 0, wide, H, 2 * row, rows, TALLEST, True)
        product(q, 0, 1, row, d, 2 * row, wide, dW, 2 * row, wide, H, row, rows, TALLEST, True)
        # (12) and (13) for the input: ∂L/∂U, ∂L/∂b, ∂L/∂x_t
        collect(given, U, d, t, last, B, first_b, n, scratch, dU, db, dx)
        if len(delta):
            put(d, 0, row, delta, t, last, B, first_b, n, 3, H)
    # (13) ∂L/∂h_0: (6) without ∂L/∂h_t
    put(carried, 0, row, dh0, 0, 1, B, first_b, n, 1, H)
    return loss


class Gated(Layer):
    """The GRU on a batch."""

    def __init__(self, params: gru_before.Params, cache: gru_before.Cache) -> None:
        super().__init__(params, cache, 3)
        self.h0 = cache.h0.reshape(-1)
        self.kept = cache.gates.reshape(-1), cache.h.reshape(-1)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return (self.cache.h,)

    def forward(self) -> Callable[[int, int], None]:
        """Equations (1) to (5) for a chunk of sequences."""
        U, W, b = self.params
        T, B, _, H = self.sizes
        row = self.row
        Ut, b = ahead(self.given, U, H, row), bias(b, 3, H, row, U)
        Wt_rz, Wt_n = (forth(part, H, row, self.tall) for part in (W[: 2 * H], W[2 * H :]))

        def run(first_b: int, n: int) -> None:
            forward_chunk(
                self.given, self.h0, Ut, b, Wt_rz, Wt_n, *self.kept,
                (T, B, H, self.most), first_b, n, self.tall,
            )  # fmt: skip

        return run

    def backward(
        self, dstates: Array | None, dlast: Array | None, *, taps: bool = True
    ) -> Callable[..., tuple[float, Sums]]:
        """Equations (6) to (13) for a chunk of sequences, with a head from the loss on."""
        U, W = self.params[:2]
        T, B, D, H = self.sizes
        row = self.row
        again = behind(self.given, U, H, row)
        W_rz, W_n = (back(part, H, row, self.tall) for part in (W[: 2 * H], W[2 * H :]))
        each = self.none if dstates is None else dstates.reshape(-1)
        last = np.zeros_like(self.h0) if dlast is None else dlast.reshape(-1)
        self.dx, self.dh0 = np.empty_like(self.given.x), np.empty_like(self.h0)
        self.delta = np.empty_like(self.kept[0]) if taps else self.none

        def run(first_b: int, n: int, head: Head | None = None) -> tuple[float, Sums]:
            sums = tuple(np.zeros(3 * N * row, U.dtype) for N in (D, H, 1))
            loss = backward_chunk(
                self.given, self.h0, *self.kept, again, W_rz, W_n, head, each, last,
                sums, self.dx, self.dh0, self.delta, (T, B, H, self.most), first_b, n, self.tall,
            )  # fmt: skip
            return loss, sums

        return run

    def grads(self, parts: Sequence[Sums]) -> gru_before.Grads:
        """What the threads found, put together."""
        x, h0, gates = self.cache[:3]
        _, _, D, H = self.sizes
        dU, dW, db = (
            whole(a, N, H, self.row) for a, N in zip(total(parts), (D, H, 1), strict=True)
        )
        return gru_before.Grads(
            U=dU,
            W=dW,
            b=None if self.params.b is None else db[:, 0],
            x=self.dx.reshape(x.shape),
            h0=self.dh0.reshape(h0.shape),
            delta=kept(self.delta, gates),
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
    grads: gru_before.Grads = Gated(params, cache).run_backward(dstates, dlast)
    return grads
