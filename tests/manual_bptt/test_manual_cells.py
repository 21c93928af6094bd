"""The gated cells at their public doors: what is wrong is named, what may be left out is zero."""

import re

import numpy as np
import pytest

from manual_bptt import gru, gru_before, lstm, lstm_norm, mingru, minlstm, rnn

T, B, D, H, R = 4, 2, 3, 5, 6
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


LSTM = lstm.Params(normal(4 * H, D), normal(4 * H, H), normal(4 * H))
PEEPHOLES = LSTM._replace(p=normal(3 * H))
PROJECTION = PEEPHOLES._replace(W=normal(4 * H, R), P=normal(R, H))
GRU = gru.Params(normal(3 * H, D), normal(3 * H, H), normal(3 * H), normal(H))
BEFORE = gru_before.Params(*GRU[:3])
NORM = lstm_norm.Params(*LSTM[:3], *(normal(n * H) for n in (4, 4, 1, 1)))
CELLS = {
    "lstm": (lstm, LSTM, {"h0": (B, H), "c0": (B, H)}),
    "lstm-peephole": (lstm, PEEPHOLES, {"h0": (B, H), "c0": (B, H)}),
    "lstm-projection": (lstm, PROJECTION, {"h0": (B, R), "c0": (B, H)}),
    "lstm-norm": (lstm_norm, NORM, {"h0": (B, H), "c0": (B, H)}),
    "gru": (gru, GRU, {"h0": (B, H)}),
    "gru-before": (gru_before, BEFORE, {"h0": (B, H)}),
}
X = normal(T, B, D)


def tuple_of(states):
    return states if isinstance(states, tuple) else (states,)


def cotangents(cell, make):
    """Those of all states, and of the last states."""
    module, _, start = CELLS[cell]
    each = [make((T, *shape)) for shape in start.values()]
    last = [make(shape) for shape in start.values()]
    if len(start) > 1:
        return module.States(*each), module.States(*last)
    return each[0], last[0]


def run(cell, make=lambda shape: normal(*shape), **changed):
    """Forward and backward with some argument in another's place; what both return."""
    module, params, start = CELLS[cell]
    params = params._replace(**{k[7:]: v for k, v in changed.items() if k.startswith("params.")})
    starts = {k: changed.get(k, np.ones(shape)) for k, shape in start.items()}
    states, cache = module.forward(params, changed.get("x", X), **starts)
    return states, module.backward(params, cache, *cotangents(cell, make))


def arrays(cell):
    _, params, start = CELLS[cell]
    weights = {f"params.{k}": v for k, v in params._asdict().items() if v is not None}
    return {**weights, "x": X, **{k: np.ones(shape) for k, shape in start.items()}}


ARGUMENTS = [(cell, name) for cell in CELLS for name in arrays(cell)]
WRONG = {
    "list": (lambda a: a.tolist(), TypeError, "expected a numpy.ndarray, got list"),
    "float16": (lambda a: a.astype("f2"), TypeError, "expected dtype .*float64, got float16"),
    "rank": (lambda a: a[None], ValueError, r"expected shape \(.*\).*, got \(1, "),
    "size": (lambda a: np.concatenate([a, a[:1]]), ValueError, r"expected shape \(.*\).*, got \("),
    "empty": (lambda a: a[:0], ValueError, r"expected (no empty axis|shape).*, got .*\(0,"),
    "nan": (lambda a: a * np.nan, ValueError, r"expected finite values, got nan at \("),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("cell", "name"), ARGUMENTS)
def test_a_wrong_array_is_named(cell, name, wrong):
    change, error, message = WRONG[wrong]
    bad = change(arrays(cell)[name])
    # one step more is a sequence too; a weight may be the first to say how large H is
    if wrong == "size" and name == "x":
        return
    named = r"params\.\w+" if wrong == "size" and name.startswith("params") else re.escape(name)
    with pytest.raises(error, match=f"^{named}: {message}"):
        run(cell, **{name: bad})


@pytest.mark.parametrize("cell", CELLS)
def test_a_shape_in_blocks_is_spelt_with_what_is_known(cell):
    _, params, _ = CELLS[cell]
    blocks = len(params.U) // H
    message = rf"params.W: expected shape \({blocks}H, [HR]\) with H = {H} from params.U.*, got"
    with pytest.raises(ValueError, match=message):
        run(cell, **{"params.W": params.W[:-1]})


@pytest.mark.parametrize("cell", CELLS)
def test_the_params_and_cache_of_another_layer_are_refused(cell):
    module, params, _ = CELLS[cell]
    _, cache = module.forward(params, X)
    other = rnn.Params(normal(H, D), normal(H, H))
    with pytest.raises(TypeError, match=r"params: expected manual_bptt\.\w+\.Params, got"):
        module.forward(other, X)
    with pytest.raises(TypeError, match=r"cache: expected manual_bptt\.\w+\.Cache, got tuple"):
        module.backward(params, tuple(cache), *cotangents(cell, np.ones))


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_left_out_is_zero(cell):
    module, params, start = CELLS[cell]
    states, cache = module.forward(params, X)
    same, _ = module.forward(params, X, *(np.zeros(shape) for shape in start.values()))
    for a, b in zip(tuple_of(states), tuple_of(same), strict=True):
        np.testing.assert_array_equal(a, b)
    each, last = cotangents(cell, np.ones)
    zeros = cotangents(cell, np.zeros)
    absent = module.States(None, None) if len(start) > 1 else None
    for given, explicit in (((each,), (each, zeros[1])), ((absent, last), (zeros[0], last))):
        for a, b in zip(
            module.backward(params, cache, *given),
            module.backward(params, cache, *explicit),
            strict=True,
        ):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cell", [c for c in CELLS if c != "lstm-norm"])  # which needs one
