"""Every property holds for the built-in pairs, and is seen to fail for a planted mistake."""

import dataclasses
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from bptt_verify import Index, Mask, Odd, Pair, draw, properties, subject, verify
from bptt_verify.oracle import Oracle
from bptt_verify.pairs import ARTICLE, REGISTRY, model_pair, rnn_pair
from bptt_verify.properties import PROPERTIES, Trial
from bptt_verify.tolerance import multiplier
from manual_bptt import rnn
from planting import drawn_until, planted

PAIRS = {**ARTICLE, "model-index": model_pair(indices=True), "gru": REGISTRY["gru"]}
ALWAYS = {"strides", "backward again", "results stay"}
LINEAR = {n for n in PROPERTIES if n.startswith("linear")} | {"adjoint of jax.jvp"}
SYMMETRIC = {"hidden permutation", "batch permutation", "causality"}
RNN = "T=4 B=3 D=2 H=5"


def trial(pair, case, dtype="float64", oracle=None):
    kind = np.dtype(dtype)
    if isinstance(case, str):
        case = draw.parse(pair, case)
    oracle = oracle or Oracle(pair, multiplier(kind))
    drawn = draw.realise(pair, case, kind)
    answer = oracle.answer(case, drawn, kind)
    return Trial(pair, case, drawn, kind, oracle, subject.run, answer)


def check(trial, names=tuple(PROPERTIES)):
    """These properties in one case; points are asked about one by one."""

    def ask(points):
        return [trial.oracle.answer(case, drawn, trial.dtype) for case, drawn in points]

    (found,) = properties.check([(trial, names)], ask)
    return found


def fails(pair, name, dtype="float64", cases=60):
    """What the property says in the first of so many random cases in which it fails."""
    oracle = Oracle(pair, multiplier(np.dtype(dtype)))
    problem = None

    def wrong(case):
        nonlocal problem
        found = check(trial(pair, case, dtype, oracle), [name])
        problem = found[name].problem if name in found else ""
        return bool(problem)

    drawn_until(pair, cases, wrong)
    return problem


# --- they hold


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_all_hold_for_the_built_in_pairs(name, dtype):
    pair = PAIRS[name]
    oracle = Oracle(pair, multiplier(np.dtype(dtype)))

    @settings(max_examples=10)
    @given(st.data())
    def hold(data):
        found = check(trial(pair, data.draw(draw.cases(pair)), dtype, oracle))
        assert {n: c.problem for n, c in found.items() if not c.ok} == {}

    hold()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_all_that_apply_are_checked_with_a_sharp_band(name, dtype):
    pair = PAIRS[name]
    found = check(trial(pair, " ".join(f"{letter}=3" for letter in pair.letters()), dtype))
    assert set(found) == set(properties.of(pair))
    assert all(c.ok and (c.sharp or c.exact) for c in found.values())


@pytest.mark.parametrize(
    ("name", "applying"),
    [
        ("rnn", set(PROPERTIES)),
        ("rnn-index", set(PROPERTIES)),
        ("readout", ALWAYS | LINEAR | SYMMETRIC),
        ("readout-probability", ALWAYS | LINEAR | SYMMETRIC),
        ("model", ALWAYS | LINEAR | SYMMETRIC),
        ("update", {"strides", "hidden permutation"}),
    ],
)
def test_which_apply(name, applying):
    assert set(properties.of(PAIRS[name])) == applying


# --- they are seen to fail


def spoiled(name, f):
    """The layer with one thing done to one of its gradients."""
    pair = rnn_pair()

    def backward(cache, d):
        found = pair.backward(cache, d)
        return {**found, name: f(found[name], cache)}

    return dataclasses.replace(pair, backward=backward)


def layer(right, wrong):
    return rnn_pair(planted(rnn, right, wrong))


def with_forward(change):
    pair = rnn_pair()
    return dataclasses.replace(
        pair, forward=lambda i, activation: pair.forward(change(i), activation)
    )


def with_backward(change):
    pair = rnn_pair()
    return dataclasses.replace(pair, backward=change(pair.backward))


def used_up(backward, cache, d):
    gradients = backward(cache, d)
    states = cache[1].states
    states.flags.writeable = True
    states[...] = 0
    return gradients


