"""Right code that rounds in another way than the twin passes: no false alarm, nothing raised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verify import Mask, Pair, draw, verify
from bptt_verify.draw import Drawn
from bptt_verify.judge import Judge
from bptt_verify.oracle import Oracle
from bptt_verify.tolerance import multiplier


def forward_only(name, inputs, outputs, forward, twin, **options):
    return Pair(
        name=name,
        inputs=inputs,
        outputs=outputs,
        forward=lambda i: ({"y": forward(i)}, None),
        twin=lambda i: {"y": twin(i)},
        **{"time": None, "batch": None, "hidden": None, **options},
    )


def same(x, value):
    """The number in the dtype of x."""
    return np.asarray(value, x.dtype)


def clipped(i):
    return np.clip(i["x"], -same(i["x"], 0.1), same(i["x"], 0.1))


def last_first(i):
    return np.tanh(i["x"] + (i["b"] + i["s"] @ i["w"].T))


def halves(i):
    """A step of one kind, then one of the other, whose noise has another size."""

    def wide(s):
        return jnp.tanh(s[:, :, None] * i["w"]).sum(1)

    def step(s, t):
        return lax.cond(t % 2 == 0, lambda s: s * 0.5, wide, s), None

    return lax.scan(step, i["s"], jnp.arange(3))[0]


def halves_by_hand(i):
    s = i["s"]
    for t in range(3):
        s = s * same(s, 0.5) if t % 2 == 0 else np.tanh(s[:, :, None] * i["w"]).sum(1)
    return s


def infinite(i):
    return i["a"] / jnp.where(i["m"], 2 + i["x"] ** 2, jnp.inf)


def infinite_by_hand(i):
    return i["a"] / np.where(i["m"], 2 + i["x"] ** 2, same(i["x"], np.inf))


RIGHT = {
    "a constant that is no float32": forward_only(
        "clip", {"x": "B H"}, {"y": "B H"}, clipped, lambda i: jnp.clip(i["x"], -0.1, 0.1)
    ),
    "a sum in another order": forward_only(
        "order",
        {"x": "B H", "b": "H", "s": "B H", "w": "H H"},
        {"y": "B H"},
        last_first,
        lambda i: jnp.tanh((i["x"] + i["b"]) + i["s"] @ i["w"].T),
    ),
    "steps of different kinds": forward_only(
        "halves", {"s": "B H", "w": "H H"}, {"y": "B H"}, halves_by_hand, halves
    ),
    "an infinite divisor": forward_only(
        "divisor",
        {"x": "B D", "a": "B D", "m": Mask("B D")},
        {"y": "B D"},
        infinite_by_hand,
        infinite,
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_code_passes(name, dtype):
    report = verify(RIGHT[name], cases=300, dtype=dtype)
    assert report.verdict == "pass", [row for row in report.rows if row.verdict != "pass"]
    assert report.redrawn == 0


def test_a_divisor_that_is_infinite_in_the_backward_pass_too():
    def backward(kept, d):
        i, by = kept
        return {"a": d["y"] / by, "x": -d["y"] * i["a"] / by / by * 2 * i["x"] * i["m"]}

    def forward(i):
        by = np.where(i["m"], 2 + i["x"] ** 2, same(i["x"], np.inf))
        return {"y": i["a"] / by}, (i, by)

    pair = Pair(
        name="divisor",
        inputs={"x": "B D", "a": "B D", "m": Mask("B D")},
        outputs={"y": "B D"},
        forward=forward,
        backward=backward,
        twin=lambda i: {"y": infinite(i)},
    )
    report = verify(pair, cases=60, dtype="float32")
    assert report.redrawn == 0
    assert not [row for row in report.rows if row.verdict == "fail"]


def test_a_product_over_no_steps():
    def forward(i):
        return {"y": (i["x"][:-1] @ i["w"].T).sum(0) / same(i["x"], len(i["x"]))}, i

    def backward(i, d):
        dy = d["y"] / same(d["y"], len(i["x"]))
        dx = np.zeros_like(i["x"])
        dx[:-1] = dy @ i["w"]
        return {"x": dx, "w": np.outer(dy, i["x"][:-1].sum(0))}

    pair = Pair(
        name="all but the last",
        inputs={"x": "T D", "w": "H D"},
        outputs={"y": "H"},
        forward=forward,
        backward=backward,
        # divided by the number of steps: T cannot be padded
        twin=lambda i: {"y": (i["x"][:-1] @ i["w"].T).sum(0) / len(i["x"])},
        without={"causality"},
    )
    assert verify(pair, cases=40, dtype="float32").verdict == "pass"


def test_a_sum_that_leaves_float16_on_its_way_is_given_up():
    def one_after_another(i):
        total = np.zeros((), i["x"].dtype)
        for x in i["x"].ravel():
            total = total + same(total, 30) * x
        return total

    pair = forward_only(
        "sum", {"x": "N H"}, {"y": ""}, one_after_another, lambda i: (30 * i["x"]).sum()
    )
    report = verify(pair, cases=1000, dtype="float16")
    assert report.verdict == "pass"
    assert report.redrawn


def test_a_checkpoint_does_not_narrow_the_band():
    def normalised(x):
        away = x - x.mean(-1, keepdims=True)
        return away / jnp.sqrt((away * away).mean(-1, keepdims=True) + 1e-5)

    def spread(twin, seed):
        pair = Pair(
            name="norm",
            inputs={"x": "B H"},
            outputs={"y": "B H"},
            forward=lambda i: None,
            backward=lambda c, d: None,
            twin=lambda i: {"y": twin(i["x"])},
        )
        judge = Judge(pair, np.dtype(np.float32))
        case = draw.parse(pair, f"B=4 H=2 seed={seed}")
        return judge.oracle.answer(case, judge.drawn(case), judge.dtype).quantities["dx"].sigma

    ratios = [spread(jax.checkpoint(normalised), s) / spread(normalised, s) for s in range(20)]
    assert 0.5 < np.median(ratios) < 2
    assert np.min(ratios) > 0.2


# --- layer normalisation inside a recurrent layer, by the textbook


EPS = 1e-5


def normalised_forward(i):
    s, states, kept = i["s0"], [], []
    for x in i["x"]:
        a = x @ i["U"] + s @ i["W"]
        away = a - a.mean(-1, keepdims=True)
        r = 1 / np.sqrt((away * away).mean(-1, keepdims=True) + same(a, EPS))
        before, s = s, np.tanh(away * r * i["g"])
        kept.append((x, before, away * r, r, s))
        states.append(s)
    return {"s": np.stack(states)}, (i, kept)


def normalised_backward(cache, d):
    i, kept = cache
    grads, carried = {name: np.zeros_like(a) for name, a in i.items()}, 0
    for t in reversed(range(len(kept))):
        x, before, n, r, s = kept[t]
        dz = (carried + d["s"][t]) * (1 - s * s)
        grads["g"] += (dz * n).sum(0)
        dn = dz * i["g"]
        # knows that n has mean 0, which it has but for rounding
        da = r * (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True))
        grads["U"] += x.T @ da
        grads["W"] += before.T @ da
        grads["x"][t] = da @ i["U"].T
        carried = da @ i["W"].T
    return {**grads, "s0": carried}


def normalised_twin(i):
    def step(s, x):
        a = x @ i["U"] + s @ i["W"]
        away = a - a.mean(-1, keepdims=True)
        s = jnp.tanh(away / jnp.sqrt((away * away).mean(-1, keepdims=True) + EPS) * i["g"])
        return s, s

    return {"s": lax.scan(step, i["s0"], i["x"])[1]}


NORMALISED = Pair(
    name="layer-normalised",
    inputs={"x": "T B D", "s0": "B H", "U": "D H", "W": "H H", "g": "H"},
    outputs={"s": "T B H"},
    forward=normalised_forward,
    backward=normalised_backward,
    twin=normalised_twin,
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_zero_but_for_rounding_may_be_left_out(dtype):
    judge = Judge(NORMALISED, np.dtype(dtype))
    # two units and few digits: where both columns of U are alike, dx is the rounding of a mean
    kinds = "x=grid s0=grid U=grid W=grid g=grid ds=normal:0"
    for seed in range(80):
        case = draw.parse(NORMALISED, f"T=4 B=4 D=3 H=2 {kinds} seed={seed}")
        found = judge.one(case)
        assert found is None or not [row for row, c in found.items() if not c.ok], case


# --- where the derivative is not defined


def divided(name, twin, backward):
    return Pair(
        name=name,
        inputs={"c": "B H", "n": "B H"},
        outputs={"y": "B H"},
        forward=lambda i: ({"y": i["c"] / i["n"]}, i),
        backward=backward,
        twin=twin,
    )


def quotient(i, d):
    return {"c": d["y"] / i["n"], "n": -d["y"] * (i["c"] / i["n"]) / i["n"]}


def test_not_a_number_in_both_is_given_up():
    pair = divided("quotient", lambda i: {"y": i["c"] / i["n"]}, quotient)
    report = verify(pair, dtype="float32", case="c=zeros n=zeros")
    assert (report.verdict, report.redrawn) == ("inconclusive", 1)


def test_not_a_number_in_one_of_them_is_a_failure():
    def careful(i):
        return {"y": jnp.where(i["n"] == 0, 0, i["c"] / jnp.where(i["n"] == 0, 1, i["n"]))}

    report = verify(divided("careful", careful, quotient), dtype="float32", case="n=zeros")
    assert report.verdict == "fail"


@pytest.mark.parametrize(("n", "given_up"), [(1e-170, True), (0.0, False), (1.0, False)])
def test_a_derivative_that_leaves_the_range_is_given_up_at_a_pole_it_does_not(n, given_up):
    """1/n² is beyond float64 where n, and all that a careful subject computes, is not."""
    pair = divided("quotient", lambda i: {"y": i["c"] / i["n"]}, quotient)
    kind = np.dtype(np.float64)
    drawn = Drawn({"c": np.zeros((1, 1)), "n": np.full((1, 1), n)}, {"y": np.ones((1, 1))})
    answer = Oracle(pair, multiplier(kind)).answer(draw.parse(pair, ""), drawn, kind)
    assert answer.out_of_range == given_up
