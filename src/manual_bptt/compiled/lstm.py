"""The LSTM, equations (1) to (14) and (17) of `manual_bptt.lstm`, compiled.

    (1)  a_t = U x_t + W h_{t-1} + b,  four parts: i f g o
    (2)  i_t = σ(aⁱ_t),  f_t = σ(aᶠ_t + φ)
    (3)  g_t = tanh(aᵍ_t)
    (4)  c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    (5)  o_t = σ(aᵒ_t)
    (6)  h_t = o_t ⊙ tanh(c_t)

    (8)  ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1}
    (9)  δᵒ_t = ∂h_t ⊙ tanh(c_t) ⊙ σ′(o_t)
    (10) ∂c_t = ∂L/∂c_t + ∂h_t ⊙ o_t ⊙ tanh′(c_t) + ∂c_{t+1} ⊙ f_{t+1}
    (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t)
    (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
    (13) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ
    (14) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t
    (17) ∂L/∂x_t = Uᵀ δ_t,  ∂L/∂h_0 = Wᵀ δ_1,  ∂L/∂c_0 = ∂c_1 ⊙ f_1

The cell without peepholes and projection, which are for `manual_bptt.lstm` alone. How the work is
shared out is said in `manual_bptt.compiled.rnn`. A loop here writes one array: then the compiler
knows with a few comparisons that it overlaps none of those that are read, and uses vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from manual_bptt import lstm
from manual_bptt._door import Array
from manual_bptt.compiled.blocks import (
    add_to,
    bias,
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

Params, States, Cache, Grads, init = lstm.Params, lstm.States, lstm.Cache, lstm.Grads, lstm.init


@njit(**FUSED)
def step_forward(i, f, g, o, before, c, h):
    """(2) to (6) of one step; what is a_t in i, f, g, o becomes the gates where it stands."""
    on_whole_vectors()
    # (2) i_t = σ(aⁱ_t),  f_t = σ(aᶠ_t + φ); φ is in the bias
    for j in range(len(h)):
        i[j] = sigmoid(i[j])
    for j in range(len(h)):
        f[j] = sigmoid(f[j])
    # (3) g_t = tanh(aᵍ_t)
    for j in range(len(h)):
        g[j] = tanh(g[j])
    # (4) c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    for j in range(len(h)):
        c[j] = f[j] * before[j] + i[j] * g[j]
    # (5) o_t = σ(aᵒ_t)
    for j in range(len(h)):
        o[j] = sigmoid(o[j])
    # (6) h_t = o_t ⊙ tanh(c_t)
    for j in range(len(h)):
        h[j] = o[j] * tanh(c[j])


@njit(**FUSED)
def step_backward(i, f, g, o, before, c, dh, dc, d_i, d_f, d_g, d_o):
    """(9) to (12) of one step.

    What is in dc is ∂c_t but for its share of ∂h_t, and then ∂c_t ⊙ f_t. Where δᵍ_t will be is
    tanh(c_t) on the way.
    """
    on_whole_vectors()
    one = like(1.0, c[0])
    tanh_c = d_g
    for j in range(len(c)):
        tanh_c[j] = tanh(c[j])
    # (9) δᵒ_t = ∂h_t ⊙ tanh(c_t) ⊙ σ′(o_t)
    for j in range(len(c)):
        d_o[j] = dh[j] * tanh_c[j] * (o[j] * (one - o[j]))
    # (10) ∂c_t = ∂L/∂c_t + ∂h_t ⊙ o_t ⊙ tanh′(c_t) + ∂c_{t+1} ⊙ f_{t+1}
    for j in range(len(c)):
        dc[j] += dh[j] * o[j] * ((one - tanh_c[j]) * (one + tanh_c[j]))
    # (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t)
    for j in range(len(c)):
        d_i[j] = dc[j] * g[j] * (i[j] * (one - i[j]))
    for j in range(len(c)):
        d_f[j] = dc[j] * before[j] * (f[j] * (one - f[j]))
    # (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t)
    for j in range(len(c)):
        d_g[j] = dc[j] * i[j] * ((one - g[j]) * (one + g[j]))
    # (10) what goes on to step t - 1
    for j in range(len(c)):
        dc[j] *= f[j]


@njit(**PLAIN)
def forward_chunk(given, start, weights, own, kept, sizes, first_b, n):
    """(1) to (6) for n sequences of the batch."""
    T, B, H, most, tall = sizes
    (h0, c0), (Ut, Wt, b), (gates, all_h, all_c) = start, weights, kept
    row = len(b) // 4
    steps, step = min(T, max(1, most // n)), n * row
    apart = steps * step
    a = np.zeros(4 * apart, all_h.dtype)
    i, f, g, o = a[:apart], a[apart : 2 * apart], a[2 * apart : 3 * apart], a[3 * apart :]
    h = np.zeros(apart + step, all_h.dtype)  # of the step before the block too
    c = np.zeros(apart + step, all_h.dtype)
    scratch = np.zeros(steps * n * columns(all_h, given.D), all_h.dtype)
    take(h0, 0, 1, B, first_b, n, H, h, 0, row)
    take(c0, 0, 1, B, first_b, n, H, c, 0, row)
    for t in range(0, T, steps):
        last = min(T, t + steps)
        # (1) U x_t + b, for all steps of the block
        project(given, Ut, b, row, t, last, B, first_b, n, scratch, a)
        for k in range(last - t):
            now, then, after = k * step, (k + 1) * step, (k + 2) * step
            # (1) … + W h_{t-1}
            onto(h, now, row, H, Wt, a, now, apart, 4, row, n, tall, True)
            step_forward(
                i[now:then], f[now:then], g[now:then], o[now:then],
                c[now:then], c[then:after], h[then:after],
            )  # fmt: skip
        put_parts(a, row, gates, t, last, B, first_b, n, 4, H)
        put(h, step, row, all_h, t, last, B, first_b, n, H)
        put(c, step, row, all_c, t, last, B, first_b, n, H)
        end = (last - t) * step
        carry_over(h, end, 0, step)
        carry_over(c, end, 0, step)


@njit(**PLAIN)
def backward_chunk(
    given, start, kept, weights, own, head, each, beyond,
    sums, dx, dstart, taps, sizes, first_b, n,
):  # fmt: skip
    """(8) to (17) for n sequences of the batch, and the readout before it where there is one."""
    T, B, H, most, tall = sizes
    (h0, c0), (gates, all_h, all_c), (U, W) = start, kept, weights
    (given_h, given_c), (dlast_h, dlast_c) = each, beyond
    (dU, dW, db), (dh0, dc0), (delta,) = sums, dstart, taps
    row = len(db) // 4
    steps, step = min(T, max(1, most // n)), n * row
    apart = steps * step
    h, c = np.zeros(apart + step, all_h.dtype), np.zeros(apart + step, all_h.dtype)
    a, d = np.zeros(4 * apart, all_h.dtype), np.zeros(4 * apart, all_h.dtype)
    i, f, g, o = a[:apart], a[apart : 2 * apart], a[2 * apart : 3 * apart], a[3 * apart :]
    d_i, d_f = d[:apart], d[apart : 2 * apart]
    d_g, d_o = d[2 * apart : 3 * apart], d[3 * apart :]
    dh = np.zeros(apart, all_h.dtype)
    each_dc = np.zeros(apart if len(given_c) else 0, all_h.dtype)
    scratch = np.zeros(steps * n * columns(all_h, given.D), all_h.dtype)
    carried, dc = np.zeros(step, all_h.dtype), np.zeros(step, all_h.dtype)
    loss = 0.0
    # (8), (10) what reaches the last states from beyond the last step
    take(dlast_h, 0, 1, B, first_b, n, H, carried, 0, row)
    take(dlast_c, 0, 1, B, first_b, n, H, dc, 0, row)
    for t in range((T - 1) // steps * steps, -1, -steps):
        last = min(T, t + steps)
        rows = (last - t) * n
        take_parts(gates, t, last, B, first_b, n, 4, H, a, row)
        take_from_before(h0, all_h, t, last, B, first_b, n, H, h, row)
        take_from_before(c0, all_c, t, last, B, first_b, n, H, c, row)
        if head is not None:
            loss += read_out(head, h, step, row, H, t, last, B, first_b, n, dh)
        else:
            take(given_h, t, last, B, first_b, n, H, dh, 0, row)
        if len(given_c):
            take(given_c, t, last, B, first_b, n, H, each_dc, 0, row)
        for k in range(last - t - 1, -1, -1):
            now, then, after = k * step, (k + 1) * step, (k + 2) * step
            # (8) ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1}
            add_to(dh[now:then], carried)
            # (10) ∂L/∂c_t + ∂c_{t+1} ⊙ f_{t+1}
            if len(given_c):
                add_to(dc, each_dc[now:then])
            step_backward(
                i[now:then], f[now:then], g[now:then], o[now:then],
                c[now:then], c[then:after], dh[now:then], dc,
                d_i[now:then], d_f[now:then], d_g[now:then], d_o[now:then],
            )  # fmt: skip
            back_from(d, now, apart, 4, H, row, W, carried, 0, row, n, tall, False)
        # (13) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ
        gather(d, apart, 4, H, row, h, 0, row, dW, 0, rows)
        # (14) and (17) for the input: ∂L/∂U, ∂L/∂b, ∂L/∂x_t
        collect(given, U, d, H, row, t, last, B, first_b, n, scratch, dU, db, dx)
        if len(delta):
            put_parts(d, row, delta, t, last, B, first_b, n, 4, H)
    # (17) ∂L/∂h_0 = Wᵀ δ_1,  ∂L/∂c_0 = ∂c_1 ⊙ f_1
    put(carried, 0, row, dh0, 0, 1, B, first_b, n, H)
    put(dc, 0, row, dc0, 0, 1, B, first_b, n, H)
    return loss


@njit(**PLAIN)
def there_and_back(given, start, weights, own, kept, above, sums, dx, dstart, sizes, first_b, n):
    """(1) to (17) for n sequences of the batch, the weights made ready for them alone."""
    go = ready_to_go(given, weights, 4, sizes)
    forward_chunk(given, start, go, own, kept, sizes, first_b, n)
    back = ready_to_return(given, weights, 4, sizes)
    none, zero = kept[0][:0], np.zeros_like(start[0])
    return backward_chunk(
        given, start, kept, back, own, head_of(above), (none, none), (zero, zero),
        sums, dx, dstart, (none,), sizes, first_b, n,
    )  # fmt: skip


class LongShortTerm(Layer):
    """The LSTM on a batch; φ is added to the bias."""

    def __init__(self, params: lstm.Params, cache: lstm.Cache, offset: float = 0.0) -> None:
        b = params.b
        if offset:
            H = cache.sizes["H"]
            b = bias(b, 4 * H, params.W).copy()
            b[H : 2 * H] += offset
        start, kept = (cache.h0, cache.c0), (cache.gates, cache.h, cache.c)
        super().__init__(params, cache, 4, b=b, start=start, kept=kept)

    @property
    def ways(self) -> Ways:
        """Equations (1) to (17)."""
        return Ways(forward_chunk, backward_chunk, there_and_back)

    def outputs(self) -> Sequence[Array]:
        """All states, the output first."""
        return self.cache.h, self.cache.c

    def grads(self, parts: Sequence[Sums]) -> lstm.Grads:
        """What the threads found, put together."""
        x, h0, c0, gates = self.cache[:4]
        dU, dW, db = self.whole(*total(parts))
        return lstm.Grads(
            U=dU,
            W=dW,
            b=db,
            p=None,
            P=None,
            x=self.dx.reshape(x.shape),
            h0=self.dstart[0].reshape(h0.shape),
            c0=self.dstart[1].reshape(c0.shape),
            delta=tap(self.taps[0], gates),
        )


def layer(
    params: lstm.Params,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    forget_offset: float = 0.0,
) -> LongShortTerm:
    """The layer on a batch, its states still to be computed; arguments as in `forward`."""
    sizes, params, x, h0, c0, offset = lstm._opened(params, x, h0, c0, forget_offset)
    if params.p is not None or params.P is not None:
        raise ValueError("params: expected no peepholes and no projection, got some")
    T, B, H = (sizes[letter] for letter in "TBH")
    gates, h, c = (np.empty((T, B, n * H), h0.dtype) for n in (4, 1, 1))
    return LongShortTerm(params, lstm.Cache(x, h0, c0, gates, h, c, sizes, "numba"), offset)


def forward(
    params: lstm.Params,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    forget_offset: float = 0.0,
) -> tuple[lstm.States, lstm.Cache]:
    """Equations (1) to (6), as `manual_bptt.lstm.forward`."""
    cache: lstm.Cache = layer(params, x, h0, c0, forget_offset=forget_offset).run_forward()
    return lstm.States(cache.h, cache.c), cache


def backward(
    params: lstm.Params,
    cache: lstm.Cache,
    dstates: lstm.States,
    dlast: lstm.States | None = None,
) -> lstm.Grads:
    """Equations (8) to (17), as `manual_bptt.lstm.backward`."""
    params, each, last = lstm._opened_backward(params, cache, dstates, dlast)
    grads: lstm.Grads = LongShortTerm(params, cache).run_backward(each, last)
    return grads
