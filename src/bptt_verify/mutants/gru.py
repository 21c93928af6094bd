"""Wrong backwards for the two GRUs."""

from __future__ import annotations

from collections.abc import Mapping

from bptt_verify.mutants.mutant import Mutant
from bptt_verify.pairs import CELLS
from manual_bptt import gru, gru_before

# The lines that are right in both modules.
LAST = 'dh_next = shapes.cotangents("dlast", dlast, "B H", h0)'
DSTATES = 'dstates = shapes.cotangents("dstates", dstates, "T B H", all_h)'
BEFORE = "before = np.concatenate([h0[None], all_h[:-1]])"
DH = "dh = dstates[t] + dh_next"
D_N = "d_n[...] = dh * (1 - z) * dtanh(n)"
D_Z = "d_z[...] = dh * (before[t] - n) * dsigmoid(z)"
DU = "dU = flat(delta).T @ flat(x)"
DB = "db = None if b is None else delta.sum(axis=(0, 1))"
DX = "dx = (flat(delta) @ U).reshape(x.shape)"
# … in `manual_bptt.gru`
D_R = "d_r[...] = d_n * q[t] * dsigmoid(r)"
EPSILON = "epsilon[t] = np.concatenate([d_r, d_z, r * d_n], axis=-1)"
NEXT = "dh_next = z * dh + epsilon[t] @ W"
DW = "dW = flat(epsilon).T @ flat(before)"
DB_N = "db_n = None if b_n is None else epsilon[..., -len(b_n) :].sum(axis=(0, 1))"
# … and in `manual_bptt.gru_before`
DQ = "dq = d_n @ W_n"
D_R_BEFORE = "d_r[...] = dq * before[t] * dsigmoid(r)"
NEXT_BEFORE = "dh_next = z * dh + r * dq + delta[t, :, : 2 * H] @ W_rz"
Q = "q = gates[..., :H] * before"
DW_N = "dW_n = flat(delta[..., 2 * H :]).T @ flat(q)"
DW_RZ = "dW_rz = flat(delta[..., : 2 * H]).T @ flat(before)"


def _after(name: str, what: str, source: str, changes: Mapping[str, str]) -> Mutant:
    return Mutant(
        name=f"gru-{name}",
        what=what,
        source=source,
        changes=changes,
        layer=gru,
        build=CELLS["gru"].pair,
    )


def _before(name: str, what: str, source: str, changes: Mapping[str, str]) -> Mutant:
    return Mutant(
        name=f"gru-before-{name}",
        what=what,
        source=source,
        changes=changes,
        layer=gru_before,
        build=CELLS["gru-before"].pair,
    )


