"""Layers, directions, zoneout and truncation, where they have to be something simpler."""

import numpy as np
import pytest

from manual_bptt import bidirectional, gru, lstm, ragged, rnn, stack, truncated, zoneout

T, B, D, H = 7, 3, 4, 5
RNG = np.random.default_rng(0)  # for what the tests share; each has the same numbers to itself
CELLS = {
    "rnn": (rnn, rnn.init(RNG, D, H), {"activation": "sigmoid"}),
    "lstm": (lstm, lstm.init(RNG, D, H), {"forget_offset": 1.0}),
    "gru": (gru, gru.init(RNG, D, H), {}),
}
X = RNG.standard_normal((T, B, D))


@pytest.fixture(autouse=True)
def _same_numbers_for_each_test(monkeypatch):
    monkeypatch.setattr(f"{__name__}.RNG", np.random.default_rng(1))


def tupled(value):
    return tuple(value) if isinstance(value, tuple) else (value,)


def normal(module, *shape):
    """An array for each state."""
    return [RNG.standard_normal((*shape, H)) for _ in range(2 if module is lstm else 1)]


def grouped(module, arrays):
    return lstm.States(*arrays) if module is lstm else arrays[0]


def whole(cell, start, dstates, dlast):
    """What the cell itself says of the whole sequence."""
    module, params, options = CELLS[cell]
    states, cache = module.forward(params, X, *start, **options)
    grads = module.backward(params, cache, grouped(module, dstates), grouped(module, dlast))
    return tupled(states), grads


def assert_the_same(a, b, exact=False):
    """Of the same numbers, added up in another order if not exact; the pairs have derived bands."""
    for one, other in zip(tupled(a), tupled(b), strict=True):
        assert (one is None) == (other is None)
        if exact:
            np.testing.assert_array_equal(one, other)
        elif one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("size", [T, T + 1, 50])
@pytest.mark.parametrize("kind", ["windowed", "chunked"])
@pytest.mark.parametrize("cell", CELLS)
def test_truncation_beyond_the_sequence_cuts_nothing(cell, kind, size):
    module, params, options = CELLS[cell]
    start, dstates, dlast = normal(module, B), normal(module, T, B), normal(module, B)
    states, grads = whole(cell, start, dstates, dlast)
    run, back = (getattr(truncated, name) for name in (kind, f"{kind}_backward"))
    found, cache = run(module, params, X, size, *start, **options)
    assert_the_same(found, states, exact=True)
    assert_the_same(back(module, params, cache, dstates, dlast), grads)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("cell", CELLS)
def test_windowed_each_state_reaches_back_k_steps_and_chunked_to_its_border(cell, k):
    module, params, options = CELLS[cell]
    start = normal(module, B)
    for kind in ("windowed", "chunked"):
        run, back = (getattr(truncated, name) for name in (kind, f"{kind}_backward"))
        _, cache = run(module, params, X, k, *start, **options)
        for t in range(T):
            dstates = [np.zeros((T, B, H)) for _ in start]
            dstates[0][t] = 1
            grads = back(module, params, cache, dstates)
            reached = np.flatnonzero(np.abs(grads.x).sum(axis=(1, 2)))
            first = max(0, t - k + 1) if kind == "windowed" else t // k * k
            assert reached.tolist() == list(range(first, t + 1))
            begin = [name for name in grads._fields if name.endswith("0")]
            assert getattr(grads, begin[0]).any() == (first == 0)


def test_truncation_without_a_start_begins_at_zero():
    zeros = [np.zeros((B, H))] * 2
    module, params, _ = CELLS["lstm"]
    for run in (truncated.windowed, truncated.chunked):
        assert_the_same(
            run(module, params, X, 3)[0], run(module, params, X, 3, *zeros)[0], exact=True
        )


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_of_nothing_is_the_cell_and_of_everything_keeps_the_start(cell):
    module, params, options = CELLS[cell]
    start, dstates, dlast = normal(module, B), normal(module, T, B), normal(module, B)
    states, grads = whole(cell, start, dstates, dlast)
    nothing = [np.zeros((T, B, H))] * len(start)
    found, cache = zoneout.forward(module, params, X, nothing, start, **options)
    assert_the_same(found, states)
    assert_the_same(zoneout.backward(module, params, cache, dstates, dlast), grads)
    everything = [np.ones((T, B, H))] * len(start)
    found, cache = zoneout.forward(module, params, X, everything, start, **options)
    for s, s0 in zip(found, start, strict=True):
        np.testing.assert_array_equal(s, np.broadcast_to(s0, s.shape))
    grads = zoneout.backward(module, params, cache, dstates, dlast)
    assert not grads.U.any()
    begin = [name for name in grads._fields if name.endswith("0")]
    for name, each, last in zip(begin, dstates, dlast, strict=True):
        # the same eight numbers, added up in another order
        np.testing.assert_allclose(getattr(grads, name), each.sum(axis=0) + last, rtol=1e-13)


