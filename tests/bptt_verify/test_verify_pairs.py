"""The main property: on every case, every quantity of the subject is what its twin says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verify import draw
from bptt_verify.judge import Judge
from bptt_verify.oracle import Oracle
from bptt_verify.pairs import ARTICLE, CELLS, REGISTRY, SHOWN_BY, model_pair
from bptt_verify.tolerance import multiplier

PAIRS = {**REGISTRY, "model-index": model_pair(indices=True)}
DRAWN = {**ARTICLE, "model-index": PAIRS["model-index"]}
"""The cells are drawn from by `bptt verify`, many side by side, which is quicker by far."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DRAWN)
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
    shown = {e.number for pair in ARTICLE.values() for e in pair.equations.values()}
    assert shown == set(range(1, 14))
    assert set(SHOWN_BY) == {
        q for name, pair in ARTICLE.items() if name != "update" for q in pair.quantities()
    }


@pytest.mark.parametrize("name", PAIRS)
def test_no_tap_is_left_unread_by_its_twin(name):
    pair = PAIRS[name]
    oracle = Oracle(pair, multiplier(np.dtype(np.float64)))
    case = draw.parse(pair, " ".join(f"{letter}=2" for letter in pair.letters()))
    oracle.answer(case, draw.realise(pair, case, np.dtype(np.float64)), np.dtype(np.float64))
    assert oracle.unread_taps == set()


@pytest.mark.parametrize("name", CELLS)
def test_the_equations_of_a_cell_are_those_of_its_file(name):
    cell = CELLS[name]
    pair = cell.pair()
    assert {e.of for e in pair.equations.values()} == {name}
    assert {e.number for e in pair.equations.values()} == set(cell.shown)
    for equation in pair.equations.values():
        first_line = equation.formula.split("  ")[0][:20]
        assert f"({equation.number})" in cell.by_hand.__doc__
        assert first_line in " ".join(cell.by_hand.__doc__.split())


@pytest.mark.parametrize("name", CELLS)
def test_both_sides_of_a_cell_state_the_same_forward_equations(name):
    cell = CELLS[name]
    stated = [
        {line.strip() for line in module.__doc__.splitlines() if line.startswith("    (")}
        for module in (cell.twin, cell.by_hand)
    ]
    assert stated[0] < stated[1]
