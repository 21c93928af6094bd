"""Mistakes that really shipped, planted here, and where the verifier sees them.

Each names its source: a public issue, or "textbook".
"""

import pytest

from bptt_verify import verify
from bptt_verify.pairs import readout_pair, rnn_pair
from manual_bptt import readout, rnn
from planting import caught_in, planted

CARRY = "carried = delta[t] @ W  # Wᵀ δ_t (B, H)"
ERROR = "delta[t] = (dstates[t] + carried) * f.df(states[t])  # (B, H)"
DW = "dW = flat(delta).T @ flat(before)  # (H, H)"

# source, what is right, what was written, the rows that have to fail
RNN = {
    "carry never goes back (FluxML/Flux.jl#1209, ooples/AiDotNet#722)": (
        CARRY,
        "carried = np.zeros_like(s0)",
        {"dU", "dW", "db", "dx", "ds0", "delta"},
    ),
    "∂L/∂s_0 from the wrong slot (FluxML/Flux.jl#2185)": (
        "ds0 = carried  # (B, H)",
        "ds0 = delta[0]",
        {"ds0"},
    ),
    "= for += over time (tensorflow/swift-apis#518)": (
        DW,
        "dW = delta[-1].T @ before[-1]",
        {"dW"},
    ),
    "last-state cotangent dropped (deeplearning4j/deeplearning4j#8838)": (
        "carried = dlast  # (B, H)",
        "carried = np.zeros_like(dlast)",
        {"dU", "dW", "db", "dx", "ds0", "delta", "delta_T"},
    ),
    "dW with s_t, not s_{t-1} (wvabrinskas/Neuron#181)": (
        DW,
        "dW = flat(delta).T @ flat(states)",
        {"dW"},
    ),
    "f′ applied twice (wvabrinskas/Neuron#181)": (
        ERROR,
        ERROR.replace("f.df(states[t])", "f.df(states[t]) ** 2"),
        {"dU", "dW", "db", "dx", "ds0", "delta", "delta_T"},
    ),
    "f′ dropped (d2l-ai/d2l-en#2616)": (
        ERROR,
        "delta[t] = dstates[t] + carried",
        {"dU", "dW", "db", "dx", "ds0", "delta", "delta_T"},
    ),
    "W where Wᵀ is meant (victorzhou, rnn-from-scratch)": (
        CARRY,
        "carried = delta[t] @ W.T",
        {"dU", "dW", "db", "dx", "ds0", "delta"},
    ),
    "initial-state term missing (fla-org/flash-linear-attention#1141)": (
        "before = np.concatenate([s0[None], states[:-1]])",
        "before = np.concatenate([np.zeros_like(s0[None]), states[:-1]])",
        {"dW"},
    ),
    "gradient at the wrong end of the sequence (Theano/Theano#5439)": (
        "for t in reversed(range(len(delta))):",
        "for t in range(len(delta)):",
        {"dU", "dW", "db", "dx", "ds0", "delta", "delta_T"},
    ),
    "only the last state counts (rsokl/MyGrad#4)": (
        ERROR,
        ERROR.replace("dstates[t]", "(t == len(delta) - 1) * dstates[t]"),
        {"dU", "dW", "db", "dx", "ds0", "delta"},
    ),
    "bias gradient all zeros (apache/mxnet#17818)": (
        "delta.sum(axis=(0, 1))  # (H,)",
        "np.zeros_like(b)",
        {"db"},
    ),
    "the cotangent overwritten (apache/mxnet#18203)": (
        "delta = np.empty_like(states)  # (T, B, H)",
        "delta = dstates",
        {"inputs unchanged"},
    ),
    "a window of three steps, unsaid (textbook)": (
        CARRY,
        "carried = (delta[t] @ W) * bool((len(delta) - t) % 3)",
        {"dU", "dW", "db", "dx", "ds0", "delta"},
    ),
    "mean for sum (textbook)": (
        "delta.sum(axis=(0, 1))  # (H,)",
        "delta.mean(axis=(0, 1))",
        {"db"},
    ),
}

READOUT = {
    "o aliased and modified (a widely copied gradient check)": (
        "dz = np.zeros_like(o)  # (T, B, C)",
        "dz = o",
        {"inputs unchanged", "delta_z", "dV", "dc", "ds"},
    ),
    "the target not subtracted (textbook)": (
        "dz[(*at, targets[at])] -= 1",
        "pass",
        {"delta_z", "dV", "dc", "ds"},
    ),
    "a masked step keeps its error (textbook)": (
        "at = np.nonzero(counts)\n    dz",
        "at = np.nonzero(counts | True)\n    dz",
        {"delta_z", "dV", "dc", "ds"},
    ),
    "bias gradient over steps only (textbook)": (
        "dz.sum(axis=(0, 1))",
        "dz.sum(axis=0)[0]",
        {"dc"},
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RNN)
def test_a_wrong_layer_is_caught(name, dtype):
    right, wrong, _ = RNN[name]
    assert caught_in(rnn_pair(planted(rnn, right, wrong)), dtype, 50)


@pytest.mark.parametrize("name", RNN)
def test_just_the_wrong_rows_of_the_layer_fail(name):
    right, wrong, rows = RNN[name]
    report = verify(rnn_pair(planted(rnn, right, wrong)), cases=60)
    assert {row.name for row in report.rows if row.verdict == "fail"} == rows


@pytest.mark.parametrize("name", READOUT)
def test_just_the_wrong_rows_of_the_readout_fail(name):
    right, wrong, rows = READOUT[name]
    report = verify(readout_pair(planted(readout, right, wrong)), cases=60)
    assert {row.name for row in report.rows if row.verdict == "fail"} == rows


def test_a_failure_shrinks_to_the_smallest_shape_and_its_line_reproduces_it():
    right, wrong, _ = RNN["W where Wᵀ is meant (victorzhou, rnn-from-scratch)"]
    pair = rnn_pair(planted(rnn, right, wrong))
    first = verify(pair, cases=60).first_failure
    assert "T=2 B=1" in first.case or "T=1 B=1" in first.case  # ds0 needs one step, dU two
    assert "H=2" in first.case  # W and Wᵀ are the same at H = 1
    again = verify(pair, case=first.case)
    assert again.first_failure.problem == first.problem
    assert first.case in first.reproduce