def test_zoneout_without_a_start_begins_at_zero():
    module, params, _ = CELLS["lstm"]
    kept = [RNG.integers(0, 2, (T, B, H)).astype(float) for _ in range(2)]
    zeros = [np.zeros((B, H))] * 2
    one, _ = zoneout.forward(module, params, X, kept)
    assert_the_same(one, zoneout.forward(module, params, X, kept, zeros)[0], exact=True)


@pytest.mark.parametrize("cell", CELLS)
def test_one_layer_is_the_cell(cell):
    module, params, options = CELLS[cell]
    start, dlast = normal(module, B), normal(module, B)
    dstates = normal(module, T, B)
    dstates[1:] = [np.zeros_like(d) for d in dstates[1:]]  # those of the output alone
    states, grads = whole(cell, start, dstates, dlast)
    layers = [stack.Layer(module, params, options)]
    y, found, cache = stack.forward(layers, X, [start], residual=True)
    assert_the_same(found[0], states, exact=True)
    np.testing.assert_array_equal(y, states[0])
    stacked = stack.backward(layers, cache, dstates[0], [dlast])
    assert_the_same(stacked.layers[0], grads, exact=True)
    np.testing.assert_array_equal(stacked.x, grads.x)


LAYERS = [
    stack.Layer(*CELLS["rnn"]),
    stack.Layer(lstm, lstm.init(RNG, H, H)),
    stack.Layer(gru, gru.init(RNG, H, H)),
]


def test_a_layer_whose_input_is_dropped_out_whole_leaves_nothing_below_it_but_the_residual():
    masks = [np.ones((T, B, H)), np.zeros((T, B, H))]
    dy = RNG.standard_normal((T, B, H))
    for residual in (False, True):
        _, _, cache = stack.forward(LAYERS, X, masks=masks, residual=residual)
        grads = stack.backward(LAYERS, cache, dy)
        assert grads.layers[2].b.any()
        assert grads.layers[1].b.any() == grads.layers[0].b.any() == residual


def test_what_a_stack_is_not_given_is_zero_or_one():
    ones = [np.ones((T, B, H))] * 2
    starts = [[np.zeros((B, H))], [np.zeros((B, H))] * 2, [np.zeros((B, H))]]
    y, _, cache = stack.forward(LAYERS, X)
    same, _, cache_too = stack.forward(LAYERS, X, starts, masks=ones)
    np.testing.assert_array_equal(y, same)
    absent = stack.backward(LAYERS, cache, None, starts)
    given = stack.backward(LAYERS, cache_too, np.zeros_like(y))
    for a, b in zip(absent.layers, given.layers, strict=True):
        assert not a.W.any()
        assert_the_same(a, b, exact=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"starts": [[]]}, "starts: expected 3 of them, got 1"),
        ({"masks": [None]}, "masks: expected 2 of them, got 1"),
        (
            {"masks": [None, np.ones((T, B, D))]},
            r"masks\[1\]: expected shape \(T, B, N\) with .* N = 5",
        ),
        ({"masks": [np.full((T, B, H), np.nan), None]}, r"masks\[0\]: expected finite values"),
    ],
)
def test_what_is_wrong_with_a_stack_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        stack.forward(LAYERS, X, **given)


