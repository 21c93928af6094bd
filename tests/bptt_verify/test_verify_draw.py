from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verify import Index, Mask, Pair, Probability, draw
from bptt_verify.pairs import REGISTRY
from bptt_verify.shapes import Shape

F32 = np.dtype(np.float32)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_case_reads_back_from_its_own_line(name):
    pair = REGISTRY[name]

    @given(draw.cases(pair))
    def reads_back(case):
        assert draw.parse(pair, str(case)) == case

    reads_back()


@given(draw.cases(REGISTRY["model"]))
def test_a_case_gives_the_same_arrays_again(case):
    pair = REGISTRY["model"]
    first, again = (draw.realise(pair, case, F32) for _ in range(2))
    for a, b in zip(first.inputs.values(), again.inputs.values(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.flags.writeable


@given(draw.cases(REGISTRY["model"]))
def test_arrays_have_the_declared_shapes_and_kinds(case):
    pair = REGISTRY["model"]
    drawn = draw.realise(pair, case, F32)
    for name, shape in pair.floats.items():
        assert drawn.inputs[name].shape == Shape(shape).sized(case.sizes)
        assert drawn.inputs[name].dtype == F32
        assert np.isfinite(drawn.inputs[name]).all()
    targets = drawn.inputs["targets"]
    assert targets.min() >= -1
    assert targets.max() < case.sizes["C"]
    assert drawn.inputs["mask"].dtype == np.bool_
    assert any(d.any() for d in drawn.cotangents.values())


@given(draw.cases(REGISTRY["readout-probability"]))
def test_probabilities_sum_to_one(case):
    targets = draw.realise(REGISTRY["readout-probability"], case, F32).inputs["targets"]
    assert (targets >= 0).all()
    np.testing.assert_array_max_ulp(targets.sum(-1), np.ones(targets.shape[:-1], F32), maxulp=16)


def seen(what, pair="rnn", cases=400):
    found = []

    @settings(max_examples=cases)
    @given(draw.cases(REGISTRY[pair]))
    def collect(case):
        found.append(what(case))

    collect()
    return found


def test_square_and_pairwise_distinct_shapes_and_single_steps_are_drawn():
    sizes = seen(lambda case: case.sizes)
    assert any(s["D"] == s["H"] > 1 for s in sizes)
    assert any(len({s["T"], s["B"], s["D"], s["H"]}) == 4 for s in sizes)
    assert any(s["T"] == 1 for s in sizes)
    assert any(s["T"] == 8 for s in sizes)


def test_scales_run_from_1e_6_to_1e3_and_carries_do_not_decay():
    fills = seen(lambda case: case.fills)
    assert {"normal:-6", "normal:3", "grid"} <= {f["x"] for f in fills}
    assert {"radius:1", "radius:1.1"} <= {f["W"] for f in fills}
    assert any(f["s0"] != "zeros" and f["b"] != "zeros" for f in fills)
    assert all(f["ds"] != "zeros" or f["dlast"] != "zeros" for f in fills)


def test_relu_meets_its_kink_exactly():
    def at_the_kink(case):
        drawn = draw.realise(REGISTRY["rnn"], case, F32).inputs
        a = drawn["x"][0] @ drawn["U"].T + drawn["s0"] @ drawn["W"].T + drawn["b"]
        return case.options["activation"] == "relu" and bool((a == 0).any())

    assert any(seen(at_the_kink))


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("radius:1.1", lambda w: abs(np.abs(np.linalg.eigvals(w)).max() - 1.1) < 1e-9),
        ("zeros", lambda w: not w.any()),
        ("grid", lambda w: (w * 4 == (w * 4).round()).all() and abs(w).max() <= 1),
        ("single", lambda w: np.count_nonzero(w) == 1),
        ("normal:-6", lambda w: 0 < abs(w).max() < 1e-5),
    ],
)
def test_fillings(kind, check):
    assert check(draw.fill(kind, np.random.default_rng(0).standard_normal((6, 6)), True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("T", "expected name=value, got 'T'"),
        ("T=0", "T: expected a whole number"),
        ("T=-1", "T: expected a whole number"),
        ("T=two", "T: expected a whole number, at least 1, got 'two'"),
        ("Q=1", "expected one of T, B"),
        ("activation=gelu", "activation: expected one of tanh, sigmoid, relu, got 'gelu'"),
        ("x=uniform", "expected normal:EXPONENT"),
        ("x=normal:big", "expected normal:EXPONENT"),
        ("seed=x", "seed: expected a whole number"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        draw.parse(REGISTRY["rnn"], text)


@pytest.mark.parametrize("text", ["T,B", "t-1", "0", "4*H", "é é!", "-1"])
def test_a_shape_that_cannot_be_read_is_named(text):
    with pytest.raises(ValueError, match=r"shape .*: expected letters, numbers or multiples"):
        Shape(text)


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        (
            "inputs",
            {"x": ("T", "B")},
            r"inputs\['x'\]: expected a shape in letters .* \('T', 'B'\)",
        ),
        ("inputs", {"x": Index(("T",), below="C")}, r"inputs\['x'\]: expected a shape"),
        ("outputs", {"y": None}, r"outputs\['y'\]: expected a shape .* got None"),
        ("outputs", {"y": Mask("D")}, r"outputs\['y'\]: expected a shape"),
        ("taps", "delta", "taps: expected a dict, got str"),
        ("probes", {"a": 3}, r"probes\['a'\]: expected a shape"),
        ("inputs", {"x": Index("T", below=5)}, r"inputs\['x'\]: below: expected a letter, got 5"),
        ("options", {"r": True}, r"options\['r'\]: expected a list of values, got True"),
        ("options", {"r": "no"}, r"options\['r'\]: expected a list of values, got 'no'"),
        ("states", "s", "states: expected a dict, got str"),
    ],
)
def test_what_is_no_shape_is_named(field, given, message):
    with pytest.raises(ValueError, match=message):
        replace(REGISTRY["rnn"], **{field: given})


@given(st.integers(1, 9))
def test_shapes_by_letter(n):
    assert Shape("4H H 2 ").sized({"H": n}) == (4 * n, n, 2)
    assert Shape("").sized({}) == ()
    assert Shape("4H H").is_recurrent
    assert not Shape("H 4H").is_recurrent
    assert not Shape("H D").is_recurrent


def nothing(*_, **__):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": {"x": "T!"}}, "shape 'T!'"),
        ({"outputs": {"y": "K"}}, "letter K: no input has it"),
        (
            {"inputs": {"x": "T", "k": Index("T", below="Q")}},
            r"inputs\['k'\]: below: expected a number, or a letter in the shape of an input, got",
        ),
        ({"taps": {"x": "T"}}, "x: an input and a tap have the same name"),
        ({"outputs": {"dx": "T"}}, "dx: two quantities would have this name"),
        ({"equations": {"q": None}}, "equations: no quantity q"),
        ({"inputs": {"x": "T", "dy": "T"}}, "dy: also the name of an output's cotangent"),
        ({"inputs": {"C": "C"}}, "C: two of letter, option, input, seed"),
        ({"options": {"seed": (1,)}}, "seed: two of letter"),
        ({"options": {"k": ()}}, "option 'k': expected values that print differently"),
        ({"options": {"k": (1, "1")}}, "option 'k': expected values that print differently"),
        ({"name": 5}, "name: expected words, got 5"),
        ({"name": ""}, "name: expected words, got ''"),
        ({"inputs": {"x": "T", "p": Probability("")}}, "expected an axis to sum to 1 over"),
        ({"forward": 3}, "forward: expected a function, got int"),
        ({"backward": 3}, "backward: expected a function, got int"),
        ({"twin": None}, "twin: expected a function, got NoneType"),
    ],
)
def test_a_pair_that_cannot_be_is_named(wrong, message):
    right = {
        "name": "mine",
        "inputs": {"x": "T"},
        "outputs": {"y": "T"},
        "forward": nothing,
        "backward": nothing,
        "twin": nothing,
    }
    with pytest.raises(ValueError, match=message):
        Pair(**{**right, **wrong})


def test_inputs_without_gradient_are_no_quantities():
    pair = Pair(
        name="mine",
        inputs={"x": "T C", "i": Index("T", below="C"), "m": Mask("T"), "p": Probability("T C")},
        outputs={"y": ""},
        forward=nothing,
        backward=nothing,
        twin=nothing,
    )
    assert pair.quantities() == ["y", "dx"]
    assert pair.letters() == ["T", "C"]


def test_no_case_comes_twice():
    cases = list(draw.several(REGISTRY["rnn"], 3000, 0))
    assert len(cases) == len(set(map(str, cases))) == 3000
    sizes = [set(case.sizes.values()) for case in cases]
    assert {frozenset({1}), frozenset({8})} <= {frozenset(s) for s in sizes if len(s) == 1}
