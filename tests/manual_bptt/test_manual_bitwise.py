from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import rnn
from manual_bptt.activations import ACTIVATIONS

# Properties that hold bit by bit for every activation, dtype and value.

Array = np.ndarray
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 6)] * 4)  # T, B, D, H
kinds = st.tuples(st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(["f4", "f8"]))


class Case(NamedTuple):
    U: Array
    W: Array
    b: Array
    x: Array
    s0: Array
    dstates: Array
    dlast: Array


def draw(seed, size, dtype):
    rng = np.random.default_rng(seed)
    T, B, D, H = size
    shapes = [(H, D), (H, H), (H,), (T, B, D), (B, H), (T, B, H), (B, H)]
    return rng, Case(*(rng.normal(size=shape).astype(dtype) for shape in shapes))


def forward(case, activation):
    return rnn.forward(rnn.Params(case.U, case.W, case.b), case.x, case.s0, activation)


def run(case, activation):
    states, cache = forward(case, activation)
    return {"states": states, **backward(case, cache)}


def backward(case, cache):
    params = rnn.Params(case.U, case.W, case.b)
    return rnn.backward(params, cache, case.dstates, case.dlast)._asdict()


def same(got, wanted):
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
        assert got[name].dtype == value.dtype


def only(array, *at):
    kept = np.zeros_like(array)
    kept[at] = array[at]
    return kept


@given(seeds, sizes, kinds)
def test_every_answer_has_the_dtype_and_shape_of_what_it_belongs_to(seed, size, kind):
    activation, dtype = kind
    _, case = draw(seed, size, dtype)
    out = run(case, activation)
    like = case._asdict() | {"states": case.dstates, "delta": case.dstates}
    for name, value in out.items():
        assert value.shape == like[name].shape
        assert value.dtype == np.dtype(dtype)


@given(seeds, sizes, kinds)
def test_an_activation_keeps_dtype_shape_and_its_argument(seed, size, kind):
    name, dtype = kind
    rng, _ = draw(seed, size, dtype)
    for function in (ACTIVATIONS[name].f, ACTIVATIONS[name].df):
        argument = rng.normal(size=size).astype(dtype)
        before = argument.tobytes()
        out = function(argument)
        assert (out.shape, out.dtype) == (argument.shape, argument.dtype)
        assert argument.tobytes() == before
        assert not np.shares_memory(out, argument)


@given(seeds, sizes, kinds)
def test_a_cotangent_says_nothing_about_later_steps(seed, size, kind):
    activation, dtype = kind
    rng, case = draw(seed, size, dtype)
    k = rng.integers(size[0])
    case = case._replace(dstates=only(case.dstates, k), dlast=np.zeros_like(case.dlast))
    out = run(case, activation)
    assert not out["delta"][k + 1 :].any()
    assert not out["x"][k + 1 :].any()


@given(seeds, sizes, kinds)
def test_an_input_changes_no_earlier_state(seed, size, kind):
    activation, dtype = kind
    rng, case = draw(seed, size, dtype)
    k = rng.integers(size[0])
    other = case.x.copy()
    other[k + 1 :] += 1
    before = forward(case, activation)[0]
    after = forward(case._replace(x=other), activation)[0]
    np.testing.assert_array_equal(before[: k + 1], after[: k + 1])


@given(seeds, sizes, kinds)
def test_sequences_of_a_batch_do_not_see_each_other(seed, size, kind):
    activation, dtype = kind
    rng, case = draw(seed, size, dtype)
    i = rng.integers(size[1])
    others = np.arange(size[1]) != i
    lone = case._replace(dstates=only(case.dstates, slice(None), i), dlast=only(case.dlast, i))
    out = run(lone, activation)
    assert not out["delta"][:, others].any()
    assert not out["x"][:, others].any()
    assert not out["s0"][others].any()
    moved = case._replace(x=case.x + only(case.x, slice(None), i), s0=case.s0 + only(case.s0, i))
    states = forward(moved, activation)[0]
    np.testing.assert_array_equal(states[:, others], out["states"][:, others])


