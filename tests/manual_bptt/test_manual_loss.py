from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import model, readout, rnn
from manual_bptt.activations import ACTIVATIONS

# Bit by bit properties of the readout, and of the model on top of it.

Array = np.ndarray
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 6)] * 5)  # T, B, D, H, C
kinds = st.tuples(st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(["f4", "f8"]))


class Case(NamedTuple):
    params: model.Params
    x: Array
    s0: Array
    targets: Array
    mask: Array
    activation: str


def draw(seed, size, kind):
    rng = np.random.default_rng(seed)
    T, B, D, H, C = size
    activation, dtype = kind
    shapes = [(H, D), (H, H), (C, H), (H,), (C,), (T, B, D), (B, H)]
    *weights, x, s0 = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    targets, mask = rng.integers(0, C, (T, B)), rng.random((T, B)) < 0.6
    return rng, Case(model.Params(*weights), x, s0, targets, mask, activation)


def run(case):
    named = {"s0": case.s0, "mask": case.mask, "activation": case.activation}
    loss, grads = model.loss_and_grads(case.params, case.x, case.targets, **named)
    return {"loss": loss, **grads._asdict()}


def same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
        assert got[name].dtype == value.dtype


@given(seeds, sizes, kinds)
def test_every_answer_has_the_dtype_and_shape_of_what_it_belongs_to(seed, size, kind):
    _, case = draw(seed, size, kind)
    out = run(case)
    T, B, _, H, C = size
    shapes = {k: v.shape for k, v in case.params._asdict().items()}
    shapes |= {"loss": (), "x": case.x.shape, "s0": (B, H), "z": (T, B, C), "delta": (T, B, H)}
    assert {k: v.shape for k, v in out.items()} == shapes
    assert {v.dtype for v in out.values()} == {np.dtype(kind[1])}


@given(seeds, sizes, kinds)
def test_a_masked_step_has_no_error_and_its_target_does_not_matter(seed, size, kind):
    rng, case = draw(seed, size, kind)
    out = run(case)
    assert not out["z"][~case.mask].any()
    others = np.where(case.mask, case.targets, rng.integers(-1, size[4], size[:2]))
    same(run(case._replace(targets=others)), out)


@given(seeds, sizes, kinds)
def test_the_target_minus_one_is_a_mask(seed, size, kind):
    _, case = draw(seed, size, kind)
    absent = np.where(case.mask, case.targets, -1)
    same(run(case._replace(targets=absent, mask=None)), run(case))


@given(seeds, sizes, kinds)
def test_a_mask_of_all_true_is_no_mask(seed, size, kind):
    _, case = draw(seed, size, kind)
    everything = np.ones_like(case.mask)
    same(run(case._replace(mask=None)), run(case._replace(mask=everything)))


@given(seeds, sizes, kinds)
def test_one_hot_targets_give_the_gradients_of_class_indices(seed, size, kind):
    rng, case = draw(seed, size, kind)
    one_hot = case._replace(targets=np.eye(size[4], dtype=kind[1])[case.targets])
    # o - 0 and o - 1 are the same subtractions on both ways: exact
    indices, vectors = run(case), run(one_hot)
    del indices["loss"], vectors["loss"]
    same(vectors, indices)
    # a loss of several steps is a sum in another order; that of one step is the same number
    lone = np.zeros_like(case.mask)
    lone[rng.integers(size[0]), rng.integers(size[1])] = True
    same(run(one_hot._replace(mask=lone)), run(case._replace(mask=lone)))


@given(seeds, sizes, kinds)
def test_masked_probabilities_do_not_matter(seed, size, kind):
    rng, case = draw(seed, size, kind)
    one_hot = np.eye(size[4], dtype=kind[1])[case.targets]
    others = np.eye(size[4], dtype=kind[1])[rng.integers(0, size[4], size[:2])]
    others = np.where(case.mask[..., None], one_hot, others)
    same(run(case._replace(targets=others)), run(case._replace(targets=one_hot)))


@given(seeds, sizes, kinds)
def test_without_any_counted_step_loss_and_gradients_are_zero(seed, size, kind):
    _, case = draw(seed, size, kind)
    one_hot = np.eye(size[4], dtype=kind[1])[case.targets]
    nothing = np.zeros_like(case.mask)
    for silent in (
        case._replace(mask=nothing),
        case._replace(mask=nothing, targets=one_hot),
        case._replace(mask=None, targets=np.full_like(case.targets, -1)),
    ):
        for name, value in run(silent).items():
            assert not np.any(value), name
            assert value.dtype == np.dtype(kind[1])


@given(seeds, sizes, kinds)
def test_steps_after_the_last_counted_one_have_no_error(seed, size, kind):
    rng, case = draw(seed, size, kind)
    k = rng.integers(size[0])
    mask = case.mask.copy()
    mask[k + 1 :] = False
    out = run(case._replace(mask=mask))
    for name in ("z", "delta", "x"):
        assert not out[name][k + 1 :].any(), name