def test_residual_connections_need_as_many_outputs():
    layers = [LAYERS[0], stack.Layer(gru, gru.init(RNG, H, H + 1))]
    with pytest.raises(ValueError, match=r"layers\[1\]: expected 5 outputs, .* got 6"):
        stack.forward(layers, X, residual=True)
    with pytest.raises(ValueError, match="layers: expected at least 1 of them, got 0"):
        stack.forward([], X)
    _, _, cache = stack.forward(layers, X)
    with pytest.raises(ValueError, match="layers: expected 2 of them, got 1"):
        stack.backward(layers[:1], cache, None)
    with pytest.raises(ValueError, match="dlast: expected 2 of them, got 3"):
        stack.backward(layers, cache, None, [[], [], []])
    with pytest.raises(TypeError, match=r"cache: expected manual_bptt\.stack\.Cache, got tuple"):
        stack.backward(layers, tuple(cache), None)
    with pytest.raises(ValueError, match=r"dy: expected shape \(T, B, N\)"):
        stack.backward(layers, cache, np.ones((T, B, H)))


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_are_the_cell_and_the_cell_on_the_sequence_turned_round(cell):
    module, params, options = CELLS[cell]
    other = params._replace(W=params.W + 0.1)
    starts = normal(module, B), normal(module, B)
    y, last, cache = bidirectional.forward(module, (params, other), X, None, starts, **options)
    one, kept = module.forward(params, X, *starts[0], **options)
    two, kept_too = module.forward(other, X[::-1].copy(), *starts[1], **options)
    np.testing.assert_array_equal(y[..., :H], tupled(one)[0])
    np.testing.assert_array_equal(y[..., H:], tupled(two)[0][::-1])
    for found, states in zip(last, (one, two), strict=True):
        assert_the_same(found, tuple(s[-1] for s in tupled(states)), exact=True)
    dy = RNG.standard_normal((T, B, 2 * H))
    grads = bidirectional.backward(module, (params, other), cache, dy)
    none = [None] * (len(starts[0]) - 1)
    first = module.backward(params, kept, grouped(module, [dy[..., :H].copy(), *none]))
    second = module.backward(other, kept_too, grouped(module, [dy[::-1, :, H:].copy(), *none]))
    for found, alone in zip(grads.directions, (first, second), strict=True):
        np.testing.assert_array_equal(found.W, alone.W)
    np.testing.assert_array_equal(grads.x, first.x + second.x[::-1])