def test_a_layer_without_bias_is_one_with_zeros_for_it(cell):
    module, params, _ = CELLS[cell]
    biases = [k for k in params._fields if k.startswith("b") and getattr(params, k) is not None]
    without = params._replace(**dict.fromkeys(biases))
    zeros = params._replace(**{k: 0 * getattr(params, k) for k in biases})
    ran = [module.forward(p, X) for p in (without, zeros)]
    for a, b in zip(*(tuple_of(states) for states, _ in ran), strict=True):
        np.testing.assert_array_equal(a, b)
    grads = [
        module.backward(p, cache, *cotangents(cell, np.ones))
        for p, (_, cache) in zip((without, zeros), ran, strict=True)
    ]
    for k in biases:
        assert getattr(grads[0], k) is None
    np.testing.assert_array_equal(grads[0].W, grads[1].W)


def test_without_peepholes_is_with_zeros_for_them():
    plain, _ = lstm.forward(LSTM, X)
    zeros, _ = lstm.forward(PEEPHOLES._replace(p=np.zeros(3 * H)), X)
    np.testing.assert_array_equal(plain.h, zeros.h)


def test_the_forget_offset_is_a_bias_of_the_forget_gate():
    b = LSTM.b.copy()
    b[H : 2 * H] += 1
    offset, _ = lstm.forward(LSTM, X, forget_offset=1.0)
    stored, _ = lstm.forward(LSTM._replace(b=b), X)
    # φ is added after b or with it: a rounding or two at each step
    np.testing.assert_allclose(offset.h, stored.h, rtol=1e-12)
    with pytest.raises(ValueError, match="forget_offset: expected a finite number, got nan"):
        lstm.forward(LSTM, X, forget_offset=np.nan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("module", [lstm, lstm_norm, gru, gru_before])
def test_initial_weights_have_the_shapes_and_dtype_and_run(module, dtype):
    params = module.init(np.random.default_rng(1), D, H, dtype=dtype)
    assert {a.dtype for a in params if a is not None} == {np.dtype(dtype)}
    for block in np.split(params.W, len(params.W) // H):
        # of float32: a sum of five products is off by some 1e-7
        np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-6)
    states, _ = module.forward(params, X.astype(dtype))
    assert tuple_of(states)[0].shape == (T, B, H)
    if module is not lstm_norm:
        assert module.init(np.random.default_rng(1), D, H, bias=False).b is None
    with pytest.raises(ValueError, match="hidden_size: expected at least 1, got 0"):
        module.init(np.random.default_rng(1), D, 0)


def test_an_lstm_starts_with_its_forget_gate_open_and_what_was_asked_for():
    rng = np.random.default_rng(1)
    params = lstm.init(rng, D, H, peepholes=True, output_size=R)
    np.testing.assert_array_equal(np.split(params.b, 4)[1], np.ones(H))
    assert params.b.sum() == H
    assert (params.W.shape, params.P.shape, params.p.shape) == ((4 * H, R), (R, H), (3 * H,))
    assert lstm.forward(params, X)[0].h.shape == (T, B, R)


@pytest.mark.parametrize("cell", CELLS)
def test_the_states_cannot_be_written_to(cell):
    states, _ = run(cell)
    for a in tuple_of(states):
        assert not a.flags.writeable


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("module", [mingru, minlstm])
def test_the_minimal_units_are_the_same_step_by_step_and_all_at_once(module, dtype):
    params = module.init(np.random.default_rng(1), D, H, dtype=dtype)
    x, h0 = X.astype(dtype), np.full((B, H), 0.5, dtype)
    one, cache = module.forward(params, x, h0)
    other, parallel = module.forward(params, x, h0, form="parallel")
    # logarithms of the size of T, exponentiated: some ten roundings; the pair has the derived band
    close = {"rtol": 1e-5 if dtype == np.float32 else 1e-13}
    np.testing.assert_allclose(one, other, **close)
    d = normal(T, B, H).astype(dtype)
    for a, b in zip(
        module.backward(params, cache, d), module.backward(params, parallel, d), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=close["rtol"])
    with pytest.raises(ValueError, match="h0: expected values above 0 for form='parallel'"):
        module.forward(params, x, form="parallel")
    with pytest.raises(ValueError, match="form: expected sequential or parallel, got 'both'"):
        module.forward(params, x, h0, form="both")


def test_where_both_gates_of_the_minimal_lstm_close_they_still_add_up_to_1():
    params = minlstm.Params(np.zeros((3 * H, D)), np.repeat([-800.0, -801.0, 0.0], H))
    h, cache = minlstm.forward(params, X, np.ones((B, H)))
    # d is the difference of two numbers near 800: off by some 1e-13
    np.testing.assert_allclose(cache.f, 1 / (1 + np.exp(-1.0)), rtol=1e-12)
    np.testing.assert_array_equal(cache.f + cache.i, 1)
    assert np.isfinite(h).all()


def test_what_layer_normalisation_makes_does_not_depend_on_the_scale_of_the_weights():
    # ε is 1e-5 beside a variance of 1e6 and 4e6
    big, bigger = (
        lstm_norm.forward(NORM._replace(U=k * NORM.U, W=k * NORM.W), X)[0].h for k in (1e3, 2e3)
    )
    np.testing.assert_allclose(big, bigger, rtol=1e-8)