def with_cotangents(change):
    pair = rnn_pair()
    return dataclasses.replace(pair, backward=lambda cache, d: pair.backward(cache, change(d)))


def as_if_contiguous(d):
    return {name: a.ravel("K").reshape(a.shape) for name, a in d.items()}


def written_and_restored(d):
    for a in d.values():
        a += 1
        a -= 1
    return d


MEAN = ("delta.sum(axis=(0, 1))  # (H,)", "delta.mean(axis=(0, 1))")
DW = "dW = flat(delta).T @ flat(before)  # (H, H)"
CARRY = "carried = delta[t] @ W  # Wᵀ δ_t (B, H)"
LOOP = "for t in reversed(range(len(delta))):"

PLANTED = [
    ("linear: additive", "gradients are clipped", spoiled("U", lambda g, _: g.clip(-0.1, 0.1))),
    ("linear: zero to zero", "weight decay", spoiled("W", lambda g, c: g + c[0].W / 100)),
    ("linear: powers of two", "values are rounded", spoiled("U", lambda g, _: np.round(g, 4))),
    ("adjoint of jax.jvp", "W for Wᵀ", layer(CARRY, "carried = delta[t] @ W.T")),
    ("causality", "the input is centred over time", with_forward(lambda i: centred(i, 0))),
    ("causality", "the recursion runs the wrong way", layer(LOOP, "for t in range(len(delta)):")),
    (
        "split and join",
        "a window of three steps, unsaid",
        layer(CARRY, "carried = (delta[t] @ W) * bool((len(delta) - t) % 3)"),
    ),
    ("split and join", "no gradient of the state", spoiled("s0", lambda g, _: 0 * g)),
    ("untied weights", "= for += over time", layer(DW, "dW = delta[-1].T @ before[-1]")),
    ("padding", "a mean over the batch", layer(*MEAN)),
    ("padding", "a gradient leaks into it", spoiled("x", lambda g, _: g + g.sum(1)[:, None])),
    (
        "batch permutation",
        "the first sequence only",
        layer(DW, "dW = flat(delta[:, :1]).T @ flat(before[:, :1])"),
    ),
    ("batch sum", "a mean over the batch", layer(*MEAN)),
    ("batch sum", "the batch is centred", with_forward(lambda i: centred(i, 1))),
    ("batch twice", "a mean over the batch", layer(*MEAN)),
    ("hidden permutation", "units shifted", spoiled("b", lambda g, _: np.roll(g, 1))),
    (
        "tanh sign flip",
        "f′ = 1 - s",
        layer("* f.df(states[t])  # (B, H)", "* (1 - states[t])  # (B, H)"),
    ),
    ("strides", "memory read as if it were contiguous", with_cotangents(as_if_contiguous)),
    ("strides", "cotangents written to, and restored", with_cotangents(written_and_restored)),
    (
        "backward again",
        "the cache is used up",
        with_backward(lambda backward: lambda cache, d: used_up(backward, cache, d)),
    ),
    (
        "results stay",
        "δ in a buffer that is used again",
        layer(
            "delta = np.empty_like(states)",
            'delta = backward.__dict__.setdefault(f"{states.shape} {states.dtype}", '
            "np.empty_like(states))",
        ),
    ),
    (
        "absent cotangent",
        "ones for None",
        with_cotangents(lambda d: {n: np.ones(1) if a is None else a for n, a in d.items()}),
    ),
    (
        "absent cotangent",
        "one counts only beside the other",
        with_cotangents(
            lambda d: {**d, "s": None if d["last"] is None else d["s"]},
        ),
    ),
    (
        "absent cotangent",
        "the last state's taken for all",
        layer(
            'dstates = shapes.cotangents("dstates", dstates, "T B H", states)',
            'dstates = shapes.cotangents("dstates", dstates, "T B H", states) + (dstates is None)',
        ),
    ),
]


def centred(i, at):
    return {**i, "x": i["x"] - i["x"].mean(at, keepdims=True)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "pair"), [(n, p) for n, _, p in PLANTED], ids=[f"{n}: {m}" for n, m, _ in PLANTED]
)
def test_a_planted_mistake_is_caught(name, pair, dtype):
    assert fails(pair, name, dtype)


