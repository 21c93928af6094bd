"""Mistakes that really shipped, planted here, and where the verifier sees them.

Those of the recurrent layer stand in the catalogue of mutants, with their sources.
"""

import pytest

from bptt_verify import verify
from bptt_verify.mutants import CATALOGUE
from bptt_verify.pairs import readout_pair
from bptt_verify.properties import PROPERTIES
from manual_bptt import readout
from planting import caught_in, planted

LATER = {"dU", "dW", "db", "dx", "ds0", "delta"}  # what a wrong carry spoils

# mutant, the rows that have to fail
RNN = {
    "carry-dropped": LATER,
    "carry-untransposed": LATER,
    "ds0-slot": {"ds0"},
    "dW-last-step-only": {"dW"},
    "dlast-dropped": LATER | {"delta_T"},
    "dW-of-the-state-itself": {"dW"},
    "derivative-twice": LATER | {"delta_T"},
    "derivative-dropped": LATER | {"delta_T"},
    "dW-without-s0": {"dW"},
    "order-of-time": LATER | {"delta_T"},
    "window-from-the-last-state": LATER,
    "window-in-blocks": LATER,
    "db-zero": {"db"},
    "db-mean": {"db"},
    "dstates-in-place": {"inputs unchanged"},
}

# source, what is right, what was written, the rows that have to fail
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


def failing(pair):
    report = verify(pair, cases=60, explain=False)
    return {row.name for row in report.rows if row.verdict == "fail"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RNN)
def test_a_wrong_layer_is_caught(name, dtype):
    assert caught_in(CATALOGUE[name].pair(), dtype, 50)


@pytest.mark.parametrize("name", RNN)
def test_just_the_wrong_rows_of_the_layer_fail(name):
    pair = CATALOGUE[name].pair()
    assert failing(pair) - set(PROPERTIES) == RNN[name]


@pytest.mark.parametrize("name", READOUT)
def test_just_the_wrong_rows_of_the_readout_fail(name):
    right, wrong, rows = READOUT[name]
    pair = readout_pair(planted(readout, right, wrong))
    assert failing(pair) - set(PROPERTIES) == rows


def test_a_failure_shrinks_to_the_smallest_shape_and_its_line_reproduces_it():
    pair = CATALOGUE["carry-untransposed"].pair()
    first = verify(pair, cases=60).first_failure
    assert "T=2 B=1" in first.case or "T=1 B=1" in first.case  # ds0 needs one step, dU two
    assert "H=2" in first.case  # W and Wᵀ are the same at H = 1
    again = verify(pair, case=first.case)
    assert again.first_failure.problem == first.problem
    assert first.case in first.reproduce
