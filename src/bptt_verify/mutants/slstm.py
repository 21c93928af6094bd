"""Wrong backwards for the sLSTM, the minGRU and the minLSTM."""

from __future__ import annotations

from bptt_verify.mutants.mutant import Mutant
from bptt_verify.pairs import CELLS

# The lines of `manual_bptt.slstm` that are right.
D_O = "d_o[...] = dh_t * (all_c[t] / all_n[t]) * dsigmoid(o)"
DC_T = "dc_t = dc[t] + dc_next + dh_t * o / all_n[t]"
DN_T = "dn_t = dn[t] + dn_next - dh_t * all_h[t] / all_n[t]"
IOTA = "iota = (dc_t * g + dn_t) * i"
PHI = "phi = (dc_t * before_c[t] + dn_t * before_n[t]) * f"
DM_T = "dm_t = dm[t] + dm_next - iota - phi"
D_I = "d_i[...] = iota + np.where(kept[t], 0, dm_t)"
DL = "dl = phi + np.where(kept[t], dm_t, 0)"
D_F = "d_f[...] = dl * slope[t]"
DM_NEXT = "dm_next = dl"
DN_NEXT = "dn_next = dn_t * f"
# … and of `manual_bptt.mingru`
DH_NEXT = "dh_next = rest[t] * dh[t]"
D_Z = "d_z = dh * (g(a_n) - before) * z * rest"
D_N = "d_n = dh * z * dg(a_n)"
DG = "return np.where(v >= 0, v.dtype.type(1), dsigmoid(sigmoid(v)))"

# … and of `manual_bptt.minlstm`
DD = "dd = dh * (before - g(a_n)) * f * i"
D_FI = "d_f, d_i = dd * sigmoid(-a_f), -dd * sigmoid(-a_i)"
MIN_DH_NEXT = "dh_next = f[t] * dh[t]"
MIN_D_N = "d_n = dh * i * dg(a_n)"


def _mutant(cell: str, name: str, what: str, right: str, wrong: str) -> Mutant:
    entry = CELLS[cell]
    return Mutant(
        name=f"{cell}-{name}",
        what=what,
        source="textbook",
        changes={right: wrong},
        layer=entry.by_hand,
        build=entry.pair,
    )


