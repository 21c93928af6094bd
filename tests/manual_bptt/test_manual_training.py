import math
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import model, readout, training

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 5)] * 3)  # D, H, C
dtypes = st.sampled_from(["f4", "f8"])
rates = st.sampled_from([0.0, 1e-3, 0.1, 3.0])


def draw(seed, size, dtype):
    """Weights and six gradients that fit them, the last ones small; with a bias c and without b."""
    rng = np.random.default_rng(seed)
    D, H, C = size
    shapes = {"U": (H, D), "W": (H, H), "V": (C, H), "c": (C,)}

    def some(scale=1):
        return {k: (scale * rng.normal(size=s)).astype(dtype) for k, s in shapes.items()}

    scales = [1, 1, 100, 1, 0, 1e-3]
    return model.Params(**some()), [model.Params(**some(scale)) for scale in scales]


def same(got, wanted):
    assert type(got) is type(wanted)
    assert got.b is wanted.b is None
    for name in "UWVc":
        mine, theirs = getattr(got, name), getattr(wanted, name)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
        assert mine.dtype == theirs.dtype


def one_number_at_a_time(rule, params, gradients):
    """The update of every entry on its own, by a `rule` that starts afresh for each."""
    new = {}
    for name, theta in params._asdict().items():
        if theta is not None:
            new[name] = theta.copy()
            for at in np.ndindex(theta.shape):
                step = rule(theta.dtype.type)
                for grads in gradients:
                    new[name][at] = step(new[name][at], getattr(grads, name)[at])
    return type(params)(**new)


@given(seeds, sizes, dtypes, rates)
def test_sgd_is_equation_13(seed, size, dtype, rate):
    params, (grads, *_) = draw(seed, size, dtype)
    wanted = {k: getattr(params, k) - rate * getattr(grads, k) for k in "UWVc"}
    same(training.sgd(params, grads, rate), model.Params(**wanted))


@given(seeds, sizes, dtypes, rates, st.sampled_from([0.0, 0.5, 0.9]))
def test_momentum_is_its_recursion(seed, size, dtype, rate, decay):
    params, gradients = draw(seed, size, dtype)

    def rule(number):
        v = number(0)

        def step(theta, d):
            nonlocal v
            v = number(decay) * v + d
            return theta - number(rate) * v

        return step

    theta, state = params, training.momentum_start(params)
    for grads in gradients:
        theta, state = training.momentum(theta, grads, state, rate, decay=decay)
    same(theta, one_number_at_a_time(rule, params, gradients))


@given(seeds, sizes, dtypes, rates, st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)]))
def test_adam_is_its_recursion(seed, size, dtype, rate, betas):
    params, gradients = draw(seed, size, dtype)
    beta1, beta2 = betas

    def rule(number):
        n, m, v = 0, number(0), number(0)

        def step(theta, d):
            nonlocal n, m, v
            n += 1
            m = number(beta1) * m + number(1 - beta1) * d
            v = number(beta2) * v + number(1 - beta2) * (d * d)
            m_hat = m / number(1 - beta1**n)
            v_hat = v / number(1 - beta2**n)
            return theta - number(rate) * m_hat / (np.sqrt(v_hat) + number(1e-8))

        return step

    theta, state = params, training.adam_start(params)
    for grads in gradients:
        named = {"beta1": beta1, "beta2": beta2}
        theta, state = training.adam(theta, grads, state, rate, **named)
    assert state.n == len(gradients)
    same(theta, one_number_at_a_time(rule, params, gradients))


