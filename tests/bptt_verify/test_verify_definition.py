"""Who stands alone: votes by the definition of the derivative and by the subject's own forward."""

from dataclasses import replace
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax
from test_verify_rounding import FUNCTIONS, run

from bptt_verify import Index, Mask, Pair, draw
from bptt_verify.definition import Entry, _slope, derivative, majority
from bptt_verify.oracle import Oracle
from bptt_verify.pairs import REGISTRY, readout_pair, rnn_pair
from bptt_verify.precise import MP, AbstainError, Precise
from bptt_verify.tolerance import multiplier
from manual_bptt import rnn
from planting import planted

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def entry(pair, line, quantity, at, dtype=F64):
    case = draw.parse(pair, line)
    drawn = draw.realise(pair, case, dtype)
    return Entry(Oracle(pair, multiplier(dtype)), case, drawn, quantity, at)


def ask(pair, line, quantity, at, dtype=F64):
    e = entry(pair, line, quantity, at, dtype)
    return majority(e.oracle, e.case, e.drawn, dtype, quantity, at)


def elementwise(twin, forward=None, slope=None, **fields):
    """y = f(x) entry by entry, with slope f′ on the hand-written side."""
    return Pair(
        name="elementwise",
        inputs={"x": "N", **fields.pop("inputs", {})},
        outputs={"y": "N"},
        forward=lambda i: ({"y": (forward or np.tanh)(i["x"])}, i["x"]),
        backward=lambda x, d: {"x": d["y"] * (slope or (lambda x: 1 - np.tanh(x) ** 2))(x)},
        twin=lambda i: {"y": twin(i["x"])},
        **fields,
    )


# --- the evaluation to 60 digits