MUTANTS = (
    # --- the gates
    _after(
        "z-for-1-z",
        "δⁿ with z_t where 1 - z_t is meant",
        "textbook",
        {D_N: "d_n[...] = dh * z * dtanh(n)"},
    ),
    _after(
        "n-without-derivative",
        "tanh′(n_t) missing",
        "d2l-ai/d2l-en#2616",
        {D_N: "d_n[...] = dh * (1 - z)"},
    ),
    _after(
        "n-derivative-twice",
        "tanh′(n_t) applied twice",
        "wvabrinskas/Neuron#181",
        {D_N: f"{D_N} * dtanh(n)"},
    ),
    _after(
        "z-sign",
        "δᶻ with n_t - h_{t-1}",
        "textbook",
        {D_Z: "d_z[...] = dh * (n - before[t]) * dsigmoid(z)"},
    ),
    _after(
        "z-without-state",
        "δᶻ without h_{t-1}",
        "textbook",
        {D_Z: "d_z[...] = dh * -n * dsigmoid(z)"},
    ),
    _after(
        "z-with-new-state",
        "δᶻ with h_t where h_{t-1} is meant",
        "textbook",
        {D_Z: D_Z.replace("before[t]", "all_h[t]")},
    ),
    _after(
        "z-without-derivative",
        "σ′(z_t) missing",
        "textbook",
        {D_Z: "d_z[...] = dh * (before[t] - n)"},
    ),
    _after("r-without-derivative", "σ′(r_t) missing", "textbook", {D_R: "d_r[...] = d_n * q[t]"}),
    _after(
        "r-with-state",
        "δʳ with h_{t-1} where Wⁿ h_{t-1} + bⁿ is meant",
        "textbook",
        {D_R: "d_r[...] = d_n * before[t] * dsigmoid(r)"},
    ),
    _after(
        "r-without-bias",
        "δʳ with Wⁿ h_{t-1}, without bⁿ",
        "ml-explore/mlx#3249",
        {D_R: "d_r[...] = d_n * (q[t] - (0 if b_n is None else b_n)) * dsigmoid(r)"},
    ),
    _after(
        "r-derivative-of-z",
        "σ′(z_t) where σ′(r_t) is meant",
        "textbook",
        {D_R: D_R.replace("dsigmoid(r)", "dsigmoid(z)")},
    ),
    # --- which of the two δ
    _after(
        "delta-for-epsilon-back",
        "δ_t where ε_t is meant in what is carried",
        "textbook",
        {NEXT: "dh_next = z * dh + delta[t] @ W"},
    ),
    _after(
        "delta-for-epsilon-in-dW",
        "δ_t where ε_t is meant in ∂L/∂W",
        "textbook",
        {DW: "dW = flat(delta).T @ flat(before)"},
    ),
    _after(
        "delta-for-epsilon-in-db_n",
        "δⁿ_t where εⁿ_t is meant in ∂L/∂bⁿ",
        "textbook",
        {DB_N: DB_N.replace("epsilon", "delta")},
    ),
    _after(
        "epsilon-for-delta-in-dU",
        "ε_t where δ_t is meant in ∂L/∂U",
        "textbook",
        {DU: "dU = flat(epsilon).T @ flat(x)"},
    ),
    _after(
        "epsilon-for-delta-in-dx",
        "ε_t where δ_t is meant in ∂L/∂x",
        "textbook",
        {DX: "dx = (flat(epsilon) @ U).reshape(x.shape)"},
    ),
    _after(
        "epsilon-for-delta-in-db",
        "ε_t where δ_t is meant in ∂L/∂b",
        "textbook",
        {DB: DB.replace("delta", "epsilon")},
    ),
    _after(
        "r-missing-in-epsilon",
        "r_t twice in εⁿ",
        "textbook",
        {EPSILON: EPSILON.replace("r * d_n", "r * r * d_n")},
    ),
    _after("db_n-zero", "∂L/∂bⁿ is zero", "apache/mxnet#17818", {DB_N: f"{DB_N} * 0"}),
    _after(
        "db_n-of-the-first-step-is-dropped",
        "the first step does not count in ∂L/∂bⁿ",
        "ml-explore/mlx#3249",
        {DB_N: DB_N.replace("epsilon[...", "epsilon[1:, ...")},
    ),
    # --- the carry
    _after(
        "carry-without-z",
        "z_{t+1} ⊙ ∂h_{t+1} missing",
        "textbook",
        {NEXT: "dh_next = epsilon[t] @ W"},
    ),
    _after(
        "carry-of-z-alone",
        "Wᵀ ε_{t+1} missing",
        "fla-org/flash-linear-attention#875",
        {NEXT: "dh_next = z * dh"},
    ),
    _after(
        "carry-1-z",
        "1 - z_{t+1} where z_{t+1} is meant",
        "textbook",
        {NEXT: NEXT.replace("z * dh", "(1 - z) * dh")},
    ),
    _after(
        "carry-from-outside-only",
        "z_{t+1} ⊙ ∂L/∂h_{t+1} where z_{t+1} ⊙ ∂h_{t+1} is meant",
        "qixianbiao/RNN#3",
        {NEXT: NEXT.replace("z * dh", "z * dstates[t]")},
    ),
    _after(
        "carry-untransposed",
        "each block of W is not transposed",
        "pytorch/pytorch#95137",
        {
            NEXT: "blocks = zip(np.split(epsilon[t], 3, axis=-1), np.split(W, 3))\n"
            "        dh_next = z * dh + sum(d @ w.T for d, w in blocks)"
        },
    ),
    _after(
        "carry-blocks-in-another-order",
        "the blocks of W in the order z r n",
        "textbook",
        {NEXT: "dh_next = z * dh + np.concatenate([d_z, d_r, r * d_n], axis=-1) @ W"},
    ),
    _after(
        "dlast-dropped",
        "the last state's own cotangent dropped",
        "deeplearning4j/deeplearning4j#8838",
        {LAST: "dh_next = np.zeros_like(h0)"},
    ),
    _after(
        "new-state-in-dW",
        "h_t where h_{t-1} is meant in ∂L/∂W",
        "wvabrinskas/Neuron#181",
        {DW: "dW = flat(epsilon).T @ flat(all_h)"},
    ),
    _after(
        "h0-taken-for-zero",
        "h_0 taken for zero",
        "pytorch/pytorch#95137",
        {BEFORE: "before = np.concatenate([0 * h0[None], all_h[:-1]])"},
    ),
    # --- the reset before the product
    _before(
        "reset-missing-back",
        "r_t missing in what is carried through q_t",
        "textbook",
        {NEXT_BEFORE: NEXT_BEFORE.replace("r * dq", "dq")},
    ),
    _before(
        "q-path-missing",
        "nothing is carried through q_t",
        "fla-org/flash-linear-attention#360",
        {NEXT_BEFORE: "dh_next = z * dh + delta[t, :, : 2 * H] @ W_rz"},
    ),
    _before(
        "gates-path-missing",
        "nothing is carried through r_t and z_t",
        "textbook",
        {NEXT_BEFORE: "dh_next = z * dh + r * dq"},
    ),
    _before(
        "state-for-q-in-dW",
        "∂L/∂Wⁿ with h_{t-1} where q_t is meant",
        "textbook",
        {DW_N: "dW_n = flat(delta[..., 2 * H :]).T @ flat(before)"},
    ),
    _before(
        "q-for-state-in-dW",
        "∂L/∂Wʳ and ∂L/∂Wᶻ with q_t where h_{t-1} is meant",
        "textbook",
        {DW_RZ: "dW_rz = flat(delta[..., : 2 * H]).T @ flat(gates[..., :H] * before)"},
    ),
    _before(
        "z-for-r-in-q",
        "q_t made again with z_t",
        "textbook",
        {Q: "q = gates[..., H : 2 * H] * before"},
    ),
    _before(
        "r-with-q",
        "δʳ with q_t where h_{t-1} is meant",
        "textbook",
        {D_R_BEFORE: "d_r[...] = dq * r * before[t] * dsigmoid(r)"},
    ),
    _before(
        "r-of-the-other-order",
        "δʳ with δⁿ where ∂q is meant",
        "textbook",
        {D_R_BEFORE: "d_r[...] = d_n * before[t] * dsigmoid(r)"},
    ),
    _before(
        "r-without-derivative",
        "σ′(r_t) missing",
        "textbook",
        {D_R_BEFORE: "d_r[...] = dq * before[t]"},
    ),
    _before(
        "W_n-untransposed",
        "Wⁿ where Wⁿᵀ is meant",
        "pytorch/pytorch#95137",
        {DQ: "dq = d_n @ W_n.T"},
    ),
    _before(
        "carry-without-z",
        "z_{t+1} ⊙ ∂h_{t+1} missing",
        "textbook",
        {NEXT_BEFORE: NEXT_BEFORE.replace("z * dh + ", "")},
    ),
    _before(
        "dstates-shifted",
        "∂L/∂h_{t-1} where ∂L/∂h_t is meant",
        "textbook",
        {DH: "dh = dstates[t - 1] + dh_next"},
    ),
)
