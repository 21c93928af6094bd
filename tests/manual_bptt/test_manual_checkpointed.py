"""Long sequences: schedules are as cheap as their formulas, and no schedule changes a bit."""

import tracemalloc
from functools import cache, partial
from math import ceil, isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import checkpointed, gru, gru_before, lstm, mingru, minlstm, rnn, schedules, slstm
from manual_bptt._cells import grouped, starts, tupled
from manual_bptt.schedules import Advance, Reverse, binomial, everything, uniform

CELLS = [rnn, lstm, gru, gru_before, mingru, minlstm, slstm]


@cache
def fewest(n, s):
    """By trying every middle: how often pieces run before they run to go back through them."""
    if n == 1:
        return 0
    if s == 1:
        return n * (n - 1) // 2
    return min(k + fewest(n - k, s - 1) + fewest(k, s) for k in range(1, n))


def played(schedule, n):
    """How often pieces run beforehand, how many states are kept at most, the longest whole run."""
    kept, behind, ran, most, whole = {0}, n, 0, 1, 0
    for action in schedule(n):
        assert action.first in kept
        assert action.first < action.behind <= n
        if isinstance(action, Advance):
            ran += action.behind - action.first
            kept.add(action.behind)
            most = max(most, len(kept))
        else:
            assert action.behind == behind
            behind = action.first
            whole = max(whole, action.behind - action.first)
            kept.remove(action.first)
    assert (kept, behind) == (set(), 0)
    return ran, most, whole


@given(st.integers(1, 70), st.integers(1, 8))
def test_binomial_runs_as_little_as_any_schedule_can(n, s):
    ran, most, whole = played(binomial(s), n)
    assert ran == fewest(n, s) == schedules.runs(n, s)
    assert most <= s + 1  # the states kept, and the one of the piece that is gone back through
    assert whole == 1


@given(st.integers(1, 5000))
def test_uniform_keeps_the_root_of_the_pieces(n):
    k = isqrt(n - 1) + 1
    ran, most, whole = played(uniform, n)
    assert whole == min(k, n)
    assert most == ceil(n / k)
    assert ran == (ceil(n / k) - 1) * k


def test_of_ten_thousand_pieces_twenty_states_make_each_run_four_times_more():
    ran, most, _ = played(binomial(20), 10_000)
    assert ran == schedules.runs(10_000, 20) < 4 * 10_000
    assert most == 21
    assert played(everything, 10_000) == (0, 1, 10_000)


def weighted(cell, T, B, N, dtype):
    """A loss of which each entry of each state has a share of its own."""
    rng = np.random.default_rng(1)
    shares = [rng.standard_normal((T, B, N)).astype(dtype) for _ in starts(cell)]

    def loss(first, states):
        each = tupled(states)
        parts = [w[first : first + len(each[0])] for w in shares]
        value = sum(float((s * w).sum()) for s, w in zip(each, parts, strict=True))
        return value, grouped(cell, parts)

    return loss, shares


def drawn(cell, T, B=2, D=3, N=4, dtype=np.float64):
    rng = np.random.default_rng(0)
    params = cell.init(rng, D, N, dtype=dtype)
    start = [rng.standard_normal((B, N)).astype(dtype) * 0.3 for _ in starts(cell)]
    if cell is slstm:
        start = []  # its normaliser starts where it has to
    return params, rng.standard_normal((T, B, D)).astype(dtype), start


def arrays(result):
    found = {f"params.{k}": v for k, v in result.params._asdict().items()}
    found |= {f"start[{i}]": v for i, v in enumerate(result.start)} | {"x": result.x}
    return {k: v for k, v in found.items() if v is not None}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_no_schedule_changes_a_bit(cell, dtype):
    T = 83
    params, x, start = drawn(cell, T, dtype=dtype)
    loss, _ = weighted(cell, T, 2, 4, dtype)

    def run(schedule):
        return checkpointed.loss_and_grads(
            cell, params, x, loss, *start, piece=8, schedule=schedule, inputs=True
        )

    stored = run(everything)
    for schedule in (uniform, binomial(1), binomial(2), binomial(5)):
        found = run(schedule)
        assert found.loss == stored.loss
        for name, a in arrays(stored).items():
            np.testing.assert_array_equal(arrays(found)[name], a, err_msg=name)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_in_one_piece_it_is_the_gradient_of_the_cell(cell):
    T = 9
    params, x, start = drawn(cell, T)
    loss, shares = weighted(cell, T, 2, 4, np.float64)
    found = checkpointed.loss_and_grads(cell, params, x, loss, *start, piece=T, inputs=True)
    states, kept = cell.forward(params, x, *start)
    expected = cell.backward(params, kept, grouped(cell, shares))
    assert found.loss == loss(0, states)[0]
    for name in cell.Params._fields:
        np.testing.assert_array_equal(getattr(found.params, name), getattr(expected, name))
    np.testing.assert_array_equal(found.x, expected.x)
    for name, a in zip(starts(cell), found.start, strict=True):
        np.testing.assert_array_equal(a, getattr(expected, name))


