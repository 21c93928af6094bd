"""Cases side by side: padding that changes nothing, and what is judged alone."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from bptt_verify import Pair, draw, verify
from bptt_verify.batch import FEW, MOST, _shares
from bptt_verify.interpreter import MixedError
from bptt_verify.judge import Judge
from bptt_verify.noise import ALONE, FIRST, Noise, places
from bptt_verify.padding import cropped, inside, padded
from bptt_verify.pairs import REGISTRY
from bptt_verify.primitives import SAMPLES
from bptt_verify.shapes import Shape
from bptt_verify.tolerance import multiplier
from dense import PAIR as DENSE
from dense import backward

F64 = np.dtype(np.float64)
CASES = list(draw.several(DENSE, 100, 0))


def drawn_cases(pair, count, seed=0):
    return list(draw.several(pair, count, seed))


def answered(judge, cases):
    for chosen, ceiling in judge.batches.together(cases):
        drawn = [judge.drawn(case) for case in chosen]
        answers = judge.oracle.answers(chosen, drawn, F64, ceiling)
        for j, (case, arrays) in enumerate(zip(chosen, drawn, strict=True)):
            yield case, arrays, answers.of(j, judge.oracle.shapes, case.sizes)


@given(st.data(), st.sampled_from(["T B H", "4H D", "2 H", "", "B 3H T", "H"]))
def test_what_is_padded_is_cropped_to_the_same(data, text):
    shape = Shape(text)
    ceiling = dict.fromkeys("TBHD", 6)
    sizes = [data.draw(st.fixed_dictionaries({x: st.integers(1, 6) for x in "TBHD"})) for _ in "ab"]
    arrays = [np.random.default_rng(0).standard_normal(shape.sized(size)) for size in sizes]
    together = padded(arrays, shape, sizes, ceiling)
    assert together.shape == (2, *shape.sized(ceiling))
    ones = padded([np.ones(a.shape, np.bool_) for a in arrays], shape, sizes, ceiling)
    np.testing.assert_array_equal(inside(shape, sizes, ceiling), ones)
    assert np.sum(together) == pytest.approx(sum(np.sum(a) for a in arrays))
    for one, a, size in zip(together, arrays, sizes, strict=True):
        np.testing.assert_array_equal(cropped(one, shape, size), a)


def test_gates_are_padded_each():
    together = padded(
        [np.arange(4.0).reshape(4, 1)], Shape("4H D"), [{"H": 1, "D": 1}], {"H": 2, "D": 1}
    )
    assert together[0, :, 0].tolist() == [0, 0, 1, 0, 2, 0, 3, 0]


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        ("rnn", {"B", "D", "H"}),  # the last state depends on T
        ("readout", {"T", "B", "H"}),  # the softmax runs along C
        ("model", {"B", "D", "H"}),  # and so does its δ_T
        ("update", {"D", "H", "C"}),
    ],
)
def test_letters_whose_padding_changes_nothing_are_found(name, neutral):
    assert Judge(REGISTRY[name], F64).batches.neutral == neutral


def test_a_letter_that_is_averaged_over_is_not_padded():
    mean = replace(DENSE, twin=lambda i: {"y": jnp.tanh((i["x"] - i["x"].mean(0)) @ i["w"].T)})
    assert Judge(mean, F64).batches.neutral == {"D", "H"}


@pytest.mark.parametrize("name", ["rnn", "readout", "model"])
def test_answers_side_by_side_are_those_alone(name):
    judge = Judge(REGISTRY[name], F64)
    ratios = []
    for case, arrays, answer in answered(judge, drawn_cases(judge.pair, 60)):
        alone = judge.oracle.answer(case, arrays, F64)
        assert answer.out_of_range == alone.out_of_range
        for quantity, (value, sigma) in alone.quantities.items():
            found = answer.quantities[quantity]
            assert found.value.shape == value.shape
            with np.errstate(invalid="ignore"):
                near = np.abs(found.value - value) <= multiplier(F64) * (sigma + found.sigma)
            assert (near | (found.value == value) | ~np.isfinite(value)).all()
            both = (sigma > 0) & (found.sigma > 0) & np.isfinite(sigma) & np.isfinite(found.sigma)
            ratios.extend((found.sigma[both] / sigma[both]).flat)
    assert 0.8 < np.median(ratios) < 1.25  # a padded sum has no more terms


def test_of_many_cases_small_ones_and_large_ones_stand_apart():
    batches = Judge(DENSE, F64).batches
    cases = drawn_cases(DENSE, 4000)
    made = list(batches.together(cases))
    assert sorted(str(case) for chosen, _ in made for case in chosen) == sorted(map(str, cases))
    assert all(len(chosen) >= FEW for chosen, _ in made)
    assert len({str(ceiling) for _, ceiling in made}) >= 4
    for chosen, ceiling in made:
        assert all(n <= ceiling[k] for case in chosen for k, n in case.sizes.items())
    padded = sum(len(chosen) * draw.entries(DENSE, ceiling) for chosen, ceiling in made)
    assert padded < 0.7 * len(cases) * draw.entries(DENSE, dict.fromkeys(DENSE.letters(), 8))


def test_a_few_cases_share_one_ceiling():
    batches = Judge(DENSE, F64).batches
    cases = [replace(case, fills=CASES[0].fills) for case in CASES]
    assert len(list(batches.together(cases))) == 1


def test_large_cases_stand_in_smaller_batches():
    cases = [replace(case, fills=CASES[0].fills) for case in CASES]
    assert len(_shares(cases, 100)) == 1
    shares = _shares(cases, MOST // 10)
    assert [len(share) for share in shares] == [10] * 10
    assert [case for share in shares for case in share] == cases


def test_the_first_samples_are_some_of_all():
    rng = np.random.default_rng(0)
    every, first = Noise(places(rng)), Noise(places(rng), FIRST)
    both = every((1 + SAMPLES, 2, 3, 4)), first((1 + len(FIRST), 2, 3, 4))
    for axis in (1, 2, 3):
        equal = [(a == a.take([0], axis)).reshape(len(a), -1).all(axis=1) for a in both]
        np.testing.assert_array_equal(equal[1], equal[0][[0, *FIRST]])
    shared = [s > ALONE for s in FIRST]
    assert 0 < sum(shared) < len(FIRST)


def test_sigma_of_a_few_samples_is_what_that_of_all_is_at_least():
    judge = Judge(REGISTRY["rnn"], F64)
    ratios = []
    for chosen, ceiling in judge.batches.together(drawn_cases(judge.pair, 200)):
        drawn = [judge.drawn(case) for case in chosen]
        every = judge.oracle.answers(chosen, drawn, F64, ceiling)
        few = judge.oracle.answers(chosen, drawn, F64, ceiling, thrifty=True)
        for quantity, (value, sigma) in every.quantities.items():
            least = few.quantities[quantity]
            np.testing.assert_array_equal(least.value, value)
            moved = (sigma > 0) & np.isfinite(sigma)
            ratios.extend((least.sigma[moved] / sigma[moved]).flat)
    assert np.quantile(ratios, 0.9) < 1  # the samples are drawn anew, so not always


@pytest.mark.parametrize("wrong", [False, True])
def test_a_few_samples_say_what_all_say(monkeypatch, wrong):
    def off(kept, d):
        found = backward(kept, d)
        return {**found, "x": found["x"] * (1 + 1e-6)}

    pair = replace(DENSE, backward=off) if wrong else DENSE
    said = {}
    for many in (0, 10**9):
        monkeypatch.setattr("bptt_verify.judge.MANY", many)
        found = Judge(pair, F64).all(CASES)
        said[many] = {
            str(case): {name: c.ok for name, c in (rows or {}).items()} for case, rows in found
        }
    thrifty, full = said.values()
    assert thrifty == full
    assert any(not rows["dx"] for rows in full.values()) is wrong


def test_a_few_samples_report_what_all_report(monkeypatch):
    reports = {}
    for many in (0, 10**9):
        monkeypatch.setattr("bptt_verify.judge.MANY", many)
        reports[many] = verify(REGISTRY["rnn"], 800, 5)
    thrifty, full = reports.values()
    assert thrifty.ok
    assert (thrifty.cases, thrifty.redrawn) == (full.cases, full.redrawn)
    for a, b in zip(thrifty.rows, full.rows, strict=True):
        assert (a.name, a.cases, a.verdict) == (b.name, b.cases, b.verdict)
        if a.name in REGISTRY["rnn"].quantities():
            assert 0.5 * b.error <= a.error <= 2 * b.error  # σ is drawn anew


def test_cases_that_take_different_branches_are_judged_alone():
    def twin(i):
        first = i["x"].ravel()[0]
        return {"y": lax.cond(first > 0, lambda a: jnp.tanh(a), lambda a: a, i["x"] @ i["w"].T)}

    def forward(i):
        y = i["x"] @ i["w"].T
        linear = not i["x"].flat[0] > 0
        return {"y": y if linear else np.tanh(y)}, (i["x"], i["w"], y, linear)

    def backward(kept, d):
        x, w, y, linear = kept
        delta = d["y"] * (1 if linear else 1 - np.tanh(y) ** 2)
        return {"x": delta @ w, "w": delta.T @ x}

    pair = replace(
        DENSE, forward=forward, backward=backward, twin=twin, without={"adjoint of jax.jvp"}
    )
    judge = Judge(pair, F64)
    cases = drawn_cases(pair, 60)
    with pytest.raises(MixedError):
        list(answered(judge, cases))
    rows = [found for _, found in judge.all(cases) if found]
    assert len(rows) > 40
    assert all(c.ok for found in rows for c in found.values())


def test_a_mistake_is_found_side_by_side_too():
    wrong = replace(DENSE, backward=lambda kept, d: {**backward(kept, d), "x": d["y"] @ kept[1]})
    judge = Judge(wrong, F64)
    failing = [found for _, found in judge.all(drawn_cases(wrong, 40)) if found]
    assert sum(not found["dx"].ok for found in failing) > 20


def test_no_verdict_rests_on_padding_alone():
    """A mean for one combination of options, and a subject that divides by the ceiling."""

    def twin(i, red, kind):
        y = jnp.tanh(i["x"])
        return {"y": y.mean(0) if (red, kind) == ("mean", "a") else y.sum(0)}

    def forward(i, red, kind):
        y = np.tanh(i["x"])
        scale = 8 if (red, kind) == ("mean", "a") else 1
        return {"y": (y.sum(0) / scale).astype(y.dtype)}, (y, scale)

    pair = Pair(
        name="lock",
        inputs={"x": "N H"},
        outputs={"y": "H"},
        options={"red": ("sum", "mean"), "kind": ("a", "b")},
        forward=forward,
        backward=lambda c, d: {"x": (d["y"] / c[1] * (1 - c[0] ** 2)).astype(c[0].dtype)},
        twin=twin,
    )
    judge = Judge(pair, F64)
    assert "N" not in judge.batches.neutral
    judge.oracle.neutral = {"N", "H"}  # were it so, the case judged by itself would tell
    assert any(found and not found["y"].ok for _, found in judge.all(drawn_cases(pair, 40)))
