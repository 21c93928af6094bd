"""Wrong backwards on purpose: what a checker has to catch.

A mutant is a small textual change to a hand-written module, so that the reference itself stays
clean. Each cell has a catalogue of its own; one more cell is one more line here. Those of the
compiled layers are there where numba is installed.
"""

from importlib.util import find_spec

from bptt_verify.mutants import composed, gru, lstm, lstm_norm, rnn, slstm
from bptt_verify.mutants.mutant import Kill, Mutant, copied, kill, planted

CATALOGUE: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        *rnn.MUTANTS,
        *rnn.ON_INDICES,
        *rnn.HIDDEN,
        *lstm.MUTANTS,
        *gru.MUTANTS,
        *slstm.MUTANTS,
        *lstm_norm.MUTANTS,
        *composed.MUTANTS,
    )
}

if find_spec("numba") is not None:
    from bptt_verify.mutants.compiled import MUTANTS as COMPILED

    CATALOGUE |= {mutant.name: mutant for mutant in COMPILED}

__all__ = ["CATALOGUE", "Kill", "Mutant", "copied", "kill", "planted"]