def test_class_indices_and_layers_without_bias():
    rng = np.random.default_rng(0)
    params = rnn.init(rng, 5, 4, bias=False)
    x = rng.integers(0, 5, (20, 3))
    loss, _ = weighted(rnn, 20, 3, 4, np.float64)
    found = checkpointed.loss_and_grads(rnn, params, x, loss, piece=6, activation="relu")
    assert found.params.b is None
    assert found.x is None
    with pytest.raises(ValueError, match="inputs: expected False for class indices, got True"):
        checkpointed.loss_and_grads(rnn, params, x, loss, inputs=True)


def test_each_piece_is_asked_for_its_loss_once():
    params, x, _ = drawn(rnn, 23)
    asked = []

    def loss(first, states):
        asked.append((first, len(states)))
        return 1.0, None

    found = checkpointed.loss_and_grads(rnn, params, x, loss, piece=5, schedule=binomial(2))
    assert asked == [(20, 3), (15, 5), (10, 5), (5, 5), (0, 5)]
    assert found.loss == 5.0


def peak(schedule, T, piece, N=32):
    """The most memory at once, in arrays of the states of a piece."""
    params, x, _ = drawn(rnn, T, B=1, D=2, N=N)
    zeros = np.zeros((piece, 1, N))
    tracemalloc.start()
    try:
        checkpointed.loss_and_grads(
            rnn, params, x, lambda _, s: (0.0, zeros[: len(s)]), piece=piece, schedule=schedule
        )
        return tracemalloc.get_traced_memory()[1] / zeros.nbytes
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_the_pieces_and_states_that_are_kept():
    piece, n = 64, 100
    one = peak(everything, piece, piece)  # a piece on its way back, and the weights
    for schedule, whole in ((everything, n), (uniform, 10), (binomial(6), 1)):
        _, kept, longest = played(schedule, n)
        assert longest == whole
        # what is kept is whole pieces, and states of one step; Python's own objects are small
        wanted = one + (whole - 1) + kept / piece
        assert 0.8 * wanted < peak(schedule, n * piece, piece) < 1.5 * wanted


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"cell": "rnn"}, TypeError, "cell: expected the module of a cell"),
        ({"piece": 0}, ValueError, "piece: expected at least 1, got 0"),
        ({"loss": 1.0}, TypeError, "loss: expected a function, got float"),
        ({"loss": lambda *_: 0.0}, TypeError, r"loss: expected \(loss of the piece, cotangents"),
        ({"schedule": 3}, TypeError, "schedule: expected a function, got int"),
        ({"schedule": lambda _: [(0, 3)]}, TypeError, "schedule: expected Advance or Reverse, got"),
        ({"schedule": lambda _: [Reverse(2, 1)]}, ValueError, "schedule: expected pieces of the f"),
        (
            {"schedule": lambda _: [Advance(0, 2), Reverse(2, 3), Advance(0, 3)]},
            ValueError,
            "schedule: expected pieces of the first 2, got Advance",
        ),
        ({"x": np.full((12, 2, 3), np.nan)}, ValueError, r"got nan at \(0, 0, 0\) of the piece fr"),
        ({"schedule": lambda _: [Reverse(1, 3)]}, ValueError, "schedule: expected one of the stat"),
        ({"schedule": lambda _: [Reverse(0, 2)]}, ValueError, "schedule: expected piece 2 next"),
        ({"schedule": lambda _: [Advance(0, 1)]}, ValueError, "schedule: expected all of 3 pieces"),
        ({"x": np.zeros((0, 2, 3))}, ValueError, "x: expected shape"),
        ({"x": [1.0]}, TypeError, "x: expected a numpy.ndarray"),
    ],
)
def test_errors_name_the_argument(changed, error, says):
    params, x, _ = drawn(rnn, 12)
    arguments = {"cell": rnn, "params": params, "x": x, "loss": lambda *_: (0.0, None), "piece": 4}
    arguments |= changed
    positional = [arguments.pop(k) for k in ("cell", "params", "x", "loss")]
    with pytest.raises(error, match=says):
        checkpointed.loss_and_grads(*positional, **arguments)


def test_a_state_that_leaves_the_range_is_said():
    params = rnn.Params(np.ones((1, 1)), np.full((1, 1), 1e200))
    x = np.ones((9, 1, 1))
    run = partial(checkpointed.loss_and_grads, rnn, params, x, lambda *_: (0.0, None))
    with np.errstate(over="ignore"), pytest.raises(OverflowError, match="float64 before step 4"):
        run(piece=4, activation="relu")


@pytest.mark.parametrize("function", [everything, uniform, binomial])
def test_schedules_are_of_at_least_one(function):
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        list(function(0))
    with pytest.raises(TypeError, match="expected an int, got float"):
        list(function(2.0))
