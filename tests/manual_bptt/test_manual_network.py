"""Layers under the readout: the article's model is one of them; what is taken and refused."""

import numpy as np
import pytest

from manual_bptt import gru, lstm, model, network, readout, rnn, slstm, stack, training
from manual_bptt._tree import leaves
from manual_bptt.network import Network

T, B, D, H, C = 6, 3, 5, 4, 7


def drawn(cell, layers=1):
    rng = np.random.default_rng(0)
    params = network.init(rng, cell, D, H, C, layers=layers)
    x, targets = rng.integers(D, size=(T, B)), rng.integers(-1, C, size=(T, B))
    return params, x, targets


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("vectors", [False, True])
def test_one_recurrent_layer_is_the_articles_model(activation, vectors):
    params, x, targets = drawn(rnn)
    if vectors:
        x = np.random.default_rng(1).standard_normal((T, B, D))
    s0 = np.random.default_rng(2).standard_normal((B, H))
    net = Network(rnn, options={"activation": activation})
    loss, cache = network.forward(net, params, x, targets, [(s0,)])
    found = network.backward(net, params, cache, 0.5)
    (layer,), head = params
    whole = model.Params(layer.U, layer.W, head.V, layer.b, head.c)
    wanted, kept = model.forward(whole, x, targets, s0=s0, activation=activation)
    grads = model.backward(whole, kept, 0.5)
    assert loss == wanted
    np.testing.assert_array_equal(cache.states[0][0], kept.rnn.states)
    for name in ("U", "W", "b", "s0", "delta"):
        np.testing.assert_array_equal(getattr(found.layers[0], name), getattr(grads, name))
    for name in ("V", "c", "z"):
        np.testing.assert_array_equal(getattr(found.readout, name), getattr(grads, name))


@pytest.mark.parametrize("cell", [lstm, gru, slstm])
def test_class_indices_are_one_hot_vectors(cell):
    params, x, targets = drawn(cell, 2)
    net = Network(cell, residual=True)
    found = []
    for taken in (x, np.eye(D)[x]):
        loss, cache = network.forward(net, params, taken, targets)
        grads = network.backward(net, params, cache)
        found.append([loss, *(a for _, a in leaves(grads))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mask_counts_as_a_target_of_minus_one():
    params, x, targets = drawn(gru)
    mask = np.random.default_rng(3).random((T, B)) < 0.5
    loss, _ = network.forward(Network(gru), params, x, targets, mask=mask)
    wanted, _ = network.forward(Network(gru), params, x, np.where(mask, targets, -1))
    assert loss == wanted


def test_the_weights_are_counted():
    params, *_ = drawn(lstm, 2)
    lower, upper = 4 * H * (D + H + 1), 4 * H * (H + H + 1)
    assert network.count(params) == lower + upper + C * H + C


@pytest.mark.parametrize("step", [training.sgd, training.momentum, training.adam])
def test_nested_weights_are_updated_as_each_part_by_itself(step):
    params, x, targets = drawn(gru, 2)
    _, cache = network.forward(Network(gru), params, x, targets)
    grads = network.backward(Network(gru), params, cache)
    starts = {training.momentum: training.momentum_start, training.adam: training.adam_start}

    def updated(part, its_grads):
        if step is training.sgd:
            return training.sgd(part, its_grads, 0.1)
        state = starts[step](part)
        for _ in range(2):
            part, state = step(part, its_grads, state, 0.1)
        return part

    whole = updated(params, grads)
    assert type(whole) is network.Params
    assert type(whole.layers) is tuple
    parts = [*zip(params.layers, grads.layers, strict=True), (params.readout, grads.readout)]
    for got, (part, its_grads) in zip([*whole.layers, whole.readout], parts, strict=True):
        wanted = updated(part, its_grads)
        assert type(got) is type(wanted)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nested_gradients_are_clipped_by_their_common_norm():
    below, above = (
        rnn.Params(np.zeros((1, 1)), np.array([[3.0]])),
        readout.Params(np.array([[4.0]])),
    )
    params = network.Params((below,), above)
    clipped, norm = training.clip_norm(params, params, 2.5)
    assert norm == 5
    assert (clipped.layers[0].W, clipped.readout.V) == (1.5, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[0]]}, TypeError, "x: expected a numpy.ndarray, got list"),
        ({"x": np.full((T, B), D)}, ValueError, f"x: expected class indices from 0 to {D - 1}"),
        ({"x": np.ones((T, B, D + 1))}, ValueError, "x: expected shape (T, B, D)"),
        ({"targets": np.zeros((T, B + 1), int)}, ValueError, "targets: expected shape (T, B)"),
        ({"starts": []}, ValueError, "starts: expected 1 of them, got 0"),
        (
            {"params": readout.Params(np.ones((C, H)))},
            TypeError,
            "params: expected manual_bptt.net",
        ),
        ({"params": drawn(lstm)[0]}, TypeError, "params: expected manual_bptt.gru.Params"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    params, x, targets = drawn(gru)
    with pytest.raises(error) as raised:
        network.forward(Network(gru), **{"params": params, "x": x, "targets": targets, **change})
    assert message in str(raised.value)


def test_wrong_gradients_of_nested_weights_are_named():
    params, *_ = drawn(gru, 2)
    layer = params.layers[1]._replace(W=np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"grads.layers.1.W: expected shape \(12, 4\), got"):
        training.sgd(params, params._replace(layers=(params.layers[0], layer)), 0.1)
    with pytest.raises(TypeError, match=r"grads.layers.1.U: expected a numpy.ndarray, got None"):
        training.sgd(params, params._replace(layers=params.layers[:1]), 0.1)


def test_backward_wants_the_cache_of_a_network():
    params, *_ = drawn(gru)
    with pytest.raises(TypeError, match=r"cache: expected manual_bptt.network.Cache"):
        network.backward(Network(gru), params, stack.Cache([], [], [], False))
