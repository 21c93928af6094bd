"""Wrong backwards for the LSTM, with and without what is optional in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bptt_verify.mutants.mutant import Builder, Mutant
from bptt_verify.pairs import CELLS
from manual_bptt import lstm

# The lines of `manual_bptt.lstm` that are right.
DH = 'dh = shapes.cotangents("dstates.h", dh, "T B R", all_h)'
DC = 'dc = shapes.cotangents("dstates.c", dc, "T B H", all_c)'
LAST_H = 'dh_next = shapes.cotangents("dlast.h", last.h, "B R", h0)'
LAST_C = 'dc_next = shapes.cotangents("dlast.c", last.c, "B H", c0)'
BEFORE_H = "before_h = np.concatenate([h0[None], all_h[:-1]])"
BEFORE_C = "before_c = np.concatenate([c0[None], all_c[:-1]])"
TANH_C = "tanh_c = tanh(all_c[t])"
REACHED = "reached[t] = dh[t] + dh_next"
DM = "dm = reached[t] if P is None else reached[t] @ P"
D_O = "d_o[...] = dm * tanh_c * dsigmoid(o)"
DC_T = "dc_t = dc[t] + dc_next + dm * o * dtanh(tanh_c) + p_o * d_o"
D_I = "d_i[...] = dc_t * g * dsigmoid(i)"
D_F = "d_f[...] = dc_t * before_c[t] * dsigmoid(f)"
D_G = "d_g[...] = dc_t * i * dtanh(g)"
DH_NEXT = "dh_next = delta[t] @ W"
DC_NEXT = "dc_next = dc_t * f + p_i * d_i + p_f * d_f"
DW = "dW = flat(delta).T @ flat(before_h)"
DU = "dU = flat(delta).T @ flat(x)"
DB = "db = None if b is None else delta.sum(axis=(0, 1))"
M = "m = gates[..., -all_c.shape[-1] :] * tanh(all_c)"
DP = "dP = flat(reached).T @ flat(m)"
PEEPHOLES = "terms = np.concatenate([d_i * before_c, d_f * before_c, d_o * c], axis=-1)"
DX = "dx = (flat(delta) @ U).reshape(x.shape)"
RETURN = "return Grads(dU, dW, db, dp, dP, dx, dh_next, dc_next, delta)"
LOOP = "for t in reversed(range(len(delta))):"


def _mutant(
    name: str,
    what: str,
    source: str,
    changes: Mapping[str, str],
    *,
    build: Builder = CELLS["lstm"].pair,
) -> Mutant:
    return Mutant(
        name=f"lstm-{name}", what=what, source=source, changes=changes, layer=lstm, build=build
    )


_peephole = partial(_mutant, build=CELLS["lstm-peephole"].pair)
_projection = partial(_mutant, build=CELLS["lstm-projection"].pair)

MUTANTS = (
    # --- one gate
    _mutant(
        "i-for-g",
        "δⁱ with i_t where g_t is meant",
        "wvabrinskas/Neuron#181",
        {D_I: "d_i[...] = dc_t * i * dsigmoid(i)"},
    ),
    _mutant(
        "g-for-i",
        "δᵍ with g_t where i_t is meant",
        "textbook",
        {D_G: "d_g[...] = dc_t * g * dtanh(g)"},
    ),
    _mutant(
        "new-cell-in-forget-gate",
        "δᶠ with c_t where c_{t-1} is meant",
        "textbook",
        {D_F: "d_f[...] = dc_t * all_c[t] * dsigmoid(f)"},
    ),
    _mutant(
        "first-cell-in-forget-gate",
        "δᶠ with c_0 at every step",
        "lmnt-com/haste#43",
        {D_F: "d_f[...] = dc_t * c0 * dsigmoid(f)"},
    ),
    _mutant(
        "g-as-sigmoid",
        "σ′ where tanh′ is meant at the gate g",
        "jinzishuai/learn2deeplearn#44",
        {D_G: "d_g[...] = dc_t * i * dsigmoid(g)"},
    ),
    _mutant(
        "i-without-derivative",
        "σ′(i_t) missing",
        "jinzishuai/learn2deeplearn#44",
        {D_I: "d_i[...] = dc_t * g"},
    ),
    _mutant(
        "f-without-derivative",
        "σ′(f_t) missing",
        "jinzishuai/learn2deeplearn#44",
        {D_F: "d_f[...] = dc_t * before_c[t]"},
    ),
    _mutant(
        "o-without-derivative",
        "σ′(o_t) missing",
        "jinzishuai/learn2deeplearn#44",
        {D_O: "d_o[...] = dm * tanh_c"},
    ),
    _mutant(
        "g-without-derivative",
        "tanh′(g_t) missing",
        "textbook",
        {D_G: "d_g[...] = dc_t * i"},
    ),
    _mutant(
        "g-derivative-twice",
        "tanh′(g_t) applied twice",
        "wvabrinskas/Neuron#181",
        {D_G: "d_g[...] = dc_t * i * dtanh(g) * dtanh(g)"},
    ),
    _mutant(
        "derivative-of-another-gate",
        "σ′(f_t) where σ′(i_t) is meant",
        "textbook",
        {D_I: "d_i[...] = dc_t * g * dsigmoid(f)"},
    ),
    _mutant(
        "cell-itself-at-the-output",
        "δᵒ with c_t where tanh(c_t) is meant",
        "textbook",
        {D_O: "d_o[...] = dm * all_c[t] * dsigmoid(o)"},
    ),
    _mutant(
        "output-gate-without-what-is-carried",
        "δᵒ from ∂L/∂h_t alone",
        "qixianbiao/RNN#3",
        {D_O: "d_o[...] = dh[t] * tanh_c * dsigmoid(o)"},
    ),
    _mutant(
        "gates-exchanged",
        "δⁱ and δᶠ in each other's place",
        "textbook",
        {D_I: D_I.replace("d_i", "d_f"), D_F: D_F.replace("d_f", "d_i")},
    ),
    _mutant(
        "one-bias-for-three-gates",
        "∂L/∂b of f and o is that of i",
        "ddbourgin/numpy-ml#42",
        {
            DB: f"{DB}\n    H = all_c.shape[-1]\n"
            "    db[H : 2 * H] = db[:H]\n    db[3 * H :] = db[:H]"
        },
    ),
    # --- the cell
    _mutant(
        "tanh-missing",
        "tanh′(c_t) missing on the way into the cell",
        "d2l-ai/d2l-en#2616",
        {DC_T: DC_T.replace(" * dtanh(tanh_c)", "")},
    ),
    _mutant(
        "tanh-of-the-cell",
        "1 - c_t² where 1 - tanh²(c_t) is meant",
        "textbook",
        {DC_T: DC_T.replace("dtanh(tanh_c)", "dtanh(all_c[t])")},
    ),
    _mutant(
        "tanh-derivative-twice",
        "tanh′(c_t) applied twice",
        "wvabrinskas/Neuron#181",
        {DC_T: DC_T.replace("dtanh(tanh_c)", "dtanh(tanh_c) ** 2")},
    ),
    _mutant(
        "output-gate-missing",
        "o_t missing on the way into the cell",
        "textbook",
        {DC_T: DC_T.replace("dm * o *", "dm *")},
    ),
    _mutant(
        "cell-of-the-step-before",
        "tanh(c_{t-1}) where tanh(c_t) is meant",
        "textbook",
        {TANH_C: "tanh_c = tanh(before_c[t])"},
    ),
    _mutant(
        "cell-carry-dropped",
        "∂c_{t+1} never goes back",
        "FluxML/Flux.jl#1209",
        {DC_NEXT: "dc_next = 0 * dc_t"},
    ),
    _mutant(
        "cell-carry-unread",
        "what reaches the cell from later steps is left out",
        "qixianbiao/RNN#3",
        {DC_T: DC_T.replace(" + dc_next", "")},
    ),
    _mutant(
        "cell-carry-without-forget-gate",
        "∂c_{t+1} goes back without f_{t+1}",
        "textbook",
        {DC_NEXT: DC_NEXT.replace("dc_t * f", "dc_t")},
    ),
    _mutant(
        "cell-carry-of-the-wrong-gate",
        "i_{t+1} where f_{t+1} is meant",
        "textbook",
        {DC_NEXT: DC_NEXT.replace("dc_t * f", "dc_t * i")},
    ),
    _mutant(
        "cell-carry-from-the-gate-of-the-step-before",
        "f_t where f_{t+1} is meant",
        "textbook",
        {DC_NEXT: DC_NEXT.replace("dc_t * f", "dc_t * np.split(gates[t - 1], 4, axis=-1)[1]")},
    ),
    _mutant(
        "cell-carry-overwritten",
        "= where += is meant: ∂c_t is what this step's output makes of it",
        "tensorflow/swift-apis#518",
        {DC_T: DC_T.replace("dc_next", "dc_next * (t == len(delta) - 1)")},
    ),
    _mutant(
        "cell-reset-at-even-steps",
        "the carry of the cell starts from zero again at every even step",
        "ooples/AiDotNet#722",
        {DC_NEXT: f"{DC_NEXT}\n        dc_next = dc_next * (t % 2)"},
    ),
    # --- what is carried in the output
    _mutant(
        "output-carry-dropped",
        "Wᵀ δ_{t+1} never goes back",
        "qixianbiao/RNN#3",
        {DH_NEXT: "dh_next = 0 * dh_next"},
    ),
    _mutant(
        "output-carry-of-one-gate",
        "only the gate g goes back",
        "textbook",
        {DH_NEXT: "dh_next = d_g @ np.split(W, 4)[2]"},
    ),
    _mutant(
        "output-carry-untransposed",
        "each block of W is not transposed",
        "pytorch/pytorch#95137",
        {DH_NEXT: "dh_next = sum(d @ w.T for d, w in zip((d_i, d_f, d_g, d_o), np.split(W, 4)))"},
    ),
    _mutant(
        "output-carry-gates-in-another-order",
        "the blocks of W in the order i g f o",
        "textbook",
        {DH_NEXT: "dh_next = np.concatenate([d_i, d_g, d_f, d_o], axis=-1) @ W"},
    ),
    _mutant(
        "order-of-time",
        "from the first step to the last",
        "Theano/Theano#5439",
        {LOOP: "for t in range(len(delta)):"},
    ),
    # --- the cotangents
    _mutant(
        "dc-forced-to-zero",
        "the cotangents of the cells are taken for zero",
        "PaddlePaddle/Paddle#6970",
        {DC: f"{DC} * 0"},
    ),
    _mutant(
        "dc-last-dropped",
        "the last cell's own cotangent dropped",
        "deeplearning4j/deeplearning4j#8838",
        {LAST_C: "dc_next = np.zeros_like(c0)"},
    ),
    _mutant(
        "dh-last-dropped",
        "the last output's own cotangent dropped",
        "textbook",
        {LAST_H: "dh_next = np.zeros_like(h0)"},
    ),
    _mutant(
        "dc-last-without-dh-last",
        "the last cell's cotangent counts only beside one of the last output",
        "pytorch/pytorch#11872",
        {LAST_C: f"{LAST_C} * (last.h is not None)"},
    ),
    _mutant(
        "dh-a-step-late",
        "∂L/∂h_{t-1} where ∂L/∂h_t is meant",
        "textbook",
        {REACHED: "reached[t] = dh[t - 1] + dh_next"},
    ),
    # --- the sums over time
    _mutant(
        "new-output-in-dW",
        "h_t where h_{t-1} is meant",
        "wvabrinskas/Neuron#181",
        {DW: "dW = flat(delta).T @ flat(all_h)"},
    ),
    _mutant(
        "first-output-in-dW",
        "h_0 left out of ∂L/∂W",
        "textbook",
        {DW: "dW = flat(delta[1:]).T @ flat(before_h[1:])"},
    ),
    _mutant(
        "h0-taken-for-zero",
        "h_0 taken for zero in ∂L/∂W",
        "pytorch/pytorch#95137",
        {BEFORE_H: "before_h = np.concatenate([0 * h0[None], all_h[:-1]])"},
    ),
    _mutant(
        "c0-taken-for-zero",
        "c_0 taken for zero",
        "pytorch/pytorch#95137",
        {BEFORE_C: "before_c = np.concatenate([0 * c0[None], all_c[:-1]])"},
    ),
    _mutant(
        "dU-of-the-last-step",
        "= where += is meant over time in ∂L/∂U",
        "tensorflow/swift-apis#518",
        {DU: "dU = delta[0].T @ x[0]"},
    ),
    _mutant(
        "db-averaged",
        "a mean over the batch where a sum is meant",
        "textbook",
        {DB: "db = None if b is None else delta.sum(axis=0).mean(axis=0)"},
    ),
    _mutant(
        "dx-of-three-gates",
        "the gate o left out of ∂L/∂x",
        "textbook",
        {DX: "H3 = len(U) // 4 * 3\n    dx = (flat(delta)[:, :H3] @ U[:H3]).reshape(x.shape)"},
    ),
    _mutant(
        "initial-states-exchanged",
        "∂L/∂h_0 and ∂L/∂c_0 in each other's place",
        "FluxML/Flux.jl#2185",
        {RETURN: "return Grads(dU, dW, db, dp, dP, dx, dc_next, dh_next, delta)"},
    ),
    # --- peepholes
    _peephole(
        "peephole-o-from-the-step-before",
        "∂L/∂pᵒ with c_{t-1} where c_t is meant",
        "textbook",
        {PEEPHOLES: PEEPHOLES.replace("d_o * c]", "d_o * before_c]")},
    ),
    _peephole(
        "peephole-i-from-this-step",
        "∂L/∂pⁱ with c_t where c_{t-1} is meant",
        "textbook",
        {PEEPHOLES: PEEPHOLES.replace("d_i * before_c", "d_i * c")},
    ),
    _peephole(
        "peephole-o-not-into-the-cell",
        "pᵒ ⊙ δᵒ_t never reaches the cell",
        "textbook",
        {DC_T: DC_T.replace(" + p_o * d_o", "")},
    ),
    _peephole(
        "peepholes-not-carried",
        "pⁱ ⊙ δⁱ and pᶠ ⊙ δᶠ never go back to the cell before",
        "textbook",
        {DC_NEXT: "dc_next = dc_t * f"},
    ),
    _peephole(
        "peepholes-summed-over-the-batch-first",
        "the first sequence's δᶠ, broadcast over the batch, in what is carried",
        "tensorflow/tensorflow#34171",
        {DC_NEXT: DC_NEXT.replace("p_f * d_f", "p_f * d_f[:1]")},
    ),
    # --- projection
    _projection(
        "projection-of-what-comes-from-outside-only",
        "∂L/∂P with ∂L/∂h_t, not with all that reaches h_t",
        "textbook",
        {DP: "dP = flat(dh).T @ flat(m)"},
    ),
    _projection(
        "projection-of-the-cell",
        "∂L/∂P with o_t ⊙ c_t where m_t is meant",
        "textbook",
        {M: "m = gates[..., -all_c.shape[-1] :] * all_c"},
    ),
    _projection(
        "projection-untransposed-square",
        "P where Pᵀ is meant, only when R = H",
        "textbook",
        {DM: f"{DM}\n        dm = reached[t] @ P.T if len(P) == len(P.T) else dm"},
    ),
)