@given(seeds, sizes, rates)
def test_the_defaults_are_those_of_the_papers(seed, size, rate):
    params, (grads, *_) = draw(seed, size, "f8")
    velocity, means = training.momentum_start(params), training.adam_start(params)
    for step, state, named in (
        (training.momentum, velocity, {"decay": 0.9}),
        (training.adam, means, {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
    ):
        _, state = step(params, grads, state, rate)
        plain, spelled = (step(params, grads, state, rate, **extra)[0] for extra in ({}, named))
        same(plain, spelled)


STEPS = {
    "sgd": (lambda p: (), training.sgd),
    "momentum": (lambda p: (training.momentum_start(p),), training.momentum),
    "adam": (lambda p: (training.adam_start(p),), training.adam),
    "clip_norm": (lambda p: (), training.clip_norm),
}


def insides(value):
    """All arrays in params, states and pairs of them."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [a for part in value for a in insides(part)] if isinstance(value, tuple) else []


@pytest.mark.parametrize("name", STEPS)
@given(seed=seeds, size=sizes, dtype=dtypes)
def test_nothing_is_modified_or_shared_and_a_second_call_gives_the_same(name, seed, size, dtype):
    params, (grads, *_) = draw(seed, size, dtype)
    start, step = STEPS[name]
    state = start(params)
    before = [a.tobytes() for a in insides((params, grads, state))]
    first = insides(step(params, grads, *state, 0.1))
    wanted = [a.copy() for a in first]
    for a in first:
        a.fill(np.nan)
    assert [a.tobytes() for a in insides((params, grads, state))] == before
    for got, value in zip(insides(step(params, grads, *state, 0.1)), wanted, strict=True):
        np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_state_shares_no_array_with_itself_or_the_parameters(name):
    params, (grads, *_) = draw(0, (2, 3, 4), "f8")
    start, step = STEPS[name]
    state = start(params)
    arrays = insides((params, grads, state, *step(params, grads, *state, 0.1)))
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])


@given(seeds, sizes, dtypes, st.sampled_from([1e-3, 0.5, 3.0]))
def test_clipping_keeps_the_direction_and_never_exceeds_the_limit(seed, size, dtype, limit):
    params, (grads, *_) = draw(seed, size, dtype)
    flat = [float(g) for a in insides(grads) for g in a.flat]
    norm, eps = math.hypot(*flat), np.finfo(dtype).eps
    clipped, came = training.clip_norm(params, grads, limit)
    # n squares and their sum: n + 1 roundings in float64, halved by the root, one for the root
    assert abs(came - norm) <= (len(flat) + 2) * np.finfo(float).eps * norm
    if norm <= limit:
        same(clipped, grads)
        return
    # besides that of the norm: one each for the ratio, the ratio in the dtype, and the product
    slack = (len(flat) + 5) * eps
    now = [float(g) for a in insides(clipped) for g in a.flat]
    assert math.hypot(*now) <= limit * (1 + slack)
    for new, old in zip(now, flat, strict=True):
        assert abs(new - old * limit / norm) <= slack * abs(old) * limit / norm
    assert clipped.b is None
    assert {a.dtype for a in insides(clipped)} == {np.dtype(dtype)}


def test_gradients_at_or_under_the_limit_are_left_alone():
    grads = readout.Params(np.array([[3.0, 4.0]]), np.array([12.0]))
    for limit in (13.0, 13.5):
        clipped, norm = training.clip_norm(grads, grads, limit)
        assert norm == 13
        np.testing.assert_array_equal(clipped.V, grads.V)
        np.testing.assert_array_equal(clipped.c, grads.c)
    zero = readout.Params(np.zeros((1, 2)))
    assert training.clip_norm(zero, zero, 0.0)[1] == 0


@pytest.mark.parametrize("scale", [2.0**600, 2.0**-600])
def test_clipping_keeps_the_direction_of_huge_and_tiny_gradients(scale):
    grads = readout.Params(np.array([[3.0, 4.0]]) * scale)
    clipped, norm = training.clip_norm(grads, grads, 2.5 * scale)
    assert norm == 5 * scale
    np.testing.assert_array_equal(clipped.V, grads.V / 2)


def test_gradients_are_found_by_name():
    params, (grads, *_) = draw(0, (3, 3, 3), "f8")  # all of one shape: an exchange would fit
    others = namedtuple("Others", ["z", "c", "V", "W", "U", "x"])
    shuffled = others(x=None, z=None, **{k: getattr(grads, k) for k in "UWVc"})
    same(training.sgd(params, shuffled, 0.1), training.sgd(params, grads, 0.1))


def train(step, state, steps=200):
    """The class of a sequence is the sign of its first input, asked for at the last step."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 16, 2))
    targets = np.full((5, 16), -1)
    targets[-1] = x[0, :, 0] > 0
    params = model.init(rng, input_size=2, hidden_size=8, output_size=2)
    state, losses = state(params), []
    for _ in range(steps):
        loss, grads = model.loss_and_grads(params, x, targets)
        losses.append(loss)
        params, *state = step(params, grads, *state)
    return losses


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_two_hundred_steps_more_than_halve_the_loss(name):
    start, rule = STEPS[name]

    def step(*arguments):
        out = rule(*arguments, 0.01)
        return (out,) if name == "sgd" else out

    losses = train(step, start)
    assert losses[-1] < losses[0] / 2