def test_padding_is_not_read_in_either_direction():
    module, params, _ = CELLS["gru"]
    lengths = np.array([2, 7, 5])
    x = np.where((np.arange(T)[:, None] < lengths)[..., None], X, np.nan)
    y, _, cache = bidirectional.forward(module, (params, params), x, lengths)
    dy = np.where((np.arange(T)[:, None] < lengths)[..., None], 1.0, np.nan) * np.ones(2 * H)
    grads = bidirectional.backward(module, (params, params), cache, dy)
    assert np.isfinite(y).all()
    assert np.isfinite(grads.x).all()
    alone, _, _ = bidirectional.forward(module, (params, params), X[:2, :1])
    # a product of more rows may be added up in another order
    np.testing.assert_allclose(y[:2, :1], alone, rtol=1e-13)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c, p: truncated.windowed(c, p, X, 0), ValueError, "window: expected at least 1"),
        (lambda c, p: truncated.chunked(c, p, X, 1.5), TypeError, "chunk: expected an int"),
        (lambda c, p: truncated.chunked(c, p, X[0], 1), ValueError, "x: expected shape"),
        (lambda c, p: truncated.windowed(c, p, None, 1), TypeError, "x: expected a numpy.ndarray"),
        (
            lambda c, p: truncated.chunked(c, p, X[:0], 1),
            ValueError,
            r"x: expected shape \(T, B, D\) without empty axes, got \(0, 3, 4\)",
        ),
        (
            lambda c, p: zoneout.forward(c, p, X[:0], []),
            ValueError,
            r"x: expected shape \(T, B, D\) without empty axes",
        ),
        (lambda c, p: zoneout.forward(c, p, X, []), TypeError, r"kept\[0\]: .*, got None"),
        (
            lambda c, p: zoneout.forward(c, p, X, [1, 2]),
            ValueError,
            r"kept: expected 1 of them \(h\), got 2",
        ),
        (
            lambda c, p: truncated.windowed(c, p, X, 2, X[0], X[1]),
            ValueError,
            r"start: expected 1 of them \(h\), got 2",
        ),
        (
            lambda c, p: ragged.forward(c, p, X, np.full(B, T), np.ones((B + 1, H))),
            ValueError,
            r"start\[0\]: expected shape \(B, N\) with B = 3",
        ),
        (
            lambda c, p: bidirectional.forward(c, (p, p), X, begin=([np.ones((B + 1, H))], ())),
            ValueError,
            r"start\[0\]: expected shape \(B, N\) with B = 3",
        ),
        (
            lambda c, p: stack.forward([(c, p)], X),
            TypeError,
            r"layers\[0\]: expected manual_bptt\.stack\.Layer, got tuple",
        ),
        (
            lambda c, p: stack.forward([stack.Layer("gru", p)], X),
            TypeError,
            r"layers\[0\]\.cell: expected the module of a cell, .* got str",
        ),
        (lambda c, p: stack.forward(None, X), TypeError, "layers: expected a list, got NoneType"),
        (
            lambda c, p: stack.forward([stack.Layer(c, p)], X, residual="no"),
            TypeError,
            "residual: expected True or False, got 'no'",
        ),
        *(
            (call, TypeError, "cell: expected the module of a cell, such as manual_bptt.lstm, got")
            for call in (
                lambda c, p: ragged.forward(None, p, X, np.full(B, T)),
                lambda c, p: zoneout.forward(stack, p, X, [X]),
                lambda c, p: truncated.windowed("gru", p, X, 1),
                lambda c, p: truncated.chunked(p, p, X, 1),
                lambda c, p: bidirectional.forward(None, (p, p), X),
            )
        ),
        (
            lambda c, p: bidirectional.forward(c, p, X),
            TypeError,
            "params: expected two of them, forwards and backwards, got one",
        ),
        (
            lambda c, p: bidirectional.forward(c, (p, p, p), X),
            TypeError,
            "params: expected two of them, forwards and backwards, got 3",
        ),
        (
            lambda c, p: bidirectional.forward(c, (p, gru.init(RNG, D, H + 1)), X),
            ValueError,
            "params: expected as many outputs in both directions, got 5 and 6",
        ),
        (
            lambda c, p: bidirectional.forward(c, (p, p), X, begin=None),
            TypeError,
            "begin: expected two of them, forwards and backwards, got NoneType",
        ),
        (
            lambda c, p: zoneout.forward(c, p, X, [np.ones((T, B, D))]),
            ValueError,
            r"kept\[0\]: expected shape \(T, B, N\)",
        ),
        (
            lambda c, p: bidirectional.forward(c, (p, p), X, np.full(B, T + 1)),
            ValueError,
            "lengths: expected lengths from 0 to 7, got 8",
        ),
        (
            lambda c, p: bidirectional.forward(c, (p, p), X[0, 0]),
            ValueError,
            r"x: expected shape \(T, B, D\) without empty axes, got \(4,\)",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(*CELLS["gru"][:2])


@pytest.mark.parametrize("module", [truncated.windowed_backward, truncated.chunked_backward])
def test_the_cache_of_another_is_refused(module):
    cell, params, _ = CELLS["gru"]
    _, other = ragged.forward(cell, params, X, np.full(B, T))[1:]
    with pytest.raises(TypeError, match=r"cache: expected manual_bptt\.truncated"):
        module(cell, params, other, [None])


def test_cotangents_of_another_shape_are_named():
    cell, params, _ = CELLS["gru"]
    wrong = [np.ones((T, B, D))]
    with_b = (
        r"\(T, B, N\) with T = 7 from cache, B = 3 from cache, N = 5 from cache, got \(7, 3, 4\)"
    )
    for kind in ("windowed", "chunked"):
        _, cache = getattr(truncated, kind)(cell, params, X, 3)
        back = getattr(truncated, f"{kind}_backward")
        with pytest.raises(ValueError, match=rf"dstates\[0\]: expected shape {with_b}"):
            back(cell, params, cache, wrong)
        with pytest.raises(ValueError, match=r"dlast: expected 1 of them \(h\), got 2"):
            back(cell, params, cache, [None], [None, None])
        with pytest.raises(TypeError, match=r"dstates: expected 1 of them \(h\), got ndarray"):
            back(cell, params, cache, wrong[0])
    _, _, cache = ragged.forward(cell, params, X, np.full(B, T))
    for dstates, dlast, named in (
        ([np.ones((T + 1, B, H))], None, r"dstates\[0\]: expected shape \(T, B, N\) with T = 7"),
        (None, [np.ones((B + 1, H))], r"dlast\[0\]: expected shape \(B, N\) with B = 3"),
    ):
        with pytest.raises(ValueError, match=named):
            ragged.backward(cell, params, cache, dstates, dlast)
    with pytest.raises(TypeError, match=r"cache: expected manual_bptt\.ragged\.Cache, got tuple"):
        ragged.backward(cell, params, tuple(cache), None, None)
    _, cache = zoneout.forward(cell, params, X, [np.ones((T, B, H))])
    with pytest.raises(ValueError, match=rf"dstates\[0\]: expected shape {with_b}"):
        zoneout.backward(cell, params, cache, wrong)
    _, _, cache = bidirectional.forward(cell, (params, params), X)
    with pytest.raises(ValueError, match=r"dy: expected shape \(T, B, 2N\)"):
        bidirectional.backward(cell, (params, params), cache, wrong[0])


INDICES = np.arange(T * B).reshape(T, B) % D


@pytest.mark.parametrize("kind", ["windowed", "chunked", "ragged", "zoneout", "bidirectional"])
def test_class_indices_stand_for_their_vectors(kind):
    module, params, _ = CELLS["rnn"]

    def gradients(x):
        dy = np.arange(T * B * H, dtype=float).reshape(T, B, H)
        if kind == "bidirectional":
            _, _, cache = bidirectional.forward(module, (params, params), x)
            both = np.concatenate([dy, dy], axis=-1)
            grads = bidirectional.backward(module, (params, params), cache, both)
            return grads.directions[1]._replace(x=grads.x)
        if kind == "ragged":
            _, _, cache = ragged.forward(module, params, x, np.array([7, 2, 5]))
            return ragged.backward(module, params, cache, [dy], None)
        if kind == "zoneout":
            _, cache = zoneout.forward(module, params, x, [np.full((T, B, H), 0.25)])
            return zoneout.backward(module, params, cache, [dy])
        _, cache = getattr(truncated, kind)(module, params, x, 3)
        return getattr(truncated, f"{kind}_backward")(module, params, cache, [dy])

    of_indices, of_vectors = gradients(INDICES), gradients(np.eye(D)[INDICES])
    assert of_indices.x is None
    assert_the_same(of_indices, of_vectors._replace(x=None))


@pytest.mark.parametrize("kind", ["windowed", "chunked", "ragged", "zoneout", "bidirectional"])
def test_the_cache_of_another_cell_is_refused(kind):
    cell, params, _ = CELLS["gru"]
    if kind == "ragged":
        kept = ragged.forward(cell, params, X, np.full(B, T))[-1]
    elif kind == "zoneout":
        kept = zoneout.forward(cell, params, X, [np.ones((T, B, H))])[-1]
    elif kind == "bidirectional":
        kept = bidirectional.forward(cell, (params, params), X)[-1]
    else:
        kept = getattr(truncated, kind)(cell, params, X, 3)[-1]
    other, weights, _ = CELLS["lstm"]
    modules = {"ragged": ragged, "zoneout": zoneout, "bidirectional": bidirectional}
    module = modules.get(kind, truncated)
    back = getattr(module, "backward" if kind in modules else f"{kind}_backward")
    given = (weights, weights) if kind == "bidirectional" else weights
    more = (None, None) if kind == "ragged" else (None,)
    with pytest.raises(ValueError, match=r"cache: expected that of .*lstm, of 2 states, got one"):
        back(other, given, kept, *more)


def test_one_state_of_several_may_begin_at_zero():
    cell, params, _ = CELLS["lstm"]
    h0, zeros, lengths = normal(cell, B)[0], np.zeros((B, H)), np.array([7, 0, 5])
    for run in (
        lambda c0: ragged.forward(cell, params, X, lengths, h0, c0)[:2],
        lambda c0: truncated.windowed(cell, params, X, 3, h0, c0)[:1],
        lambda c0: truncated.chunked(cell, params, X, 3, h0, c0)[:1],
        lambda c0: zoneout.forward(cell, params, X, [np.full((T, B, H), 0.5)] * 2, (h0, c0))[:1],
    ):
        for absent, given in zip(run(None), run(zeros), strict=True):
            assert_the_same(absent, given, exact=True)