def test_each_property_is_seen_to_fail():
    assert {name for name, _, _ in PLANTED} == set(PROPERTIES)


def test_a_mistake_that_the_twin_shares_is_caught():
    pair = spoiled("s0", lambda g, _: 0 * g)
    cut = dataclasses.replace(
        pair,
        twin=lambda i, activation: pair.twin({**i, "s0": lax.stop_gradient(i["s0"])}, activation),
    )
    gradients = [row for row in verify(cut, cases=30).rows if row.name in cut.quantities()]
    assert all(row.verdict == "pass" for row in gradients)
    assert "expected" in fails(cut, "split and join")


def test_the_problem_names_the_quantity():
    assert re.match(r"db: expected .* ± .*, got .*", fails(layer(*MEAN), "batch twice"))
    message = fails(with_cotangents(written_and_restored), "strides")
    assert message.startswith("strided arrays: backward raised ValueError")


# --- axes anywhere, shapes of all kinds


def gated(i):
    """Batch-major, units in blocks: y_bt = tanh(g) ⊙ h of x_bt w, with w (2H, D)."""
    a = i["x"] @ i["w"].T
    H = a.shape[-1] // 2
    return np.tanh(a[..., :H]), a[..., H:]


def gated_backward(i, d):
    g, h = gated(i)
    da = np.concatenate([d["y"] * h * (1 - g * g), d["y"] * g], axis=-1)
    return {"x": da @ i["w"], "w": np.einsum("bth,btd->hd", da, i["x"])}


def gated_twin(i, weights="gd"):
    a = jnp.einsum(f"btd,{weights}->btg", i["x"], i["w"])
    H = a.shape[-1] // 2
    return {"y": jnp.tanh(a[..., :H]) * a[..., H:]}


GATED = Pair(
    name="gated",
    inputs={"x": "B T D", "w": "2H D", "m": Mask("B T"), "k": Index("B T", below="D")},
    outputs={"y": "B T H"},
    forward=lambda i: ({"y": np.multiply(*gated(i))}, i),
    backward=gated_backward,
    twin=gated_twin,
    untied=lambda i: gated_twin(i, "tgd"),
)


def test_time_and_batch_may_be_any_axis_and_units_may_come_in_blocks():
    applying = set(PROPERTIES) - {"split and join", "tanh sign flip", "absent cotangent"}
    assert set(properties.of(GATED)) == applying
    for seed in range(10):
        found = check(trial(GATED, f"B=3 T=4 D=2 H=3 seed={seed}"))
        assert set(found) == applying
        assert {n: c.problem for n, c in found.items() if not c.ok} == {}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"time": None, "untied": None}, {"causality", "untied weights"}),
        ({"hidden": None}, {"hidden permutation"}),
        ({"hidden": "D"}, {"hidden permutation"}),  # class indices count D
        ({"batch": None}, {"padding", "batch permutation", "batch sum", "batch twice"}),
        # "2H" is no axis of single sequences
        (
            {"batch": "H", "untied": None},
            {"padding", "batch permutation", "batch sum", "batch twice", "untied weights"},
        ),
        ({"without": ["causality", "strides"]}, {"causality", "strides"}),
    ],
)
def test_what_the_pair_leaves_out_does_not_apply(change, lost):
    changed = dataclasses.replace(GATED, **change)
    assert set(properties.of(GATED)) - set(properties.of(changed)) == lost
    assert set(check(trial(changed, "B=3 T=4 D=2 H=3"))) == set(properties.of(changed))


# --- nothing said


def test_one_step_one_sequence_one_unit_say_nothing():
    found = check(trial(rnn_pair(), "T=1 B=1 D=1 H=1"))
    missing = {
        "causality",
        "split and join",
        "batch permutation",
        "batch sum",
        "hidden permutation",
    }
    assert set(PROPERTIES) - set(found) == missing


def in_thirds():
    """Sums of thirds are rounded, so that a tie may go either way."""
    pair, weights = rnn_pair(), ("U", "W", "b")

    def third(i):
        return {k: v / 3 if k in weights else v for k, v in i.items()}

    return dataclasses.replace(
        pair,
        forward=lambda i, activation: pair.forward(third(i), activation),
        backward=lambda cache, d: third(pair.backward(cache, d)),
        twin=lambda i, activation: pair.twin(third(i), activation),
        untied=lambda i, activation: pair.untied(third(i), activation),
    )


