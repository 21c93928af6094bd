from importlib import import_module
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from manual_bptt import gru, gru_before, lstm, model, network, rnn
from manual_bptt import jax as by_hand
from manual_bptt.activations import Activation

# What the layers inside JAX promise beside right gradients, which the verifier judges in
# tests/bptt_verify/test_verify_dropins.py.

T, B, D, H = 4, 3, 2, 5
CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_before": gru_before}


def given(name):
    rng = np.random.default_rng(0)
    params = CELLS[name].init(rng, D, H, dtype=np.float32)
    return jax.tree.map(jnp.asarray, params), jnp.asarray(rng.standard_normal((T, B, D)), "float32")


def loss(name, params, x):
    found = getattr(by_hand, name)(params, x)
    return sum((s * jnp.cos(s)).sum() for s in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize("name", CELLS)
def test_they_work_under_jit_vmap_and_scan(name):
    def slope(x):
        return jax.grad(loss, argnums=2)(name, params, x)

    def scanned(several):
        return jax.lax.scan(lambda total, x: (total + loss(name, params, x), None), 0.0, several)[0]

    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda a: a.astype("float64"), given(name))
        plain, several = slope(x), jnp.stack([x, 2 * x])
        # the same numbers but for the order of sums, some twenty of them in a row
        same = {"rtol": 1e-12, "atol": 1e-13}
        np.testing.assert_allclose(jax.jit(slope)(x), plain, **same)
        np.testing.assert_allclose(jax.vmap(slope)(several)[0], plain, **same)
        np.testing.assert_allclose(jax.grad(scanned)(several)[0], plain, **same)


@pytest.mark.parametrize("name", CELLS)
def test_a_gradient_of_a_gradient_is_right(name):
    params, x = given(name)

    def slope(x):
        return (jax.grad(loss, argnums=2)(name, params, x) ** 2).sum()

    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda a: a.astype("float64"), (params, x))
        step, h = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape)), 1e-5
        along = (jax.grad(slope)(x) * step).sum()
        difference = (slope(x + h * step) - slope(x - h * step)) / (2 * h)
        # central differences: h² and rounding over h, both below 1e-9 of the slope
        np.testing.assert_allclose(along, difference, rtol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_forward_mode_is_refused(name):
    params, x = given(name)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: loss(name, params, x), (x,), (x,))


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (r"x: expected shape \(T, B, D\) with D = 2 from params.U, got", {"x": jnp.zeros((T, B))}),
        (r"x: expected shape .* with D = 2 from params.U, got", {"x": jnp.zeros((T, B, 3))}),
        (r"s0: expected shape \(3, 5\), got \(2, 5\)", {"s0": jnp.zeros((2, H))}),
        (r"activation: expected one of tanh, sigmoid, relu, got 'gelu'", {"activation": "gelu"}),
    ],
)
def test_what_does_not_fit_is_named(said, change):
    params, x = given("rnn")
    with pytest.raises(ValueError, match=said):
        by_hand.rnn(params, **{"x": x, **change})


@pytest.mark.parametrize("shape", [(1,), (B, H), (H + 1,)])
def test_the_bias_inside_the_reset_has_the_shape_of_a_state(shape):
    params, x = given("gru")
    with pytest.raises(ValueError, match=r"params\.b_n: expected shape \(5,\), got"):
        by_hand.gru(params._replace(b_n=jnp.zeros(shape)), x)


def test_weights_are_matrices_of_floats():
    params, x = given("rnn")
    with pytest.raises(ValueError, match=r"params\.W: expected a matrix, got shape \(\)"):
        by_hand.rnn(params._replace(W=1.0), x)
    with pytest.raises(TypeError, match="expected floats, got together int32"):
        by_hand.rnn(jax.tree.map(lambda a: a.astype(int), params), x.astype(int))