@given(seeds, sizes, kinds)
def test_a_second_call_gives_the_same_even_after_the_first_answer_was_overwritten(seed, size, kind):
    activation, dtype = kind
    _, case = draw(seed, size, dtype)
    states, cache = forward(case, activation)
    first = backward(case, cache)
    wanted = {"states": states.copy(), **{k: v.copy() for k, v in first.items()}}
    for value in first.values():
        value.fill(np.nan)
    same({"states": states, **backward(case, cache)}, wanted)
    same(run(case, activation), wanted)


@given(seeds, sizes, kinds)
def test_nothing_that_comes_in_is_modified(seed, size, kind):
    activation, dtype = kind
    _, case = draw(seed, size, dtype)
    before = [array.tobytes() for array in case]
    _, cache = forward(case, activation)
    kept = [array.tobytes() for array in cache[:3]]
    backward(case, cache)
    assert [array.tobytes() for array in case] == before
    assert [array.tobytes() for array in cache[:3]] == kept


@given(seeds, sizes, kinds)
def test_what_is_absent_counts_as_zero(seed, size, kind):
    activation, dtype = kind
    _, case = draw(seed, size, dtype)
    for names in (["b"], ["s0"], ["dstates"], ["dlast"], ["b", "s0", "dstates", "dlast"]):
        zero = case._replace(**{k: np.zeros_like(getattr(case, k)) for k in names})
        absent = run(case._replace(**dict.fromkeys(names)), activation)
        wanted = run(zero, activation)
        if "b" in names:
            assert absent.pop("b") is None
            del wanted["b"]
        same(absent, wanted)


@given(seeds, sizes, kinds)
def test_class_indices_pick_the_states_of_one_hot_vectors(seed, size, kind):
    activation, dtype = kind
    rng, case = draw(seed, size, dtype)
    T, B, D, _ = size
    indices = rng.integers(0, D, (T, B))
    vectors = run(case._replace(x=np.eye(D, dtype=dtype)[indices]), activation)
    out = run(case._replace(x=indices), activation)
    # dU is a sum over steps, taken in another order: compared where it is exact, on whole numbers
    same(out, {k: vectors[k] for k in ("states", "W", "b", "s0", "delta")})


@given(seeds, sizes, st.sampled_from(["i1", "i2", "i8", "u1", "u8"]))
def test_class_indices_mean_the_same_in_every_integer_type(seed, size, integer):
    rng, case = draw(seed, size, "f8")
    indices = rng.integers(0, size[2], size[:2])
    wanted = run(case._replace(x=indices), "tanh")
    out = run(case._replace(x=indices.astype(integer)), "tanh")
    same(out, {k: v for k, v in wanted.items() if k != "x"})


@given(seeds, sizes, st.sampled_from(["f4", "f8"]))
def test_tanh_layers_are_odd(seed, size, dtype):
    _, case = draw(seed, size, dtype)
    odd = ("b", "x", "s0", "dstates", "dlast")
    negated = case._replace(**{k: -getattr(case, k) for k in odd})
    out = run(case, "tanh")
    negative = {k: -out[k] for k in ("states", "delta", "b", "x", "s0")}
    same(run(negated, "tanh"), negative | {k: out[k] for k in "UW"})


@given(seeds, sizes, st.sampled_from(sorted(ACTIVATIONS)))
def test_half_the_cotangents_give_half_the_gradients(seed, size, activation):
    # exact as long as no product of at most six f' leaves the normal numbers, so not in float32
    _, case = draw(seed, size, "f8")
    halved = case._replace(dstates=case.dstates / 2, dlast=case.dlast / 2)
    out = run(case, activation)
    states = out.pop("states")
    same(run(halved, activation), {k: v / 2 for k, v in out.items()} | {"states": states})


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@given(seed=seeds, size=sizes)
def test_relu_at_exactly_zero_has_derivative_zero(zero, dtype, seed, size):
    rng, case = draw(seed, size, dtype)
    k = rng.integers(size[0])
    W, b, x = np.zeros_like(case.W), np.zeros_like(case.b), case.x.copy()
    x[k] = zero
    out = run(case._replace(W=W, b=b, x=x), "relu")
    assert not out["states"][k].any()
    assert not out["delta"][k].any()
    alive = out["states"] > 0
    cotangents = case.dstates.copy()
    cotangents[-1] += case.dlast
    np.testing.assert_array_equal(out["delta"], np.where(alive, cotangents, 0))
