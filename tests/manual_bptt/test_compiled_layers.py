import numpy as np
import pytest

from manual_bptt import engines, gru, gru_before, lstm, mingru, model, network, readout, rnn
from manual_bptt.activations import Activation
from manual_bptt.compiled import layer, threads

# That the compiled gradients are right is for tests/bptt_verify/test_verify_engines.py; here is
# what else they promise.

CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_before": gru_before}
T, B, D, H, C = 7, 5, 3, 4, 6


@pytest.fixture(autouse=True)
def threads_as_before():
    before = threads._count
    yield
    threads.use(before)


def draw(cell, dtype=np.float32, sizes=(T, B, D, H)):
    rng = np.random.default_rng(0)
    T, B, D, H = sizes
    params = cell.init(rng, D, H, dtype=dtype)
    x = rng.standard_normal((T, B, D)).astype(dtype)
    return params, x, rng.standard_normal((T, B, H)).astype(dtype)


def run(cell, params, x, dh, engine="numba"):
    states, cache = cell.forward(params, x, engine=engine)
    return states, cell.backward(params, cache, lstm.States(dh, dh) if cell is lstm else dh)


def arrays(found):
    return [a for a in found if a is not None]


def same(one, other):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fixed_number_of_threads_gives_the_same_bits(cell, count, monkeypatch):
    monkeypatch.setattr(threads, "WORTH_IT", 1)
    threads.use(count)
    given = draw(cell)
    same(run(cell, *given)[1], run(cell, *given)[1])


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_states_and_what_belongs_to_one_sequence_do_not_depend_on_the_threads(cell, monkeypatch):
    monkeypatch.setattr(threads, "WORTH_IT", 1)
    given = draw(cell)
    threads.use(1)
    states, grads = run(cell, *given)
    threads.use(3)
    more_states, more = run(cell, *given)
    same(np.atleast_1d(states), np.atleast_1d(more_states))
    assert np.array_equal(grads.x, more.x)
    assert np.array_equal(grads.delta, more.delta)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_steps_beyond_a_block_go_on_where_it_ended(cell):
    params, x, dh = draw(cell, np.float64, (600, 2, D, H))
    states, grads = run(cell, params, x, dh)
    right, expected = run(cell, params, x, dh, engine="numpy")
    # only to see that no block is lost; the verifier has the right tolerance
    for a, b in zip(arrays(grads), arrays(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.asarray(states), np.asarray(right), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_inputs_stay_as_they_are_and_states_cannot_be_changed(cell):
    params, x, dh = draw(cell)
    before = [a.copy() for a in (*arrays(params), x, dh)]
    states, _ = run(cell, params, x, dh)
    same(before, (*arrays(params), x, dh))
    output = states[0] if cell is lstm else states
    assert not output.flags.writeable


@pytest.mark.parametrize("name", CELLS)
def test_for_arrays_that_cannot_be_changed_nothing_is_compiled_anew(name):
    cell, layer_of = CELLS[name], engines.module("numba", name)
    ways = layer_of.forward_chunk, layer_of.backward_chunk, layer_of.there_and_back
    params, x, dh = draw(cell)
    above = readout.init(np.random.default_rng(0), H, C, dtype=np.float32)
    targets = np.zeros((T, B), int)

    def both():
        whole = network.Params((params,), above)
        _, g = network.loss_and_grads(network.Network(cell), whole, x, targets, engine="numba")
        return *run(cell, params, x, dh)[1], g.layers[0].U, g.layers[0].W, g.readout.V

    expected = both()
    compiled = [len(f.signatures) for f in ways]
    for a in (*arrays(params), *arrays(above), x, dh, targets):
        a.flags.writeable = False
    same(both(), expected)
    assert [len(f.signatures) for f in ways] == compiled


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_cache_says_which_engine_made_it(cell):
    params, x, _ = draw(cell)
    for engine in engines.ENGINES:
        _, cache = cell.forward(params, x, engine=engine)
        assert cache.engine == engine


def test_the_preferred_engine_is_taken_where_none_is_named():
    params, x, _ = draw(rnn)
    assert rnn.forward(params, x)[1].engine == "numpy"
    engines.prefer("numba")
    try:
        assert rnn.forward(params, x)[1].engine == "numba"
        engines.prefer(None)
        assert rnn.forward(params, x)[1].engine == "numba"
        own = Activation("own", np.tanh, lambda s: 1 - s * s)
        assert rnn.forward(params, x, activation=own)[1].engine == "numpy"
    finally:
        engines.prefer("numpy")


def test_what_is_not_compiled_is_said():
    params, x, _ = draw(rnn)
    own = Activation("own", np.tanh, lambda s: 1 - s * s)
    with pytest.raises(ValueError, match=r"engine: expected .* for an activation of one's own"):
        rnn.forward(params, x, activation=own, engine="numba")
    peephole = lstm.init(np.random.default_rng(0), D, H, peepholes=True, dtype=np.float32)
    with pytest.raises(ValueError, match=r"engine: expected .* for peepholes or a projection"):
        lstm.forward(peephole, x, engine="numba")
    with pytest.raises(ValueError, match="engine: expected one of numpy, numba, jax or "):
        rnn.forward(params, x, engine="C")
    cell = network.init(np.random.default_rng(0), mingru, D, H, C, dtype=np.float32)
    targets = np.zeros((T, B), int)
    with pytest.raises(ValueError, match=r"engine: expected .* for the cell mingru"):
        network.loss_and_grads(network.Network(mingru), cell, x, targets, engine="numba")


def test_without_numba_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda _: False)
    params, x, _ = draw(rnn)
    with pytest.raises(ValueError, match=r"engine: 'numba' is not installed here; python -m pip"):
        rnn.forward(params, x, engine="numba")
    engines.prefer(None)
    try:
        assert rnn.forward(params, x)[1].engine == "numpy"
    finally:
        engines.prefer("numpy")


@pytest.mark.parametrize("bad", [0, 1.5, None, True])
def test_a_wrong_number_of_threads_is_named(bad):
    with pytest.raises((TypeError, ValueError), match=r"count: expected "):
        threads.use(bad)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_the_whole_network_is_the_layer_and_the_readout(cell, indices, large, monkeypatch):
    if large:  # all threads are through the way forward before one goes back
        monkeypatch.setattr(layer, "LARGE", 0)
        monkeypatch.setattr(threads, "WORTH_IT", 1)
        threads.use(2)
    # other states than any test before: memory that is taken again may hold those
    rng = np.random.default_rng(10 + 2 * large + indices)
    net = network.Network(cell)
    params = network.init(rng, cell, D, H, C, dtype=np.float64)
    x = rng.integers(0, D, (T, B)) if indices else rng.standard_normal((T, B, D))
    targets, mask = rng.integers(-1, C, (T, B)), rng.random((T, B)) > 0.3
    loss, grads = network.loss_and_grads(net, params, x, targets, mask=mask, engine="numba")
    right, expected = network.loss_and_grads(net, params, x, targets, mask=mask, engine="numpy")
    # only to see that every array is in its place; the verifier has the right tolerance
    np.testing.assert_allclose(loss, right, rtol=1e-12)
    for name, a in grads.layers[0]._asdict().items():
        b = getattr(expected.layers[0], name)
        if a is not None and not (indices and name == "x"):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name)
            assert a.flags.c_contiguous, name
    np.testing.assert_allclose(grads.readout.V, expected.readout.V, rtol=1e-9, atol=1e-12)


