"""Wrong backwards for the LSTM with layer normalisation."""

from __future__ import annotations

from bptt_verify.mutants.mutant import Mutant
from bptt_verify.pairs import CELLS

CELL = CELLS["lstm-norm"]

# The lines that are right.
DN = (
    "return (d - d.mean(axis=-1, keepdims=True) - n * (d * n).mean(axis=-1, keepdims=True)) * scale"
)
D_Y = "dy[t] = dh_t * o * dtanh(tanh_y[t])"
DC_T = "dc_t = dc[t] + dc_next + dnormalise(r_t, gamma_c * dy[t])"
DQ = "dq[t] = dnormalise(q_t, gamma_h * delta[t])"
DH_NEXT = "dh_next = dq[t] @ W"
DP = "dp = dnormalise(p, gamma_x * delta)"
DW = "dW = flat(dq).T @ flat(before_h)"
DGAMMA_C = "dgamma_c, dbeta_c = (dy * r.n).sum(axis=(0, 1)), dy.sum(axis=(0, 1))"
DGAMMAS = "dgamma_x, dgamma_h = (delta * p.n).sum(axis=(0, 1)), (delta * q.n).sum(axis=(0, 1))"


def _mutant(name: str, what: str, right: str, wrong: str) -> Mutant:
    return Mutant(
        name=f"lstm-norm-{name}",
        what=what,
        source="textbook",
        changes={right: wrong},
        layer=CELL.by_hand,
        build=CELL.pair,
    )


MUTANTS = (
    _mutant(
        "mean-constant",
        "N′ with the mean taken for a constant",
        DN,
        "return (d - n * (d * n).mean(axis=-1, keepdims=True)) * scale",
    ),
    _mutant(
        "variance-constant",
        "N′ with the variance taken for a constant",
        DN,
        "return (d - d.mean(axis=-1, keepdims=True)) * scale",
    ),
    _mutant("scale-only", "N′ as a factor", DN, "return d * scale"),
    _mutant("scale-missing", "N′ without 1/√(var + ε)", DN, DN.removesuffix(" * scale")),
    _mutant(
        "sum-for-mean",
        "a sum where the mean of d ⊙ n is meant",
        DN,
        DN.replace("(d * n).mean", "(d * n).sum"),
    ),
    _mutant(
        "gamma-h-missing", "γʰ is missing on the way to h", DQ, "dq[t] = dnormalise(q_t, delta[t])"
    ),
    _mutant(
        "gamma-outside",
        "γʰ behind N′, not before",
        DQ,
        "dq[t] = gamma_h * dnormalise(q_t, delta[t])",
    ),
    _mutant(
        "carry-unnormalised",
        "h gets Wᵀ δ without N′",
        DH_NEXT,
        "dh_next = (gamma_h * delta[t]) @ W",
    ),
    _mutant("gamma-x-missing", "γˣ is missing on the way to x", DP, "dp = dnormalise(p, delta)"),
    _mutant(
        "p-for-q", "N′ at W h where it is meant at U x", DP, "dp = dnormalise(q, gamma_x * delta)"
    ),
    _mutant(
        "dw-unnormalised", "∂L/∂W from δ without N′", DW, "dW = flat(delta).T @ flat(before_h)"
    ),
    _mutant(
        "gamma-c-missing",
        "γᶜ is missing on the way to c",
        DC_T,
        "dc_t = dc[t] + dc_next + dnormalise(r_t, dy[t])",
    ),
    _mutant("tanh-slope-missing", "tanh′ is missing at y", D_Y, "dy[t] = dh_t * o"),
    _mutant(
        "gamma-c-of-c",
        "∂L/∂γᶜ from c where N(c) is meant",
        DGAMMA_C,
        DGAMMA_C.replace("r.n", "all_c"),
    ),
    _mutant(
        "gammas-swapped",
        "∂L/∂γˣ and ∂L/∂γʰ exchanged",
        DGAMMAS,
        DGAMMAS.replace("dgamma_x, dgamma_h", "dgamma_h, dgamma_x"),
    ),
)