def test_near_a_kink_only_what_is_exact_is_said():
    grid = "T=3 B=2 D=2 H=3 activation=relu x=grid s0=grid U=grid W=grid b=grid"
    trials = [trial(in_thirds(), f"{grid} seed={seed}") for seed in range(20)]
    found = [check(t) for t in trials if t.answer.undecided]
    assert found
    for one in found:
        assert set(one) == {
            "linear: zero to zero",
            "linear: powers of two",
            "causality",
            "backward again",
            "results stay",
            "absent cotangent",
        }
        assert all(c.ok and c.exact for c in one.values())


@pytest.mark.parametrize("field", ["forward", "backward"])
def test_a_subject_that_raises_is_judged_elsewhere(field):
    def raises(*_, **__):
        raise RuntimeError

    assert check(trial(dataclasses.replace(rnn_pair(), **{field: raises}), RNN)) == {}


@pytest.mark.parametrize(
    "wrong", [lambda g, _: None, lambda g, _: g[None], lambda g, _: g > 0, lambda g, _: g * np.nan]
)
def test_a_subject_that_returns_something_else_is_judged_elsewhere(wrong):
    assert check(trial(spoiled("U", wrong), RNN)) == {}


def test_a_gradient_of_any_size_is_compared():
    pair = spoiled("U", lambda g, _: np.full_like(g, np.finfo(g.dtype).max))
    for dtype in ("float32", "float64"):
        found = check(trial(pair, RNN, dtype))
        assert not found["adjoint of jax.jvp"].ok
        assert not found["batch twice"].ok


def test_gradients_near_the_end_of_the_range_are_compared():
    pair = rnn_pair()
    for fill in (-290, -310, 290):
        for name in ("adjoint of jax.jvp", "linear: additive"):
            case = f"{RNN} ds=normal:{fill} dlast=normal:{fill}"
            assert check(trial(pair, case))[name].ok


def test_a_case_beyond_the_range_says_nothing():
    case = "T=8 B=2 D=2 H=3 activation=relu W=normal:30 x=normal:30"
    assert check(trial(rnn_pair(), case, "float32")) == {}


# --- what a pair may say


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": "causality"}, "without: expected a collection of names, got 'causality'"),
        ({"optional": "s"}, "optional: expected a collection of names, got 's'"),
        ({"optional": ["a"]}, "optional: no output a with a cotangent"),
        ({"odd": Odd("x")}, "odd: expected inputs of floats, got 'x'"),
        ({"odd": Odd(["y"])}, r"odd: expected inputs of floats, got \['y'\]"),
        ({"odd": Odd(["x"], {"f": 1})}, "odd: no option 'f' with the value 1"),
        ({"odd": Odd(["x"], {"activation": "relu6"})}, "odd: no option 'activation' with"),
    ],
)
def test_a_wrong_declaration_is_refused(change, message):
    with pytest.raises(ValueError, match=f"pair 'rnn': {message}"):
        dataclasses.replace(rnn_pair(), **change)


def test_an_unknown_name_in_without_is_refused():
    pair = dataclasses.replace(rnn_pair(), without=["causalty"])
    with pytest.raises(
        ValueError, match=r"pair 'rnn': without: expected names among .* got 'causalty'"
    ):
        properties.of(pair)


def test_an_untied_forward_that_raises_is_named():
    def untied(i, activation):
        raise RuntimeError("no")

    pair = dataclasses.replace(rnn_pair(), untied=untied)
    with pytest.raises(ValueError, match="pair 'rnn': untied: raised RuntimeError: no"):
        check(trial(pair, "T=2"))


def test_the_page_lists_every_property():
    page = (Path(__file__).parents[2] / "docs" / "properties.md").read_text("utf-8")
    listed = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", page, re.MULTILINE)
    assert [name for name, _ in listed] == list(PROPERTIES)
    assert [statement.strip() for _, statement in listed] == [
        p.statement for p in PROPERTIES.values()
    ]
