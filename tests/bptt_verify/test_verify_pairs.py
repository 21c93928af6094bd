"""The main property: on every case, every quantity of the subject is what its twin says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verify import draw
from bptt_verify.judge import Judge
from bptt_verify.oracle import Oracle
from bptt_verify.pairs import REGISTRY, SHOWN_BY, model_pair
from bptt_verify.tolerance import multiplier

PAIRS = {**REGISTRY, "model-index": model_pair(indices=True)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_subject_and_twin_agree(name, dtype):
    pair = PAIRS[name]
    judge = Judge(pair, np.dtype(dtype))

    @given(st.data())
    def agrees(data):
        case = data.draw(draw.cases(pair))
        found = judge.one(case)
        if found is not None:
            assert {row: c.problem for row, c in found.items() if not c.ok} == {}
            assert set(pair.quantities()) <= set(found)

    agrees()


def test_every_equation_of_the_article_has_a_quantity():
    shown = {e.number for pair in REGISTRY.values() for e in pair.equations.values()}
    assert shown == set(range(1, 14))
    assert set(SHOWN_BY) == {
        q for name, pair in REGISTRY.items() if name != "update" for q in pair.quantities()
    }


@pytest.mark.parametrize("name", PAIRS)
def test_no_tap_is_left_unread_by_its_twin(name):
    pair = PAIRS[name]
    oracle = Oracle(pair, multiplier(np.dtype(np.float64)))
    case = draw.parse(pair, " ".join(f"{letter}=2" for letter in pair.letters()))
    oracle.answer(case, draw.realise(pair, case, np.dtype(np.float64)), np.dtype(np.float64))
    assert oracle.unread_taps == set()