MUTANTS = (
    _mutant(
        "slstm", "n-path-missing", "nothing goes back through n_t", DN_T, "dn_t = dn[t] + dn_next"
    ),
    _mutant(
        "slstm", "n-sign", "+ where - is meant in ∂n_t", DN_T, DN_T.replace("- dh_t", "+ dh_t")
    ),
    _mutant(
        "slstm",
        "c-for-h-in-n",
        "c_t where h_t is meant in ∂n_t",
        DN_T,
        DN_T.replace("all_h", "all_c"),
    ),
    _mutant(
        "slstm",
        "c-without-normaliser",
        "∂h_t ⊙ o_t without / n_t",
        DC_T,
        "dc_t = dc[t] + dc_next + dh_t * o",
    ),
    _mutant(
        "slstm",
        "o-without-normaliser",
        "δᵒ with c_t where c_t / n_t is meant",
        D_O,
        "d_o[...] = dh_t * all_c[t] * dsigmoid(o)",
    ),
    _mutant(
        "slstm",
        "i-as-sigmoid",
        "i_t (1 - i_t) where i_t is meant: the gate is an exponential",
        IOTA,
        f"{IOTA} * (1 - i)",
    ),
    _mutant(
        "slstm", "i-without-n", "the path of i_t into n_t is left out", IOTA, "iota = dc_t * g * i"
    ),
    _mutant(
        "slstm",
        "f-without-n",
        "the path of f_t into n_t is left out",
        PHI,
        "phi = dc_t * before_c[t] * f",
    ),
    _mutant(
        "slstm",
        "f-with-new-state",
        "n_t where n_{t-1} is meant",
        PHI,
        PHI.replace("before_n[t]", "all_n[t]"),
    ),
    _mutant(
        "slstm",
        "m-is-a-constant",
        "nothing goes back through the stabiliser, which matters where c_t or n_t is an output",
        DM_T,
        "dm_t = 0 * dm_next",
    ),
    _mutant("slstm", "m-cotangent-dropped", "∂L/∂m_t dropped", DM_T, "dm_t = dm_next - iota - phi"),
    _mutant("slstm", "m-carry-dropped", "∂m_{t+1} never goes back", DM_NEXT, "dm_next = 0 * dl"),
    _mutant(
        "slstm",
        "m-to-both",
        "∂m_t goes to both terms of the maximum",
        D_I,
        "d_i[...] = iota + dm_t",
    ),
    _mutant(
        "slstm",
        "m-to-neither",
        "∂m_t reaches the forget gate in no case",
        DL,
        "dl = phi + 0 * dm_t",
    ),
    _mutant(
        "slstm",
        "f-slope-missing",
        "σ(-aᶠ_t) missing: the gate is taken for an exponential",
        D_F,
        "d_f[...] = dl",
    ),
    _mutant(
        "slstm",
        "f-slope-as-sigmoid",
        "σ(aᶠ_t) where σ(-aᶠ_t) is meant",
        D_F,
        "d_f[...] = dl * (1 - slope[t])",
    ),
    _mutant(
        "slstm",
        "n-carry-without-f",
        "∂n_{t+1} goes back without f_{t+1}",
        DN_NEXT,
        "dn_next = dn_t",
    ),
    _mutant(
        "mingru", "carry-z", "z_{t+1} where 1 - z_{t+1} is meant", DH_NEXT, "dh_next = z[t] * dh[t]"
    ),
    _mutant(
        "mingru",
        "carry-from-outside-only",
        "∂L/∂h_{t+1} where ∂h_{t+1} is meant",
        DH_NEXT,
        "dh_next = rest[t] * dstates[t]",
    ),
    _mutant(
        "mingru", "z-sign", "h_{t-1} - n_t", D_Z, D_Z.replace("g(a_n) - before", "before - g(a_n)")
    ),
    _mutant(
        "mingru", "z-with-new-state", "h_t where h_{t-1} is meant", D_Z, D_Z.replace("before", "h")
    ),
    _mutant("mingru", "n-without-gate", "z_t missing in δⁿ", D_N, "d_n = dh * dg(a_n)"),
    _mutant(
        "mingru",
        "slope-of-sigmoid-everywhere",
        "σ′ also where aⁿ ≥ 0",
        DG,
        "return dsigmoid(sigmoid(v))",
    ),
    _mutant("mingru", "slope-one-everywhere", "1 also where aⁿ < 0", DG, "return np.ones_like(v)"),
    _mutant(
        "minlstm",
        "i-sign",
        "δⁱ without its minus: the gates add up to 1",
        D_FI,
        "d_f, d_i = dd * sigmoid(-a_f), dd * sigmoid(-a_i)",
    ),
    _mutant(
        "minlstm",
        "slope-of-log",
        "σ(a) where the slope of log σ is σ(-a)",
        D_FI,
        "d_f, d_i = dd * sigmoid(a_f), -dd * sigmoid(a_i)",
    ),
    _mutant(
        "minlstm",
        "gates-apart",
        "σ′ where the slope of log σ is meant: σ(a) too often",
        D_FI,
        "d_f, d_i = dd * sigmoid(a_f) * sigmoid(-a_f), -dd * sigmoid(a_i) * sigmoid(-a_i)",
    ),
    _mutant(
        "minlstm", "i-missing", "f where f ⊙ i is meant", DD, "dd = dh * (before - g(a_n)) * f"
    ),
    _mutant(
        "minlstm",
        "h-for-h-before",
        "h_t where h_{t-1} is meant",
        DD,
        DD.replace("before", "h"),
    ),
    _mutant("minlstm", "carry-by-i", "∂h goes back by i_t", MIN_DH_NEXT, "dh_next = i[t] * dh[t]"),
    _mutant("minlstm", "g-slope-missing", "g′ is missing", MIN_D_N, "d_n = dh * i"),
)
