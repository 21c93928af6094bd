import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import model, rnn, training

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 6)] * 5)  # T, B, D, H, C


def unaligned(a):
    room = np.empty(a.nbytes + 1, np.uint8)
    view = room[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = {
    "fortran": np.asfortranarray,
    "batch-major": lambda a: a.swapaxes(0, -1).copy().swapaxes(0, -1),
    "negative": lambda a: np.flip(np.flip(a).copy()),
    "gaps": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "zero-stride": lambda a: np.broadcast_to(a[:1], a.shape),
    "all zero-stride": lambda a: np.broadcast_to(a[(slice(1),) * a.ndim], a.shape),
    "read-only": read_only,
    "unaligned": unaligned,
}


def draw(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return rng, [rng.normal(size=shape).astype(dtype) for shape in shapes]


def same_as_contiguous(run, arrays, layout):
    views = [LAYOUTS[layout](a) for a in arrays]
    copies = [np.array(v, order="C") for v in views]
    before = [v.tobytes() for v in views]
    for got, wanted in zip(run(*views), run(*copies), strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    assert [v.tobytes() for v in views] == before


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=seeds, size=sizes, dtype=st.sampled_from(["f4", "f8"]))
def test_the_layer_does_not_see_the_layout(layout, seed, size, dtype):
    T, B, D, H, _ = size
    shapes = [(H, D), (H, H), (H,), (T, B, D), (B, H), (T, B, H), (B, H)]
    _, arrays = draw(seed, dtype, *shapes)

    def run(U, W, b, x, s0, dstates, dlast):
        params = rnn.Params(U, W, b)
        states, cache = rnn.forward(params, x, s0)
        return states, *rnn.backward(params, cache, dstates, dlast)

    same_as_contiguous(run, arrays, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=seeds, size=sizes, dtype=st.sampled_from(["f4", "f8"]))
def test_the_model_and_its_update_do_not_see_the_layout(layout, seed, size, dtype):
    T, B, D, H, C = size
    rng, arrays = draw(seed, dtype, (H, D), (H, H), (C, H), (H,), (C,), (T, B, D), (B, H))
    one_hot = np.eye(C, dtype=dtype)[rng.integers(0, C, (T, B))]
    even = np.full((T, B, C), 1 / C, dtype)  # the only probabilities that are all alike
    arrays += [even if layout == "all zero-stride" else one_hot, rng.random((T, B)) < 0.5]

    def run(U, W, V, b, c, x, s0, targets, mask):
        params = model.Params(U, W, V, b, c)
        loss, grads = model.loss_and_grads(params, x, targets, s0=s0, mask=mask)
        return loss, *grads, *training.sgd(params, grads, 0.1)

    same_as_contiguous(run, arrays, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(seed=seeds, size=sizes)
def test_class_indices_do_not_see_the_layout(layout, seed, size):
    T, B, D, H, C = size
    rng = np.random.default_rng(seed)
    params = model.init(rng, D, H, C)

    def run(x, targets):
        loss, grads = model.loss_and_grads(params, x, targets)
        return loss, *(g for g in grads if g is not None)

    arrays = [rng.integers(0, D, (T, B)), rng.integers(-1, C, (T, B))]
    same_as_contiguous(run, arrays, layout)
