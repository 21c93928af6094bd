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

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from manual_bptt import gru
from manual_bptt._door import Array
from manual_bptt.compiled.blocks import (
    add_rows,
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

Params, Cache, Grads, init = gru.Params, gru.Cache, gru.Grads, gru.init


@njit(**FUSED)
def step_forward(u, v, b_n, before, q, h, row):
    """(2) to (5) of one step and one sequence; u becomes the gates where it stands."""
    on_whole_vectors()
    one = like(1.0, h[0])
    z, n = u[row : 2 * row], u[2 * row :]
    r_and_z, v_n = u[: 2 * row], v[2 * row :]
    # (2) r_t = σ(uʳ_t + vʳ_t),  z_t = σ(uᶻ_t + vᶻ_t)
    for j in range(2 * row):
        r_and_z[j] = sigmoid(r_and_z[j] + v[j])
    # (3) q_t = vⁿ_t + bⁿ
    for j in range(row):
        q[j] = v_n[j] + b_n[j]
    # (4) n_t = tanh(uⁿ_t + r_t ⊙ q_t)
    for j in range(row):
        n[j] = tanh(n[j] + r_and_z[j] * q[j])
    # (5) h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    for j in range(row):
        h[j] = (one - z[j]) * n[j] + z[j] * before[j]


@njit(**FUSED)
def step_backward(gates, before, q, dh, delta, epsilon, carried, row):
    """(7) to (10) of one step and one sequence, and z_t ⊙ ∂h_t, which goes on to step t - 1."""
    on_whole_vectors()
    one = like(1.0, q[0])
    r, z, n = gates[:row], gates[row : 2 * row], gates[2 * row :]
    d_r, d_z, d_n = delta[:row], delta[row : 2 * row], delta[2 * row :]
    e_rz, e_n = epsilon[: 2 * row], epsilon[2 * row :]
    # (7) δⁿ_t = ∂h_t ⊙ (1 - z_t) ⊙ tanh′(n_t)
    for j in range(row):
        d_n[j] = dh[j] * (one - z[j]) * ((one - n[j]) * (one + n[j]))
    # (8) δᶻ_t = ∂h_t ⊙ (h_{t-1} - n_t) ⊙ σ′(z_t)
    for j in range(row):
        d_z[j] = dh[j] * (before[j] - n[j]) * (z[j] * (one - z[j]))
    # (9) δʳ_t = δⁿ_t ⊙ q_t ⊙ σ′(r_t)
    for j in range(row):
        d_r[j] = d_n[j] * q[j] * (r[j] * (one - r[j]))
    # (10) ε_t = (δʳ_t, δᶻ_t, r_t ⊙ δⁿ_t)
    for j in range(2 * row):
        e_rz[j] = delta[j]
    for j in range(row):
        e_n[j] = r[j] * d_n[j]
    # (6) what goes on to step t - 1, but for Wᵀ ε_t
    for j in range(row):
        carried[j] = z[j] * dh[j]


@njit(**PLAIN)
def forward_chunk(given, h0, Ut, b, Wt, b_n, gates, all_q, all_h, sizes, first_b, n, tall):
    """(1) to (5) for n sequences of the batch."""
    T, B, H, most = sizes
    wide, row = len(b), len(b_n)
    steps, step = min(T, max(1, most // n)), n * row
    u, v = np.zeros(3 * steps * step, all_h.dtype), np.zeros(3 * step, all_h.dtype)
    q = np.zeros(steps * step, all_h.dtype)
    h = np.zeros((steps + 1) * step, all_h.dtype)  # of the step before the block too
    scratch = np.empty(steps * n * given.D, all_h.dtype)
    take(h0, 0, 1, B, first_b, n, 1, H, h, 0, row)
    for t in range(0, T, steps):
        last = min(T, t + steps)
        # (1) u_t = U x_t + b, for all steps of the block
        project(given, Ut, b, t, last, B, first_b, n, scratch, u)
        for k in range(last - t):
            # (1) v_t = W h_{t-1}
            product(h, k * step, row, 1, Wt, 0, 0, v, 0, wide, n, wide, H, tall, False)
            for b_ in range(n):
                r = k * n + b_
                here, now, then = r * wide, r * row, (r + n) * row
                step_forward(
                    u[here : here + wide], v[b_ * wide : (b_ + 1) * wide], b_n,
                    h[now : now + row], q[now : now + row], h[then : then + row], row,
                )  # fmt: skip
        put(u, 0, row, gates, t, last, B, first_b, n, 3, H)
        put(q, 0, row, all_q, t, last, B, first_b, n, 1, H)
        put(h, step, row, all_h, t, last, B, first_b, n, 1, H)
        end = (last - t) * step
        carry_over(h, end, 0, step)


@njit(**PLAIN)
def backward_chunk(
    given, h0, gates, all_q, all_h, U, W, head, dstates, dlast,
    sums, dx, dh0, delta, epsilon, sizes, first_b, n, tall,
):  # fmt: skip
    """(6) to (13) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most = sizes
    dU, dW, db, de = sums
    wide, row = len(db), len(db) // 3
    steps, step = min(T, max(1, most // n)), n * row
    h, q = np.zeros((steps + 1) * step, all_h.dtype), np.zeros(steps * step, all_h.dtype)
    u, d = np.zeros(3 * steps * step, all_h.dtype), np.zeros(3 * steps * step, all_h.dtype)
    e, dh = np.zeros(3 * steps * step, all_h.dtype), np.zeros(steps * step, all_h.dtype)
    scratch = np.empty(steps * n * columns(all_h, given.D), all_h.dtype)
    carried = np.zeros(step, all_h.dtype)
    loss = 0.0
    # (6) what reaches h_T from beyond the last step
    take(dlast, 0, 1, B, first_b, n, 1, H, carried, 0, row)
    for t in range((T - 1) // steps * steps, -1, -steps):
        last = min(T, t + steps)
        rows = (last - t) * n
        take(gates, t, last, B, first_b, n, 3, H, u, 0, row)
        take(all_q, t, last, B, first_b, n, 1, H, q, 0, row)
        take_from_before(h0, all_h, t, last, B, first_b, n, H, h, row)
        if head is not None:
            loss += read_out(head, h, step, row, H, t, last, B, first_b, n, dh)
        else:
            take(dstates, t, last, B, first_b, n, 1, H, dh, 0, row)
        for k in range(last - t - 1, -1, -1):
            # (6) ∂h_t = ∂L/∂h_t + z_{t+1} ⊙ ∂h_{t+1} + Wᵀ ε_{t+1}
            add_to(dh[k * step : (k + 1) * step], carried)
            for b in range(n):
                r = k * n + b
                here, now = r * wide, r * row
                step_backward(
                    u[here : here + wide], h[now : now + row], q[now : now + row],
                    dh[now : now + row], d[here : here + wide], e[here : here + wide],
                    carried[b * row : (b + 1) * row], row,
                )  # fmt: skip
            product(e, 3 * k * step, wide, 1, W, 0, 0, carried, 0, row, n, row, wide, tall, True)
        # (11) ∂L/∂W = Σ_t ε_t h_{t-1}ᵀ,  ∂L/∂bⁿ = Σ_t εⁿ_t, which is a part of Σ_t ε_t
        product(h, 0, 1, row, e, 0, wide, dW, 0, wide, H, wide, rows, TALLEST, True)
        add_rows(e, rows, de)
        # (12) and (13) for the input: ∂L/∂U, ∂L/∂b, ∂L/∂x_t
        collect(given, U, d, t, last, B, first_b, n, scratch, dU, db, dx)
        if len(delta):
            put(d, 0, row, delta, t, last, B, first_b, n, 3, H)
            put(e, 0, row, epsilon, t, last, B, first_b, n, 3, H)
    # (13) ∂L/∂h_0 = z_1 ⊙ ∂h_1 + Wᵀ ε_1
    put(carried, 0, row, dh0, 0, 1, B, first_b, n, 1, H)
    return loss


class Gated(Layer):
    """The GRU on a batch."""

    def __init__(self, params: gru.Params, cache: gru.Cache) -> None:
        super().__init__(params, cache, 3)
        self.h0 = cache.h0.reshape(-1)
        self.kept = cache.gates.reshape(-1), cache.q.reshape(-1), cache.h.reshape(-1)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return (self.cache.h,)

    def forward(self) -> Callable[[int, int], None]:
        """Equations (1) to (5) for a chunk of sequences."""
        U, W, b, b_n = self.params
        T, B, _, H = self.sizes
        row = self.row
        Ut, Wt = ahead(self.given, U, H, row), forth(W, H, row, self.tall)
        b, b_n = bias(b, 3, H, row, U), bias(b_n, 1, H, row, U)

        def run(first_b: int, n: int) -> None:
            forward_chunk(
                self.given,
                self.h0,
                Ut,
                b,
                Wt,
                b_n,
                *self.kept,
                (T, B, H, self.most),
                first_b,
                n,
                self.tall,
            )

        return run

    def backward(
        self, dstates: Array | None, dlast: Array | None, *, taps: bool = True
    ) -> Callable[..., tuple[float, Sums]]:
        """Equations (6) to (13) for a chunk of sequences, with a head from the loss on."""
        U, W = self.params[:2]
        T, B, D, H = self.sizes
        row = self.row
        again, onward = behind(self.given, U, H, row), back(W, H, row, self.tall)
        each = self.none if dstates is None else dstates.reshape(-1)
        last = np.zeros_like(self.h0) if dlast is None else dlast.reshape(-1)
        self.dx, self.dh0 = np.empty_like(self.given.x), np.empty_like(self.h0)
        self.delta, self.epsilon = (
            np.empty_like(self.kept[0]) if taps else self.none for _ in range(2)
        )

        def run(first_b: int, n: int, head: Head | None = None) -> tuple[float, Sums]:
            sums = tuple(np.zeros(3 * N * row, U.dtype) for N in (D, H, 1, 1))
            loss = backward_chunk(
                self.given, self.h0, *self.kept, again, onward, head, each, last,
                sums, self.dx, self.dh0, self.delta, self.epsilon,
                (T, B, H, self.most), first_b, n, self.tall,
            )  # fmt: skip
            return loss, sums

        return run

    def grads(self, parts: Sequence[Sums]) -> gru.Grads:
        """What the threads found, put together."""
        x, h0, gates = self.cache[:3]
        _, _, D, H = self.sizes
        dU, dW, db, de = (
            whole(a, N, H, self.row) for a, N in zip(total(parts), (D, H, 1, 1), strict=True)
        )
        return gru.Grads(
            U=dU,
            W=dW,
            b=None if self.params.b is None else db[:, 0],
            b_n=None if self.params.b_n is None else de[2 * H :, 0],
            x=self.dx.reshape(x.shape),
            h0=self.dh0.reshape(h0.shape),
            delta=kept(self.delta, gates),
            epsilon=kept(self.epsilon, gates),
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
    grads: gru.Grads = Gated(params, cache).run_backward(dstates, dlast)
    return grads