@given(seeds, sizes, kinds)
def test_absent_biases_and_state_count_as_zero(seed, size, kind):
    _, case = draw(seed, size, kind)
    p = case.params
    zero = case._replace(
        params=p._replace(b=np.zeros_like(p.b), c=np.zeros_like(p.c)), s0=np.zeros_like(case.s0)
    )
    absent = run(case._replace(params=p._replace(b=None, c=None), s0=None))
    assert absent.pop("b") is absent.pop("c") is None
    same(absent, {k: v for k, v in run(zero).items() if k not in "bc"})


@given(seeds, sizes, kinds)
def test_nothing_that_comes_in_is_modified_and_a_second_call_gives_the_same(seed, size, kind):
    _, case = draw(seed, size, kind)
    for targets in (case.targets, np.eye(size[4], dtype=kind[1])[case.targets]):
        arrays = [*case.params, case.x, case.s0, targets, case.mask]
        before = [array.tobytes() for array in arrays]
        named = {"s0": case.s0, "mask": case.mask, "activation": case.activation}
        _, cache = model.forward(case.params, case.x, targets, **named)
        first = model.backward(case.params, cache)._asdict()
        wanted = {k: v.copy() for k, v in first.items()}
        for value in first.values():
            value.fill(np.nan)
        same(model.backward(case.params, cache)._asdict(), wanted)
        assert [array.tobytes() for array in arrays] == before


@given(seeds, sizes, st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from([-1.0, 0.5, 2.0, 0.0]))
def test_the_cotangent_of_the_loss_scales_everything(seed, size, activation, dloss):
    # a sign, or a power of two: exact as long as no product of at most six f' leaves the normal
    # numbers, so not in float32
    _, case = draw(seed, size, (activation, "f8"))
    named = {"mask": case.mask, "activation": activation}
    _, cache = model.forward(case.params, case.x, case.targets, **named)
    out = model.backward(case.params, cache)._asdict()
    wanted = {k: v * dloss for k, v in out.items()}
    same(model.backward(case.params, cache, dloss)._asdict(), wanted)


@given(seeds, sizes, kinds)
def test_the_two_layers_meet_in_the_states(seed, size, kind):
    _, case = draw(seed, size, kind)
    p, activation = case.params, kind[0]
    layer, output = rnn.Params(p.U, p.W, p.b), readout.Params(p.V, p.c)
    states, cache = rnn.forward(layer, case.x, case.s0, activation)
    loss, above = readout.forward(output, states, case.targets, case.mask)
    head = readout.backward(output, above)
    body = rnn.backward(layer, cache, head.states)
    wanted = {"loss": loss, **head._asdict(), **body._asdict()}
    del wanted["states"]
    same(run(case), wanted)


@given(seeds, sizes, st.sampled_from(["f4", "f8"]))
def test_logits_are_equation_3(seed, size, dtype):
    # on whole numbers, where every order of adding gives the same
    T, B, _, H, C = size
    rng = np.random.default_rng(seed)
    V, c, states = (rng.integers(-9, 10, s).astype(dtype) for s in [(C, H), C, (T, B, H)])
    z = readout.logits(readout.Params(V, c), states)
    for t, i, k in np.ndindex(z.shape):
        assert z[t, i, k] == sum(V[k, j] * states[t, i, j] for j in range(H)) + c[k]
    assert z.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("one_hot", [False, True])
@given(seed=seeds, size=sizes)
def test_huge_logits_give_the_right_loss_and_finite_gradients(dtype, one_hot, seed, size):
    # e^-1e4 is 0 beside 1, so log o_k is z_k - max z: whole numbers, and o is exactly one-hot
    T, B, _, H, _ = size
    rng = np.random.default_rng(seed)
    c = np.array([1e4, -1e4, 0], dtype)
    V, states = rng.normal(size=(3, H)).astype(dtype), np.zeros((T, B, H), dtype)
    indices = rng.integers(0, 3, (T, B))
    targets = np.eye(3, dtype=dtype)[indices] if one_hot else indices
    loss, cache = readout.forward(readout.Params(V, c), states, targets)
    grads = readout.backward(readout.Params(V, c), cache)
    assert loss == (c.max() - c[indices]).sum()
    np.testing.assert_array_equal(grads.z, np.eye(3)[np.zeros_like(indices)] - np.eye(3)[indices])
    assert all(np.isfinite(g).all() and g.dtype == np.dtype(dtype) for g in grads)
    assert loss.dtype == np.dtype(dtype)


@given(seeds, sizes, st.sampled_from(["f4", "f8"]))
def test_the_same_number_on_all_logits_changes_nothing(seed, size, dtype):
    # whole logits and a whole shift: z - max z is exact
    T, B, _, H, C = size
    rng = np.random.default_rng(seed)
    V, states = (rng.integers(-3, 4, s).astype(dtype) for s in [(C, H), (T, B, H)])
    c, targets = rng.integers(-9, 10, C).astype(dtype), rng.integers(0, C, (T, B))
    first, cache = readout.forward(readout.Params(V, c), states, targets)
    second, shifted = readout.forward(readout.Params(V, c + 64), states, targets)
    assert first == second
    np.testing.assert_array_equal(cache.o, shifted.o)