def test_a_state_beyond_the_range_is_said():
    params = model.init(np.random.default_rng(0), D, H, C, dtype=np.float32)
    params = params._replace(W=params.W * np.float32(1e30))
    x, targets = np.ones((20, B, D), np.float32), np.zeros((20, B), int)
    with pytest.raises(OverflowError, match="a state left the range of float32"):
        model.loss_and_grads(params, x, targets, activation="relu", engine="numba")


def test_doors_are_those_of_the_readable_layers():
    params, x, dh = draw(rnn)
    with pytest.raises(ValueError, match=r"x: expected shape \(T, B, D\) with D = 3"):
        rnn.forward(params, x[..., :2], engine="numba")
    _, cache = rnn.forward(params, x, engine="numba")
    with pytest.raises(ValueError, match=r"dstates: expected shape"):
        rnn.backward(params, cache, dh[:2])
    above = readout.init(np.random.default_rng(0), H + 1, C, dtype=np.float32)
    wrong = network.Params((params,), above)
    with pytest.raises(ValueError, match=r"params.V: expected shape"):
        network.loss_and_grads(
            network.Network(rnn), wrong, x, np.zeros((T, B), int), engine="numba"
        )


def test_an_engine_that_is_named_counts_more_than_the_preferred_one():
    rng = np.random.default_rng(0)
    params = network.init(rng, lstm, D, H, C)
    x, targets = rng.standard_normal((T, B, D)), rng.integers(0, C, (T, B))
    net = network.Network(lstm)
    plain = network.loss_and_grads(net, params, x, targets)[1]
    engines.prefer("numba")
    try:
        named = network.loss_and_grads(net, params, x, targets, engine="numpy")[1]
    finally:
        engines.prefer("numpy")
    np.testing.assert_array_equal(named.layers[0].delta, plain.layers[0].delta)
