"""Which step, which part, which term: planted mistakes, and what the diagnosis says of them."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verify import Pair, draw, verify
from bptt_verify.judge import STEPS, Judge, first_failed
from bptt_verify.localise import diagnose
from bptt_verify.pairs import CELLS, model_pair, rnn_pair
from bptt_verify.verify import LONG
from dense import PAIR as DENSE
from dense import backward
from manual_bptt import lstm, rnn
from planting import planted

CARRY = "carried = delta[t] @ W  # Wᵀ δ_t (B, H)"
ERROR = "delta[t] = (dstates[t] + carried) * f.df(states[t])  # (B, H)"
DW = "dW = flat(delta).T @ flat(before)  # (H, H)"
LAST = "carried = dlast  # (B, H)"
DB = "delta.sum(axis=(0, 1))"

# what is right, what was written, the likely term, what is wrong by itself
RNN = {
    "f′ missing": (ERROR, "delta[t] = dstates[t] + carried", "of tanh is missing", {"delta"}),
    "f′ twice": (
        ERROR,
        ERROR.replace("f.df(states[t])", "f.df(states[t]) ** 2"),
        "of tanh was applied twice",
        {"delta"},
    ),
    "1 - s": (
        ERROR,
        "delta[t] = (dstates[t] + carried) * (1 - states[t])",
        "1 - y stands for the derivative of y = tanh",
        {"delta"},
    ),
    "W for Wᵀ": (CARRY, "carried = delta[t] @ W.T", "W is transposed", {"delta", "ds0"}),
    "s_t for s_{t-1}": (
        DW,
        "dW = flat(delta).T @ flat(states)",
        "the previous state is meant",
        {"dW"},
    ),
    "carry dropped": (
        CARRY,
        "carried = np.zeros_like(s0)",
        "the path through s0 is missing",
        {"delta", "ds0"},
    ),
    "last cotangent dropped": (
        LAST,
        "carried = np.zeros_like(dlast)",
        "the cotangent of last was dropped",
        {"delta", "delta_T"},
    ),
    "cotangent one slot off": (
        ERROR,
        ERROR.replace("dstates[t]", "dstates[t - 1]"),
        "the cotangent of s is read one step too early, around the end",
        {"delta", "delta_T"},
    ),
    "= for +=": (DW, "dW = delta[0].T @ before[0]", "only the first step counts for W", {"dW"}),
    "mean for sum": (DB, "delta.mean(axis=(0, 1))", "db is 1/TB (a mean for a sum)", {"db"}),
    "mean over the batch": (DB, "delta.sum(0).mean(0)", "db is 1/B (a mean for a sum)", {"db"}),
    "window of two steps": (
        CARRY,
        "carried = delta[t] @ W * (t >= len(delta) - 2)",
        "carried back over 2 steps only",
        {"delta"},
    ),
    "swapped": ("Grads(dU, dW,", "Grads(dU, dW.T,", "dW is transposed", {"dW"}),
}


def judge_of(right, wrong, dtype=np.float64):
    return Judge(rnn_pair(planted(rnn, right, wrong)), np.dtype(dtype))


def diagnosis(judge, case="T=4 B=3 D=2 H=5 seed=1"):
    chosen = draw.parse(judge.pair, case)
    return diagnose(judge, first_failed(chosen, judge.one(chosen)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", RNN)
def test_the_likely_term_is_named_and_the_cause_told_from_its_effects(name, dtype):
    right, wrong, term, causes = RNN[name]
    found = diagnosis(judge_of(right, wrong, dtype))
    assert any(term in likely for likely in found.likely), found.likely
    alone = {fault.name for fault in found.faults if fault.by_itself}
    assert causes <= alone <= causes | {"delta_T", "delta", "ds0"}


def test_the_line_of_the_twin_is_quoted():
    found = diagnosis(judge_of(*RNN["f′ missing"][:2]))
    assert found.likely[0].endswith("(rnn.py:51: s = f(a)  # (2))")


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        (ERROR + "\n        delta[t] *= 1 + (t == 1)", "t=2 (T=4)"),
        (ERROR + "\n        delta[t] *= 1 + (t == 0)", "t=1 (T=4)"),
        (ERROR + "\n        delta[t] *= 2", "all, from t=4 back"),
    ],
)
def test_the_first_step_going_backward_is_named(wrong, steps):
    found = diagnosis(judge_of(ERROR, wrong))
    assert {fault.name: fault.steps for fault in found.faults}["delta"] == steps


def test_what_follows_is_named_with_all_the_steps_it_has_come_to():
    found = diagnosis(judge_of(ERROR, ERROR + "\n        delta[t] *= 1 + (t == 1)"))
    assert {fault.name: fault.steps for fault in found.faults}["dx"] == "from t=2 back (T=4)"


def test_parts_of_an_array_are_named():
    def part(wrong):
        found = diagnosis(judge_of(DW, wrong))
        return {fault.name: fault.block for fault in found.faults}["dW"]

    assert part(f"{DW}\n    dW[2] += 1") == "H = 2 of 5"
    assert part(f"{DW}\n    dW[:, 1] += 1") == "H = 1 of 5"
    assert part(f"{DW}\n    np.fill_diagonal(dW, 7)") == "on the diagonal"
    assert part(f"{DW}\n    dW += 1") == ""


def test_gates_are_named():
    def forward(i):
        a = i["x"] @ i["w"].T
        f, g = np.split(a, 2, axis=-1)
        return {"y": np.tanh(f) * g}, (i["x"], i["w"], f, g)

    def backward(kept, d):
        x, w, f, g = kept
        da = np.concatenate([d["y"] * g, d["y"] * np.tanh(f)], axis=-1)  # no tanh′
        return {"x": da @ w, "w": da.T @ x}

    def twin(i):
        f, g = jnp.split(i["x"] @ i["w"].T, 2, axis=-1)
        return {"y": jnp.tanh(f) * g}

    pair = Pair(
        name="gate",
        inputs={"x": "B D", "w": "2H D"},
        outputs={"y": "B H"},
        forward=forward,
        backward=backward,
        twin=twin,
    )
    found = diagnosis(Judge(pair, np.dtype(np.float64)), "B=2 D=3 H=5")
    assert {f.name: f.block for f in found.faults}["dw"] == "block 1 of 2 along 2H"
    assert "the derivative of tanh is missing" in found.likely[0]


def test_the_gate_is_named_though_all_gates_of_earlier_steps_are_spoiled():
    right = "dc_t * before_c[t] * dsigmoid(f)"
    wrong = planted(lstm, f"d_f[...] = {right}", f"d_f[...] = {right} * 1.5")
    found = diagnosis(Judge(CELLS["lstm"].pair(wrong), np.dtype(np.float32)))
    delta = next(fault for fault in found.faults if fault.name == "delta")
    assert (delta.block, delta.by_itself) == ("block 2 of 4 along 4H", True)


def test_a_mistake_that_no_single_term_explains_is_not_explained():
    found = diagnosis(judge_of(DW, "dW = np.cos(flat(delta)).T @ flat(before)"))
    assert found.likely == ()
    assert found.tried > 100
    assert not found.advice


def test_where_nothing_is_explained_and_steps_cannot_be_looked_at_taps_are_advised():
    pair = rnn_pair(planted(rnn, DW, "dW = np.cos(flat(delta)).T @ flat(before)"))

    def without_delta(cache, d):
        return {k: v for k, v in pair.backward(cache, d).items() if k not in pair.taps}

    def twin(i, activation):
        zeros = {k: jnp.zeros(i["s0"].shape) for k in pair.taps}
        zeros["delta"] = jnp.zeros((len(i["x"]), *i["s0"].shape))
        return pair.twin({**i, **zeros}, activation)

    bare = replace(pair, taps={}, equations={}, backward=without_delta, twin=twin)
    report = verify(bare, cases=20)
    assert "δ of each step" in report.first_failure.diagnosis.advice
    assert report.first_failure.diagnosis.advice in str(report)

    def bent(i, activation):
        outputs, cache = bare.forward(i, activation)
        return {k: a + a * a / 8 for k, a in outputs.items()}, cache

    forward = verify(replace(bare, forward=bent), cases=20)
    assert not forward.first_failure.diagnosis.advice  # of which taps say nothing


def test_what_is_looked_at_closer_is_the_first_that_fails():
    backwards = {"x": lambda g: 2 * g, "w": lambda g: 3 * g}

    def wrong(cache, d):
        return {k: backwards[k](g) for k, g in backward(cache, d).items()}

    report = verify(replace(DENSE, backward=wrong), cases=5)
    assert sorted(report.failing) == ["dw", "dx"]
    assert report.failing[0] == report.first_failure.row
    later = replace(report, first_failure=replace(report.first_failure, row=report.failing[1]))
    assert later.failing == report.failing[::-1]


def test_a_wrong_forward_pass_is_not_explained_by_the_backward_pass():
    found = diagnosis(judge_of("states[t] = f.f(a)", "states[t] = f.f(2 * a)"))
    assert found.faults[0].name == "a"
    assert found.likely == ()


def test_what_fails_only_in_a_special_case_is_looked_at_there():
    judge = judge_of(ERROR, ERROR + "\n        delta[t] *= 1 + (len(delta) == 1)")
    assert diagnosis(judge, "T=1 B=2 D=3 H=4").case.startswith("T=1")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("build", [rnn_pair, model_pair])
def test_each_step_by_itself_is_right_however_many_there_are(build, dtype):
    judge = Judge(build(), np.dtype(dtype))
    letters = " ".join(f"{x}=3" for x in judge.pair.letters() if x != "T")
    found = judge.steps(draw.parse(judge.pair, f"T={LONG} {letters} activation=sigmoid"))
    assert found[STEPS].ok
    assert found[STEPS].error > 0


def test_a_single_bad_step_of_many_is_seen_step_by_step():
    judge = judge_of(ERROR, ERROR + "\n        delta[t] *= 1 + 1e-12 * (t == 30)")
    case = draw.parse(judge.pair, "T=64 B=3 D=3 H=3 W=radius:1.1")
    assert not judge.steps(case)[STEPS].ok


def test_a_window_longer_than_any_random_case_fails():
    wrong = "carried = delta[t] @ W * (t != len(delta) - 20)"
    report = verify(judge_of(CARRY, wrong).pair, cases=10)
    assert report.failed_at == 10
    assert "T=21 " in report.first_failure.case  # shrunk from a case of 64 steps


def no_taps(i):
    delta = jnp.zeros((*i["x"].shape[:2], len(i["b"])))
    return {"delta": delta, "delta_T": delta[0]}


def test_a_pair_without_taps_has_no_steps():
    pair = replace(rnn_pair(), taps={}, equations={})
    bare = replace(
        pair,
        backward=lambda c, d: {
            k: v for k, v in rnn_pair().backward(c, d).items() if not k.startswith("delta")
        },
        twin=lambda i, activation: rnn_pair().twin(
            {
                **i,
                "delta": jnp.zeros((*i["x"].shape[:2], i["b"].shape[0])),
                "delta_T": jnp.zeros(1),
            },
            activation,
        ),
    )
    judge = Judge(bare, np.dtype(np.float64))
    assert judge.steps(draw.parse(bare, "T=3 B=2 D=2 H=2")) == {}


def test_nan_has_its_steps_too_but_no_likely_term():
    found = diagnosis(
        judge_of(
            ERROR, f"{ERROR}\n        if t == 2:\n            delta[t, 0] = np.nan", np.float64
        )
    )
    delta = next(fault for fault in found.faults if fault.name == "delta")
    assert (delta.steps, delta.block) == ("from t=3 back (T=4)", "sequence 0 of 3")
    assert (found.likely, found.tried) == ((), 0)


def test_a_larger_case_in_which_another_row_fails_is_not_the_one_looked_at():
    """Beyond one step dW is wrong, and comes first; in the failing case only db is."""

    right = rnn_pair()
    pair = replace(right, backward=lambda cache, d: doubled(right.backward(cache, d)))

    def doubled(g):
        name = "W" if len(g["delta"]) > 1 else "b"
        return {**g, name: g[name] * 2}

    judge = Judge(pair, np.dtype(np.float64))
    case = draw.parse(pair, "T=1 B=2 D=2 H=3 seed=1")
    found = diagnose(judge, first_failed(case, judge.one(case)))
    assert found.case == str(case)
    assert found.likely == ("db is B times what it should be", "db is twice what it should be")


def test_all_entries_of_one_size_are_not_called_clipped():
    judge = judge_of("Grads(dU, dW,", "Grads(dU, 1e-3 * np.sign(dW),", np.float64)
    assert diagnosis(judge).likely == ()
