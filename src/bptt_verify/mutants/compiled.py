"""Wrong backwards for the compiled layers: what goes wrong between blocks, threads and rows.

Of a mistake in the equations the readable modules have their own. Only the way back is compiled
anew, without a cache on disk; the way forward is the right one. The pairs have their work cut
finely, so that small cases have several blocks and parts of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType

from bptt_verify.mutants.mutant import Mutant
from bptt_verify.pair import Pair
from bptt_verify.pairs.compiled import CELLS, finely
from manual_bptt.compiled import gru, gru_before, lstm, rnn

LAYERS = {"rnn-numba": rnn, "lstm-numba": lstm, "gru-numba": gru, "gru-before-numba": gru_before}

MACHINE = "from manual_bptt.compiled.machine import "
"""So begins the line that says how a layer is compiled."""

# The lines that are right in several of these modules.
PER_PART = "for t in range((T - 1) // steps * steps, -1, -steps):"


def _mutants(pair: str, *given: tuple[str, str, Mapping[str, str]]) -> tuple[Mutant, ...]:
    layer = LAYERS[pair]
    lines = inspect.getsource(layer).splitlines(keepends=True)
    (imported,) = (line for line in lines if line.startswith(MACHINE))
    how = (name for name in ("FUSED", "PLAIN") if name in imported)
    uncached = "".join(f'{name} = {{**{name}, "cache": False}}\n' for name in how)

    def build(changed: ModuleType) -> Pair:
        changed.__dict__["forward_chunk"] = layer.forward_chunk
        return finely(CELLS[pair].pair(changed))

    return tuple(
        Mutant(
            name=f"{pair}-{name}",
            what=what,
            source="textbook",
            changes={**changes, imported: imported + uncached},
            layer=layer,
            build=build,
        )
        for name, what, changes in given
    )


RNN = _mutants(
    "rnn-numba",
    (
        "dlast-dropped",
        "the cotangent of the last state is left out",
        {"    take(dlast, 0, 1, B, first_b, n, H, carried, 0, row)\n": ""},
    ),
    (
        "blocks-from-the-end",
        "the first steps are no whole block, and left out",
        {PER_PART: "for t in range(T - steps, -1, -steps):"},
    ),
    (
        "before-a-block",
        "the state before the first step of a block is that of the block before it",
        {
            "take_from_before(s0, states, t, last, B, first_b, n, H, s, row)": (
                "take(states, t, last, B, first_b, n, H, s, step, row)"
            )
        },
    ),
    (
        "slope-before",
        "f′ of the state before",
        {"reach_through(f, s[then : then + step],": "reach_through(f, s[now:then],"},
    ),
    (
        "carried-twice",
        "what goes on to step t - 1 is added to what came to step t",
        {"n, row, H, tall, False)": "n, row, H, tall, True)"},
    ),
    (
        "carried-from-the-first",
        "what goes on is that of the first step of the block",
        {"product(d, now, row, 1, W,": "product(d, 0, row, 1, W,"},
    ),
    (
        "dW-after",
        "s_t in ∂L/∂W where s_{t-1} is meant",
        {"product(d, 0, 1, row, s, 0, row, dW": "product(d, 0, 1, row, s, step, row, dW"},
    ),
    (
        "dW-of-the-first-block",
        "the sum of a block takes the place of those of later ones",
        {"H, row, rows, TALLEST, True)": "H, row, rows, TALLEST, False)"},
    ),
    (
        "dW-without-the-last",
        "the last step of a block is missing in ∂L/∂W",
        {"dW, 0, row, H, row, rows, TALLEST": "dW, 0, row, H, row, rows - n, TALLEST"},
    ),
    (
        "ds0-of-the-first",
        "every thread writes its ∂L/∂s_0 where the first one's belongs",
        {"put(carried, 0, row, ds0, 0, 1, B, first_b,": "put(carried, 0, row, ds0, 0, 1, B, 0,"},
    ),
    (
        "cotangents-of-the-first-block",
        "every block takes the cotangents of the first one",
        {"take(dstates, t, last, B,": "take(dstates, 0, last - t, B,"},
    ),
    (
        "one-thread",
        "only what the first thread summed up counts",
        {"self.whole(*total(parts))": "self.whole(*total(parts[:1]))"},
    ),
)

LSTM = _mutants(
    "lstm-numba",
    (
        "dc-forgets-the-gate",
        "∂c_t goes on through the input gate, not the forget gate",
        {"dc[j] *= f[j]": "dc[j] *= i[j]"},
    ),
    (
        "dc-overwritten",
        "∂c_t is that from h_t alone",
        {"dc[j] += dh[j] * o[j]": "dc[j] = dh[j] * o[j]"},
    ),
    (
        "forget-gate-after",
        "δᶠ_t takes c_t where c_{t-1} is meant",
        {"d_f[j] = dc[j] * before[j]": "d_f[j] = dc[j] * c[j]"},
    ),
    (
        "dlast-of-c-dropped",
        "the cotangent of the last cell state is left out",
        {"    take(dlast_c, 0, 1, B, first_b, n, H, dc, 0, row)\n": ""},
    ),
    (
        "gates-in-another-order",
        "δⁱ_t and δᶠ_t stand in each other's place",
        {"d_i, d_f = d[:apart],": "d_f, d_i = d[:apart],"},
    ),
    (
        "without-the-output-gate",
        "Wᵀ δ_{t+1} lacks the last part of δ",
        {"back_from(d, now, apart, 4,": "back_from(d, now, apart, 3,"},
    ),
)

GRU = _mutants(
    "gru-numba",
    (
        "reset-missing",
        "ε_t without the reset gate",
        {"e_n[j] = r[j] * d_n[j]": "e_n[j] = d_n[j]"},
    ),
    (
        "carry-wiped",
        "z_t ⊙ ∂h_t is overwritten by Wᵀ ε_t",
        {
            "2, H, row, W, carried, 0, row, n, tall, True)": (
                "2, H, row, W, carried, 0, row, n, tall, False)"
            )
        },
    ),
    (
        "db_n-of-delta",
        "∂L/∂bⁿ is the sum of δ, not of ε",
        {"add_rows(e_n[: rows * row], db_n)": "add_rows(d_n[: rows * row], db_n)"},
    ),
    (
        "dW-of-delta",
        "∂L/∂W from δ, not from ε",
        {"gather(e_n, 0, 1, H,": "gather(d_n, 0, 1, H,"},
    ),
    (
        "update-gate-sign",
        "δᶻ_t with the wrong sign",
        {"d_z[j] = dh[j] * (before[j] - n[j])": "d_z[j] = dh[j] * (n[j] - before[j])"},
    ),
)

GRU_BEFORE = _mutants(
    "gru-before-numba",
    (
        "q-of-the-first-step",
        "q_t is made again at the first step of the block",
        {"d_r[now:then], q[now:then], carried,": "d_r[now:then], q[:step], carried,"},
    ),
    (
        "without-the-update-gate",
        "what goes on lacks Wᶻᵀ δᶻ_t",
        {"back_from(d, now, apart, 2,": "back_from(d, now, apart, 1,"},
    ),
    (
        "reset-gate-of-the-state",
        "δʳ_t takes ∂h_t where ∂q_t is meant",
        {"d_r[j] = dq[j] * before[j]": "d_r[j] = dh[j] * before[j]"},
    ),
)

MUTANTS = (*RNN, *LSTM, *GRU, *GRU_BEFORE)