WITHOUT_RULE = {
    "round": "round",
    "scatter": "scatter-add",
    "sort": "sort",
    "callback": "pure_callback",
    "convolution": "conv_general_dilated",
    "grad of lookup": "scatter-add",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_float64_or_the_missing_rule_is_named(name):
    f, *arguments = FUNCTIONS[name]
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(f)(*arguments)
    precise = Precise(2)
    points = [precise.spread(a) for a in arguments]
    if name in WITHOUT_RULE:
        with pytest.raises(AbstainError, match=f"^no rule for {WITHOUT_RULE[name]}$"):
            precise.run(closed, points)
        return
    wanted = run(f, *arguments)[1]  # which are those of XLA
    for got, (want, sigma) in zip(precise.run(closed, points), wanted, strict=True):
        assert got.shape == (2, *want.shape)
        if want.dtype.kind == "f":
            assert all(isinstance(number, MP.mpf) for number in got.flat)
        else:
            assert got.dtype == want.dtype
        for point in got.astype(want.dtype):
            with np.errstate(invalid="ignore"):
                off = np.where(point == want, 0, np.abs(point * 1.0 - want))
            assert (off <= 32 * sigma).all()


def test_poles_are_infinite():
    def f(x):
        return 1 / x, -1 / x, x**-2, lax.rsqrt(x), jnp.log(x), x / x

    zero = np.zeros(1)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(f)(zero)
    values = [float(a[0, 0]) for a in Precise(1).run(closed, [Precise(1).spread(zero)])]
    np.testing.assert_equal(values, [np.inf, -np.inf, np.inf, np.inf, -np.inf, np.nan])


def test_nobody_elses_precision_is_changed():
    assert mpmath.mp.dps == 15


def test_the_differences_of_a_quartic_are_exact():
    h = Fraction(1, 10)
    at = [1, 1 + h, 1 - h, 1 + h / 2, 1 - h / 2]
    value, uncertainty = _slope([x**4 + x**3 for x in at], h, Fraction(0))
    assert value == 7
    assert 0 < uncertainty < h


# name: twin, its derivative in mpmath's numbers
KNOWN = {
    "tanh": (jnp.tanh, lambda x: 1 - MP.tanh(x) ** 2),
    "exp": (jnp.exp, MP.exp),
    "logistic": (jax.nn.sigmoid, lambda x: MP.exp(-x) / (1 + MP.exp(-x)) ** 2),
    "log of a square": (lambda x: jnp.log(x * x), lambda x: 2 / x),
    "power": (lambda x: (x * x) ** 1.5 + x**-3, lambda x: 3 * x * abs(x) - 3 * x**-4),
    "rsqrt": (lambda x: lax.rsqrt(x * x), lambda x: -MP.sign(x) / x**2),
    "erf": (jax.scipy.special.erf, lambda x: 2 / MP.sqrt(MP.pi) * MP.exp(-(x**2))),
    "softplus": (jax.nn.softplus, lambda x: 1 / (1 + MP.exp(-x))),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("fill", ["normal:0", "normal:-3", "normal:1"])
def test_derivatives_are_right_to_30_digits(name, fill):
    twin, slope = KNOWN[name]
    e = entry(elementwise(twin), f"N=2 x={fill} seed=5", "dx", (1,))
    got, uncertainty = derivative(e)
    x, d = (MP.mpf(float(a[1])) for a in (e.drawn.inputs["x"], e.drawn.cotangents["y"]))
    wanted = d * slope(x)
    assert abs(got - wanted) <= uncertainty
    if fill == "normal:0":
        assert abs(got - wanted) < abs(wanted) * MP.mpf(10) ** -30


def lstm_twin(i):
    def step(carry, now):
        h, c = carry
        x, perturbation = now
        gates = x @ i["U"].T + h @ i["W"].T + perturbation
        i_, f, g, o = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i_) * jnp.tanh(g)
        h = jnp.where(now[0][:, :1] > 100, 0.0, jax.nn.sigmoid(o) * jnp.tanh(c))
        return (h, c), h

    start = (i["h0"], jnp.zeros_like(i["h0"]))
    return {"h": lax.scan(step, start, (i["x"], i["delta"]))[1]}


LSTM = Pair(
    name="lstm",
    inputs={"x": "T B D", "h0": "B H", "U": "4H D", "W": "4H H"},
    outputs={"h": "T B H"},
    taps={"delta": "T B 4H"},
    forward=lambda i: ({}, None),
    backward=lambda cache, d: {},
    twin=lstm_twin,
)

EVERYWHERE = {
    "lstm": (LSTM, "T=2 B=1 D=2 H=1 seed=3"),
    "readout": (REGISTRY["readout"], "T=2 B=1 H=2 C=3 seed=2"),
    "readout of probabilities": (REGISTRY["readout-probability"], "T=1 B=2 H=1 C=2 seed=4"),
    "class indices": (REGISTRY["rnn-index"], "T=2 B=1 D=2 H=2 activation=sigmoid seed=1"),
}


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_definition_agrees_with_the_vjp_in_every_entry(name):
    pair, line = EVERYWHERE[name]
    first = entry(pair, line, "", ())
    quantities = first.oracle.answer(first.case, first.drawn, F64).quantities
    for quantity in [*pair.taps, *(f"d{x}" for x in pair.differentiable)]:
        value, sigma = quantities[quantity]
        for at in np.ndindex(value.shape):
            got, _ = derivative(first._replace(quantity=quantity, at=at))
            assert abs(float(got) - value[at]) <= 32 * sigma[at] + 1e-35


# --- who stands alone

CARRY = "carried = delta[t] @ W  # Wᵀ δ_t (B, H)"
FORGETS = planted(rnn, CARRY, "carried = np.zeros_like(s0)")


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_wrong_backward_stands_alone(dtype):
    found = ask(rnn_pair(FORGETS), "T=2 B=1 D=1 H=2 seed=1", "dW", (1, 0), dtype)
    assert found.who == "subject"
    voters = [vote.voter for vote in found.votes]
    assert voters == [
        "subject",
        "twin (jax.vjp)",
        "definition (60 digits)",
        "subject's forward, differences",  # its doors take no complex numbers
    ]
    subject, twin, definition, own = (vote.value for vote in found.votes)
    assert abs(subject - twin) > 1e-6
    assert abs(definition - twin) < 1e-14
    assert abs(own - twin) < 1e-8


def test_a_wrong_delta_stands_alone_by_the_definition():
    found = ask(rnn_pair(FORGETS), "T=2 B=1 D=1 H=2 seed=1", "delta", (0, 0, 1))
    assert found.who == "subject"
    assert found.votes[3].why == "no input of it is the tap"
    assert "subject's forward abstains: no input of it is the tap" in found.text


def test_the_text_says_it_all():
    found = ask(elementwise(jnp.tanh, slope=np.cos), "N=1 seed=2", "dx", (0,))
    assert found.text == (
        "the subject stands alone: twin (jax.vjp) -0.5045, definition (60 digits) -0.5045, "
        "subject's forward, complex step -0.5045; subject -0.51343"
    )


def test_a_small_mistake_shows_its_digits():
    wrong = elementwise(jnp.tanh, slope=lambda x: (1 - np.tanh(x) ** 2) * (1 + 1e-9))
    found = ask(wrong, "N=1 seed=2", "dx", (0,))
    assert found.who == "subject"
    assert "twin (jax.vjp) -0.504501127, definition" in found.text, found.text


@jax.custom_jvp
def wrong_rule(x):
    return jnp.tanh(x)


wrong_rule.defjvp(lambda x, dx: (jnp.tanh(x[0]), dx[0] * (1 - jnp.tanh(x[0]))))


@jax.custom_vjp
def wrong_transposed_rule(x):
    return jnp.tanh(x)


wrong_transposed_rule.defvjp(lambda x: (jnp.tanh(x), x), lambda x, d: (d * x,))

WRONG_TWINS = {
    "custom_jvp": wrong_rule,
    "custom_vjp": wrong_transposed_rule,
}
STOPPED_TWINS = {
    "stop_gradient": lambda x: jnp.tanh(lax.stop_gradient(x)) + 0 * x,
    "stop_gradient in a scan": lambda x: lax.scan(
        lambda c, _: (jnp.tanh(lax.stop_gradient(c)), None), x, length=1
    )[0],
}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", WRONG_TWINS)
def test_a_twin_with_a_wrong_derivative_stands_alone(name, dtype):
    found = ask(elementwise(WRONG_TWINS[name]), "N=2 seed=3", "dx", (1,), dtype)
    assert found.who == "twin"
    assert found.text.startswith("the twin stands alone: ")


@pytest.mark.parametrize("name", STOPPED_TWINS)
def test_a_twin_that_stops_gradients_may_mean_it(name):
    found = ask(elementwise(STOPPED_TWINS[name]), "N=2 seed=3", "dx", (1,), F64)
    assert found.who == "undecided"
    assert "stops gradients" in found.text


def test_a_twin_with_another_forward():
    # 1 apart: no gradient could tell, so a factor too
    other = elementwise(lambda x: 2 * jnp.tanh(x) + 1)
    found = ask(other, "N=2 seed=3", "dx", (1,))
    assert found.who == "forward"
    assert [vote.value for vote in found.votes][3] == pytest.approx(found.votes[0].value)


def test_everybody_wrong_is_undecided():
    muddle = elementwise(wrong_rule, forward=np.sin, slope=np.cos)
    found = ask(replace(muddle, twin=lambda i: {"y": wrong_rule(2 * i["x"])}), "N=1", "dx", (0,))
    assert found.who == "undecided"
    assert found.text.startswith("undecided, the definition sides with neither: ")


def test_no_disagreement_is_undecided():
    found = ask(elementwise(jnp.tanh), "N=2 seed=3", "dx", (1,))
    assert found.who == "undecided"
    assert found.text.startswith("undecided, subject and twin agree here: ")


def test_at_a_kink_the_differences_abstain():
    relu = elementwise(jax.nn.relu, lambda x: np.where(x > 0, x, 0), lambda x: x >= 0)
    found = ask(relu, "N=1 x=zeros seed=1", "dx", (0,))
    assert found.who == "undecided"
    assert [vote.value is None for vote in found.votes] == [False, False, True, True]
    assert "its one-sided differences are 0 and " in found.votes[2].why
    assert found.votes[2].why.endswith("as at a kink")
    beside = replace(relu, backward=lambda x, d: {"x": d["y"] * 3})
    assert ask(beside, "N=1 seed=1", "dx", (0,)).who == "subject"


def test_a_branch_inside_the_step_abstains():
    branch = elementwise(lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), slope=np.cos)
    found = ask(branch, "N=1 x=zeros", "dx", (0,))
    assert found.votes[2].why == "the step of the difference straddles a branch"


