"""Every single sign, transpose and index of the hand-written layers matters to the verifier."""

import warnings

import pytest

from bptt_verify.pairs import readout_pair, rnn_pair
from manual_bptt import readout, rnn
from planting import caught_in, slips

LAYERS = {
    "rnn": (
        rnn,
        {"forward", "backward", "_project", "_dproject", "_is_indices", "_sequence"},
        lambda module: [rnn_pair(module), rnn_pair(module, indices=True)],
    ),
    "readout": (
        readout,
        {"forward", "backward", "_logits", "log_softmax"},
        lambda module: [readout_pair(module), readout_pair(module, probabilities=True)],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_no_slip_survives_fifty_cases(name):
    module, functions, pairs = LAYERS[name]
    tried, survived = 0, []
    for line, wrong in slips(module, functions):
        tried += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # wrong code may overflow
            if not any(caught_in(pair, "float64", 50) for pair in pairs(wrong)):
                survived.append(line)
    assert tried > 30
    assert survived == []