@pytest.mark.parametrize("name", CELLS)
def test_dtypes_are_promoted_and_gradients_have_those_of_the_arguments(name):
    params, x = given(name)
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), narrow)
    grads = jax.grad(loss, argnums=1)(name, narrow, x)
    wanted = jax.grad(loss, argnums=1)(name, wide, x)
    for g, w in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        assert g.dtype == jnp.bfloat16
        np.testing.assert_array_equal(g, w.astype(jnp.bfloat16))
    weak = narrow._replace(U=jnp.full(narrow.U.shape, 0.5))  # of no dtype of its own
    found = getattr(by_hand, name)(weak, x.astype(jnp.bfloat16))
    assert {s.dtype for s in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    assert loss(name, params, (2 * x).astype(int)) == loss(name, params, jnp.trunc(2 * x))
    assert loss(name, params, x.tolist()) == loss(name, params, x)


@pytest.mark.parametrize("name", CELLS)
def test_no_steps_and_no_sequences_have_gradients_of_zero(name):
    params, x = given(name)
    for none in (x[:0], x[:, :0]):
        grads = jax.grad(loss, argnums=(1, 2))(name, params, none)
        for g, a in zip(jax.tree.leaves(grads), jax.tree.leaves((params, none)), strict=True):
            np.testing.assert_array_equal(g, jnp.zeros_like(a))


def test_peepholes_are_refused():
    params, x = given("lstm")
    with pytest.raises(ValueError, match=r"params\.p: expected None"):
        by_hand.lstm(SimpleNamespace(**{**params._asdict(), "p": jnp.zeros(3 * H)}), x)


# --- engine="jax": the same on NumPy arrays


def run(cell, params, x, engine="jax"):
    """The states one by one, and the gradients by name."""
    states, cache = cell.forward(params, x, engine=engine)
    d = np.linspace(-1, 1, T * B * H).reshape(T, B, H).astype(params.U.dtype)
    grads = cell.backward(params, cache, lstm.States(d, -d) if cell is lstm else d)
    return states if cell is lstm else (states,), grads._asdict()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CELLS)
def test_without_bias_is_with_zeros_for_it(name, dtype):
    # with it, tests/bptt_verify/test_verify_engines.py holds them against the twin
    cell, rng = CELLS[name], np.random.default_rng(0)
    params = cell.init(rng, D, H, bias=False, dtype=dtype)
    x = rng.standard_normal((T, B, D)).astype(dtype)
    zeros = {k: np.zeros(len(params.U), dtype) for k in ("b",)}
    if cell is gru:
        zeros["b_n"] = np.zeros(H, dtype)
    states, grads = run(cell, params, x)
    same, wanted = run(cell, params._replace(**zeros), x)
    for a, b in zip(states, same, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == dtype
        assert not a.flags.writeable
    for k, g in grads.items():
        if k in (*zeros, "p", "P"):
            assert g is None
        else:
            np.testing.assert_array_equal(g, wanted[k])
            g *= 2  # may be written to


def test_class_indices_are_one_hot_vectors():
    rng = np.random.default_rng(0)
    params, x = rnn.init(rng, D, H), rng.integers(0, D, (T, B))
    (states,), grads = run(rnn, params, x)
    (same,), wanted = run(rnn, params, np.eye(D)[x])
    np.testing.assert_array_equal(states, same)
    assert grads.pop("x") is None
    for k, g in grads.items():
        np.testing.assert_array_equal(g, wanted[k])


def test_a_model_and_a_network_run_layer_by_layer():
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((T, B, D)), rng.integers(0, 3, (T, B))
    params = model.init(rng, D, H, 3)
    loss, grads = model.loss_and_grads(params, x, targets, engine="jax")
    layer = rnn.Params(params.U, params.W, params.b)
    _, cache = rnn.forward(layer, x, engine="jax")
    found = rnn.backward(layer, cache, grads.z @ params.V)
    np.testing.assert_array_equal(found.W, grads.W)
    assert loss > 0
    weights = network.init(rng, lstm, D, H, 3, layers=2)
    two = network.Network(lstm)
    asked = network.Network(lstm, options={"engine": "jax"})
    loss, _ = network.loss_and_grads(two, weights, x, targets, engine="jax")
    assert loss == network.loss_and_grads(asked, weights, x, targets)[0]


def test_what_jax_does_not_run_is_said():
    rng = np.random.default_rng(0)
    params = lstm.init(rng, D, H, peepholes=True)
    with pytest.raises(ValueError, match=r"engine: expected 'numpy' or None for .*, got 'jax'"):
        lstm.forward(params, np.zeros((T, B, D)), engine="jax")
    with pytest.raises(ValueError, match="params: expected none of peepholes or a projection"):
        import_module("manual_bptt.by_jax.lstm").forward(params, np.zeros((T, B, D)))
    own = Activation("tanh", np.sin, np.cos)
    layer = rnn.init(rng, D, H)
    with pytest.raises(ValueError, match="activation: expected one of this package"):
        import_module("manual_bptt.by_jax.rnn").forward(layer, np.zeros((T, B, D)), None, own)
