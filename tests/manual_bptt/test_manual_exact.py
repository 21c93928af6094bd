"""Properties of the layer that hold without any rounding.

Weights, inputs and cotangents are small whole numbers and f is relu, so every value on the way is
a whole number too. At sizes of at most 6 the worst is |s| <= 39 (1 + 6 + ... + 6^5) + 3 * 6^6
< 6e5, |delta| < 2e5 and, summed over at most 2 * 36 steps, |dW| < 1e13 < 2^53: float64 is exact.
"""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt import rnn

Array = np.ndarray
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(*[st.integers(1, 6)] * 4)  # T, B, D, H


class Case(NamedTuple):
    params: rnn.Params
    x: Array
    s0: Array
    dstates: Array
    dlast: Array


def whole(rng, limit, *shape):
    return rng.integers(-limit, limit + 1, shape).astype(float)


def draw(seed, size):
    rng = np.random.default_rng(seed)
    T, B, D, H = size
    params = rnn.Params(whole(rng, 2, H, D), whole(rng, 1, H, H), whole(rng, 3, H))
    x, s0 = whole(rng, 3, T, B, D), whole(rng, 3, B, H)
    return rng, Case(params, x, s0, whole(rng, 3, T, B, H), whole(rng, 3, B, H))


def run(case):
    states, cache = rnn.forward(case.params, case.x, case.s0, "relu")
    grads = rnn.backward(case.params, cache, case.dstates, case.dlast)
    return {"states": states, **grads._asdict()}


def of_sequences(case, which):
    p, x, s0, dstates, dlast = case
    return Case(p, x[:, which], s0[which], dstates[:, which], dlast[which])


def same(got, wanted):
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
        assert got[name].dtype == value.dtype == np.float64


def batch_of(out, which):
    over_time = {k: out[k][:, which] for k in ("states", "x", "delta")}
    return over_time | {"s0": out["s0"][which]}


def weights_of(out):
    return {k: out[k] for k in "UWb"}


@given(seeds, sizes)
def test_reordering_the_sequences_reorders_what_belongs_to_them_and_nothing_else(seed, size):
    rng, case = draw(seed, size)
    order = rng.permutation(size[1])
    whole_batch = run(case)
    same(run(of_sequences(case, order)), batch_of(whole_batch, order) | weights_of(whole_batch))


@given(seeds, sizes)
def test_a_batch_is_the_sum_of_its_sequences(seed, size):
    _, case = draw(seed, size)
    whole_batch = run(case)
    singles = [run(of_sequences(case, [i])) for i in range(size[1])]
    for i, single in enumerate(singles):
        same(single, batch_of(whole_batch, [i]))
    same(whole_batch, {k: sum(single[k] for single in singles) for k in "UWb"})


@given(seeds, sizes)
def test_every_sequence_twice_doubles_the_gradients_of_the_weights(seed, size):
    _, case = draw(seed, size)
    once = run(case)
    twice = run(of_sequences(case, [*range(size[1])] * 2))
    same(twice, {k: 2 * once[k] for k in "UWb"})


@given(seeds, sizes.filter(lambda size: size[0] > 1), st.data())
def test_two_halves_joined_by_their_states_and_cotangents_are_the_whole(seed, size, data):
    _, case = draw(seed, size)
    k = data.draw(st.integers(1, size[0] - 1))
    p, x, s0, dstates, dlast = case
    middle = run(Case(p, x[:k], s0, dstates[:k], np.zeros_like(s0)))["states"][-1]
    late = run(Case(p, x[k:], middle, dstates[k:], dlast))
    early = run(Case(p, x[:k], s0, dstates[:k], late["s0"]))
    joined = {name: np.concatenate([early[name], late[name]]) for name in ("states", "x", "delta")}
    summed = {name: early[name] + late[name] for name in "UWb"}
    same(run(case), joined | summed | {"s0": early["s0"]})


@given(seeds, sizes)
def test_renaming_the_hidden_units_renames_their_gradients(seed, size):
    rng, (p, x, s0, dstates, dlast) = draw(seed, size)
    h = rng.permutation(size[3])
    renamed = rnn.Params(p.U[h], p.W[h][:, h], p.b[h])
    out = run(Case(p, x, s0, dstates, dlast))
    wanted = {k: out[k][..., h] for k in ("states", "delta", "s0", "b")}
    wanted |= {"U": out["U"][h], "W": out["W"][h][:, h], "x": out["x"]}
    same(run(Case(renamed, x, s0[:, h], dstates[..., h], dlast[:, h])), wanted)


@given(seeds, sizes)
def test_renaming_the_inputs_renames_their_gradients(seed, size):
    rng, case = draw(seed, size)
    d = rng.permutation(size[2])
    renamed = case._replace(params=case.params._replace(U=case.params.U[:, d]), x=case.x[..., d])
    out = run(case)
    same(run(renamed), out | {"U": out["U"][:, d], "x": out["x"][..., d]})


@given(seeds, sizes)
def test_gradients_add_up_over_cotangents(seed, size):
    rng, case = draw(seed, size)
    other = case._replace(
        dstates=whole(rng, 3, *case.dstates.shape), dlast=whole(rng, 3, *case.dlast.shape)
    )
    both = case._replace(dstates=case.dstates + other.dstates, dlast=case.dlast + other.dlast)
    one, two = run(case), run(other)
    same(run(both), {k: one[k] + two[k] for k in one if k != "states"})


@given(seeds, sizes)
def test_a_cotangent_of_the_last_state_is_one_of_the_last_step(seed, size):
    _, case = draw(seed, size)
    moved = case.dstates.copy()
    moved[-1] += case.dlast
    same(run(case._replace(dstates=moved, dlast=np.zeros_like(case.dlast))), run(case))


@given(seeds, sizes)
def test_class_indices_are_one_hot_vectors(seed, size):
    rng, case = draw(seed, size)
    T, B, D, _ = size
    indices = rng.integers(0, D, (T, B))
    vectors = run(case._replace(x=np.eye(D)[indices]))
    out = run(case._replace(x=indices))
    assert out["x"] is None
    same(out, {k: v for k, v in vectors.items() if k != "x"})