def test_without_a_rule_the_subjects_own_forward_can_still_tell():
    sorted_ = elementwise(jnp.sort, np.sort, lambda x: 3 + 0 * x)
    found = ask(sorted_, "N=1 seed=1", "dx", (0,))
    assert found.votes[2].why == "no rule for sort"
    assert found.who == "subject"
    assert found.text.endswith("; definition (60 digits) abstains: no rule for sort")

    def forward(i):
        if i["x"].dtype != F32:
            raise TypeError("float32 only")
        return {"y": np.sort(i["x"])}, i["x"]

    found = ask(replace(sorted_, forward=forward), "N=1 seed=1", "dx", (0,), F32)
    assert found.who == "undecided"
    assert found.votes[3].why.startswith("raised TypeError: float32 only (test_")
    assert found.text.startswith("undecided, the definition sides with nobody, it abstains: ")


# name: forward, twin, whether the complex step is used
FORWARDS = {
    "analytic": (np.tanh, jnp.tanh, True),
    "a magnitude": (lambda x: np.abs(x) * x, lambda x: jnp.abs(x) * x, False),
    "a real part": (lambda x: np.tanh(x.real), jnp.tanh, False),
    "a real buffer": (lambda x: np.tanh(x.astype(float)), jnp.tanh, False),
    "a refusal": (lambda x: np.array([float(v) for v in x]), lambda x: x, False),
    "linear": (lambda x: 3 * x, lambda x: 3 * x, True),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_complex_step_where_the_forward_is_analytic(name):
    forward, twin, analytic = FORWARDS[name]
    found = ask(elementwise(twin, forward, lambda x: 9 + x), "N=2 seed=3", "dx", (1,))
    _, twin, _, own = found.votes
    assert own.voter == f"subject's forward, {'complex step' if analytic else 'differences'}"
    assert abs(own.value - twin.value) <= own.uncertainty
    assert own.uncertainty < (1e-13 if analytic else 1e-8)
    assert found.who == "subject"


def test_whole_numbers_booleans_and_scalars():
    def forward(i):
        rows = i["table"][i["which"]] * i["scale"]
        return {"y": np.where(i["mask"][:, None], np.tanh(rows), 0)}, None

    pair = Pair(
        name="lookup",
        inputs={
            "table": "C D",
            "scale": "",
            "which": Index("N", below="C"),
            "mask": Mask("N"),
        },
        outputs={"y": "N D"},
        forward=forward,
        backward=lambda _, d: {"table": np.zeros((3, 2)), "scale": np.array(7.0)},
        twin=lambda i: {
            "y": jnp.where(i["mask"][:, None], jnp.tanh(i["table"][i["which"]] * i["scale"]), 0)
        },
    )
    line = "C=3 D=2 N=4 seed=1"
    found = ask(pair, line, "dscale", ())
    assert found.who == "subject"
    assert found.votes[3].voter == "subject's forward, complex step"
    row = entry(pair, line, "dscale", ()).drawn.inputs["which"][0]
    assert ask(pair, line, "dtable", (int(row), 1)).who == "subject"


def test_a_value_is_held_against_60_digits():
    wrong = replace(readout_pair(), forward=lambda i: wrong_loss(*readout_pair().forward(i)))
    line = "T=1 B=1 H=2 C=2 seed=1"
    found = ask(wrong, line, "loss", ())
    assert found.who == "subject"
    assert [v.voter for v in found.votes] == ["subject", "twin (float64)", "twin (60 digits)"]
    assert found.votes[2].value == pytest.approx(found.votes[1].value, rel=1e-14)
    right = ask(REGISTRY["update"], "", "new_U", (0, 0))
    assert right.who == "undecided"


def wrong_loss(outputs, cache):
    return {**outputs, "loss": outputs["loss"] + 1}, cache


def test_a_subject_without_a_number_stands_alone():
    def fails(cache, d):
        raise RuntimeError("no backward today")

    right = elementwise(jnp.tanh)
    found = ask(replace(right, backward=fails), "N=1", "dx", (0,))
    assert found.who == "subject"
    assert "subject abstains: raised RuntimeError: no backward today" in found.text
    for value, why in (
        (np.ones(2), "expected shape (1,), got (2,)"),
        (np.ones(1, complex), "expected dtype float64, got complex128"),
    ):
        given = replace(right, backward=lambda cache, d, value=value: {"x": value})
        assert ask(given, "N=1", "dx", (0,)).votes[0].why == why
    for value in (np.nan, np.inf):
        given = replace(right, backward=lambda cache, d, value=value: {"x": np.full(1, value)})
        assert ask(given, "N=1", "dx", (0,)).who == "subject"


def test_a_question_that_has_no_answer():
    pair = elementwise(jnp.tanh)
    with pytest.raises(ValueError, match=r"quantity: expected one of \['y', 'dx'\], got 'dW'"):
        ask(pair, "N=2", "dW", (0,))
    for at in ((2,), (), (-1,), (0, 0)):
        with pytest.raises(ValueError, match=r"at: expected the index of an entry of \(2,\), got"):
            ask(pair, "N=2", "dx", at)
