import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import model, readout, rnn

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 8)] * 3)  # D, H, C
dtypes = st.sampled_from(["f4", "f8"])


def draw(seed, size, **named):
    return model.init(np.random.default_rng(seed), *size, **named)


def orthogonality_bound(n, dtype):
    # Householder QR (Higham, Accuracy and Stability, theorem 19.4) leaves Q within sqrt(n) n^2 eps
    # of an orthogonal matrix, up to a small constant; W^T W - I is twice as far. Rounding Q to the
    # dtype adds eps/2 per entry, the product n eps: both are in n^2.5 for every n.
    return 2 * n**2.5 * np.finfo(dtype).eps


@given(seeds, sizes, dtypes)
def test_w_is_orthogonal(seed, size, dtype):
    W = draw(seed, size, dtype=dtype).W
    n = len(W)
    assert np.abs(W.T @ W - np.eye(n)).max() <= orthogonality_bound(n, dtype)


@given(seeds, sizes.filter(lambda size: size[1] >= 3))
def test_w_is_not_symmetric(seed, size):
    W = draw(seed, size).W
    assert np.abs(W - W.T).max() > orthogonality_bound(len(W), "f8")


def test_w_points_everywhere():
    # a QR factor whose signs are left as they come is not uniform: its diagonal has one sign
    diagonals = np.array([np.diag(draw(seed, (1, 3, 1)).W) for seed in range(100)])
    assert (diagonals.min(0) < 0).all()
    assert (diagonals.max(0) > 0).all()


@given(seeds, sizes, dtypes)
def test_u_and_v_stay_within_one_over_the_root_of_their_columns(seed, size, dtype):
    params = draw(seed, size, dtype=dtype)
    for matrix in (params.U, params.V):
        # rounding to the dtype is monotone, so the bound holds rounded
        assert np.abs(matrix).max() <= np.dtype(dtype).type(1 / np.sqrt(matrix.shape[1]))


def test_u_and_v_fill_their_range():
    params = draw(0, (40, 50, 60))
    for matrix in (params.U, params.V):
        # of n uniform values the largest misses the limit by a few parts in n, so not by 1 / sqrt n
        limit = (1 - np.sqrt(1 / matrix.size)) / np.sqrt(matrix.shape[1])
        assert matrix.max() > limit
        assert matrix.min() < -limit


@given(seeds, sizes, dtypes, st.booleans())
def test_shapes_dtypes_and_biases(seed, size, dtype, bias):
    D, H, C = size
    params = draw(seed, size, dtype=dtype, bias=bias)
    shapes = {"U": (H, D), "W": (H, H), "V": (C, H)}
    if bias:
        shapes |= {"b": (H,), "c": (C,)}
        assert not params.b.any()
        assert not params.c.any()
    present = {k: v for k, v in params._asdict().items() if v is not None}
    assert {k: v.shape for k, v in present.items()} == shapes
    assert {v.dtype for v in present.values()} == {np.dtype(dtype)}
    assert {type(v) for v in present.values()} == {np.ndarray}


@given(seeds, sizes)
def test_a_seed_gives_the_same_weights_again_and_another_seed_others(seed, size):
    first, again, other = draw(seed, size), draw(seed, size), draw(seed + 1, size)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.U != other.U).all()
    assert (first.V != other.V).all()
    after = np.random.default_rng(seed)
    assert (model.init(after, *size).U != model.init(after, *size).U).all()


@given(seeds, sizes)
def test_float32_weights_are_the_float64_ones_rounded(seed, size):
    for narrow, wide in zip(draw(seed, size, dtype="f4"), draw(seed, size), strict=True):
        np.testing.assert_array_equal(narrow, wide.astype("f4"))


@given(seeds, sizes)
def test_the_model_is_its_layer_and_its_readout(seed, size):
    D, H, C = size
    rng = np.random.default_rng(seed)
    params = draw(seed, size)
    layer = rnn.init(rng, input_size=D, hidden_size=H)
    head = readout.init(rng, hidden_size=H, output_size=C)
    for name, value in {**layer._asdict(), **head._asdict()}.items():
        np.testing.assert_array_equal(getattr(params, name), value)


@pytest.mark.parametrize("dtype", [np.float32, "float32", np.dtype("f4")])
def test_a_dtype_may_be_spelled_in_every_way(dtype):
    assert draw(0, (2, 2, 2), dtype=dtype).U.dtype == np.float32
