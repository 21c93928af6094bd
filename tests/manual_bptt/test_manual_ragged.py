"""Sequences of different lengths: each as if it were alone, and padding as if it were not there."""

import numpy as np
import pytest

from manual_bptt import gru, lstm, ragged, rnn

T, B, D, H = 6, 5, 3, 4
RNG = np.random.default_rng(0)
LENGTHS = np.array([3, 6, 1, 0, 3])
CELLS = {
    "rnn": (rnn, rnn.init(RNG, D, H), {"activation": "sigmoid"}),
    "lstm": (lstm, lstm.init(RNG, D, H), {"forget_offset": 1.0}),
    "gru": (gru, gru.init(RNG, D, H), {}),
}
X = RNG.standard_normal((T, B, D))
X[np.arange(T)[:, None] >= LENGTHS] = np.nan


def parts(value):
    return tuple(value) if isinstance(value, tuple) else (value,)


def cotangents(module, *shape):
    each = [RNG.standard_normal((*shape, H)) for _ in range(2 if module is lstm else 1)]
    return each, (lstm.States(*each) if module is lstm else each[0])


@pytest.mark.parametrize("cell", CELLS)
def test_each_sequence_is_as_if_it_were_alone(cell):
    module, params, options = CELLS[cell]
    start, _ = cotangents(module, B)
    states, last, cache = ragged.forward(module, params, X, LENGTHS, *start, **options)
    dstates, _ = cotangents(module, T, B)
    dlast, _ = cotangents(module, B)
    padded = [np.where((np.arange(T)[:, None] < LENGTHS)[..., None], d, np.nan) for d in dstates]
    grads = ragged.backward(module, params, cache, padded, dlast)
    starts = [name for name in module.Grads._fields if name.endswith("0")]
    total = np.zeros_like(params.W)
    for k, n in enumerate(LENGTHS):
        for a, b, s in zip(states, last, start, strict=True):
            assert not a[n:, k].any()
            np.testing.assert_array_equal(b[k], a[n - 1, k] if n else s[k])
        if not n:
            for name, d in zip(starts, dlast, strict=True):
                np.testing.assert_array_equal(getattr(grads, name)[k], d[k])
            continue
        one = [s[k : k + 1] for s in start]
        own, kept = module.forward(params, X[:n, k : k + 1], *one, **options)
        # a product of more rows may be added up in another order; the pairs have the derived band
        for a, b in zip(states, parts(own), strict=True):
            np.testing.assert_allclose(a[:n, k], b[:, 0], rtol=1e-12)
        each = [d[:n, k : k + 1] for d in dstates]
        ends = [d[k : k + 1] for d in dlast]
        if module is lstm:
            each, ends = [lstm.States(*each)], [lstm.States(*ends)]
        alone = module.backward(params, kept, each[0], ends[0])
        total += alone.W
        np.testing.assert_allclose(grads.x[:n, k], alone.x[:, 0], rtol=1e-10, atol=1e-14)
        assert not grads.x[n:, k].any()
        for name in starts:
            mine, theirs = getattr(grads, name)[k], getattr(alone, name)[0]
            np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(grads.W, total, rtol=1e-10, atol=1e-14)


def test_what_is_left_out_is_zero():
    module, params, _ = CELLS["lstm"]
    zeros = [np.zeros((B, H))] * 2
    a, last_a, cache = ragged.forward(module, params, X, LENGTHS)
    b, last_b, _ = ragged.forward(module, params, X, LENGTHS, *zeros)
    for one, other in zip((*a, *last_a), (*b, *last_b), strict=True):
        np.testing.assert_array_equal(one, other)
    _, dlast = cotangents(module, B)
    absent = ragged.backward(module, params, cache, [None, None], dlast)
    given = ragged.backward(module, params, cache, [np.zeros((T, B, H))] * 2, dlast)
    np.testing.assert_array_equal(absent.W, given.W)


def test_a_sequence_backwards_within_its_length():
    x = np.arange(T * B, dtype=float).reshape(T, B, 1)
    back = ragged.reversed_within(x, LENGTHS)
    np.testing.assert_array_equal(back[:3, 0, 0], x[2::-1, 0, 0])
    np.testing.assert_array_equal(back[3:, 0], x[3:, 0])
    np.testing.assert_array_equal(ragged.reversed_within(back, LENGTHS), x)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (LENGTHS[:-1], ValueError, r"lengths: expected shape \(B,\)"),
        (LENGTHS + 1, ValueError, "lengths: expected lengths from 0 to 6, got 7"),
        (LENGTHS - 1, ValueError, "lengths: .* got -1"),
        (LENGTHS * 1.0, TypeError, "lengths: expected an integer dtype"),
        (LENGTHS * 0, ValueError, "lengths: expected a sequence of at least one step"),
    ],
)
def test_wrong_lengths_are_named(lengths, error, message):
    with pytest.raises(error, match=message):
        ragged.forward(*CELLS["gru"][:2], X, lengths)
