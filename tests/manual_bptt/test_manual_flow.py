"""How far the error travels: norms, Jacobians of single steps and what they are in plain cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import flow, gru, lstm, rnn
from manual_bptt.activations import ACTIVATIONS
from manual_bptt.stack import Layer

SIZES = {"hidden": 5, "seed": 3}
seeds = st.integers(0, 2**32 - 1)


def test_the_norm_of_a_known_error():
    delta = np.zeros((3, 4, 2))
    delta[0, 0] = 3, -4  # one of four sequences: half of the root mean square
    delta[1] = 3, -4
    assert flow.norms(delta).tolist() == [2.5, 5, 0]


@given(seed=seeds, power=st.integers(-1000, 1000))
def test_norms_neither_underflow_nor_overflow(seed, power):
    delta = np.random.default_rng(seed).uniform(1, 2, (4, 3, 2))
    assert (flow.norms(2.0**power * delta) == 2.0**power * flow.norms(delta)).all()


def test_an_error_beyond_the_range_is_infinite_and_stays_as_it_is():
    delta = np.ones((4, 2, 3))
    delta[1, 0, 0], delta[2, 1, 2] = -np.inf, np.nan
    before = delta.copy()
    assert flow.norms(delta).tolist() == [np.sqrt(3), np.inf, np.inf, np.sqrt(3)]
    assert np.array_equal(delta, before, equal_nan=True)


@pytest.mark.parametrize("layer", flow.LAYERS)
def test_error_norms_are_those_of_the_layers_own_delta(layer):
    (cell, params, options), x, dlast = flow.drawn(layer, 7, 1.5, batch=4, **SIZES)
    _, cache = cell.forward(params, x, **options)
    states = [cell.States(None, None), cell.States(dlast, None)] if cell is lstm else [None, dlast]
    delta = cell.backward(params, cache, *states).delta
    assert delta.shape == (7, 4, {rnn: 1, lstm: 4, gru: 3}[cell] * 5)
    found = flow.error_norms(layer, 7, 1.5, batch=4, **SIZES)
    assert found.tolist() == flow.norms(delta).tolist()


@pytest.mark.parametrize("layer", ACTIVATIONS)
def test_without_w_the_error_does_not_travel(layer):
    found = flow.error_norms(layer, 6, 0.0, **SIZES)
    assert (found[:-1] == 0).all()
    assert found[-1] > 0
    assert (flow.spectral_radii(layer, 6, 0.0, **SIZES) == 0).all()


def test_an_explosion_is_infinite():
    assert (flow.error_norms("relu", 800, 30.0, **SIZES) == np.inf).all()
    radii = flow.spectral_radii("relu", 800, 30.0, **SIZES)
    first = int(np.isnan(radii).argmax())
    assert 0 < first < 800
    assert np.isnan(radii[first:]).all()
    assert (radii[:first] > 1).any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_jacobian_of_the_recurrent_layer_is_diag_f_prime_w(activation):
    layer, x, _ = flow.drawn(activation, 6, 1.3, batch=2, **SIZES)
    before = np.random.default_rng(4).standard_normal((6, 2, 5))
    # each step by itself, from the state before it
    after = [rnn.forward(layer.params, x[t : t + 1], before[t], activation)[0][0] for t in range(6)]
    slopes = ACTIVATIONS[activation].df(np.stack(after))  # (T, B, H)
    J = flow.step_jacobians(layer, x, [before])
    assert J.shape == (6, 2, 5, 5)
    assert (slopes[..., None] * layer.params.W == J).all()
    assert (slopes > 0).any()


def test_where_relu_is_linear_the_jacobian_is_w():
    W = flow.drawn("relu", 1, 1.3, **SIZES).layer.params.W
    params = rnn.Params(np.zeros((5, 1)), W, np.full(5, 100.0))
    layer = Layer(rnn, params, {"activation": "relu"})
    J = flow.step_jacobians(layer, np.ones((3, 1, 1)), [np.ones((3, 1, 5))])
    assert (J == W).all()


def test_a_column_of_u_may_be_looked_up():
    layer, _, _ = flow.drawn("tanh", 1, **SIZES)
    indices, before = np.array([[0, 4], [2, 2]]), np.ones((2, 2, 5))
    J = flow.step_jacobians(layer, indices, [before])
    assert (flow.step_jacobians(layer, np.eye(5)[indices], [before]) == J).all()


def test_without_w_the_cell_of_the_lstm_is_carried_by_its_forget_gate():
    layer, x, _ = flow.drawn("lstm", 4, 0.0, batch=2, **SIZES)
    h, c = np.random.default_rng(5).standard_normal((2, 4, 2, 5))
    J = flow.step_jacobians(layer, x, [h, c])
    f = np.stack(
        [
            lstm.forward(layer.params, x[t : t + 1], h[t], c[t], forget_offset=1.0)[1].gates[0]
            for t in range(4)
        ]
    )[..., 5:10]
    assert J.shape == (4, 2, 10, 10)
    assert (J[..., 5:, 5:] == f[..., None] * np.eye(5)).all()  # ∂c_t/∂c_{t-1}
    assert (J[..., :5] == 0).all()  # nothing goes by way of h_{t-1}


@pytest.mark.parametrize("layer", flow.LAYERS)
def test_spectral_radii_are_of_the_steps_of_the_first_sequence(layer):
    drawn = flow.drawn(layer, 9, 1.3, **SIZES)
    (cell, params, options), x, _ = drawn
    states = cell.forward(params, x[:, :1], **options)[0]
    states = states if isinstance(states, tuple) else (states,)
    before = [np.concatenate([np.zeros_like(s[:1]), s[:-1]]) for s in states]
    J = [
        flow.step_jacobians(drawn.layer, x[t : t + 1, :1], [s[t : t + 1] for s in before])[0, 0]
        for t in range(9)
    ]
    radii = flow.spectral_radii(layer, 9, 1.3, **SIZES)
    assert radii.tolist() == [np.abs(np.linalg.eigvals(step)).max() for step in J]
    assert flow.spectral_radii(layer, 9, 1.3, **SIZES, every=4).tolist() == radii[::4].tolist()


@pytest.mark.parametrize(
    ("arguments", "given", "error", "message"),
    [
        (("lstn", 5), {}, ValueError, "layer: expected one of tanh, sigmoid, relu, lstm, gru, got"),
        ((lstm, 5), {}, TypeError, "layer: expected one of .*, got module"),
        (("tanh", 0), {}, ValueError, "steps: expected at least 1, got 0"),
        (("tanh", 5.0), {}, TypeError, "steps: expected an int, got float"),
        (("tanh", 5, -1), {}, ValueError, "scale: expected a finite number of at least 0, got -1"),
        (("tanh", 5, np.nan), {}, ValueError, "scale: expected a finite number"),
        (("tanh", 5), {"hidden": 0}, ValueError, "hidden: expected at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("function", [flow.error_norms, flow.spectral_radii, flow.drawn])
def test_what_cannot_be_drawn_is_named(function, arguments, given, error, message):
    with pytest.raises(error, match=message):
        function(*arguments, **given)


def test_other_doors():
    with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
        flow.error_norms("tanh", 5, batch=0)
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        flow.spectral_radii("tanh", 5, every=0)
    layer, x, _ = flow.drawn("lstm", 4, **SIZES)
    with pytest.raises(ValueError, match=r"before: expected 2 of them \(h, c\), got 1"):
        flow.step_jacobians(layer, x, [x])
