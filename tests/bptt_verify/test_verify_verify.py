"""`verify` on a user's own pair: right, wrong in every way, and badly behaved."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verify import Index, Mask, Pair, primitives, properties, verify
from bptt_verify.judge import XLA
from bptt_verify.subject import AGAIN, UNCHANGED
from dense import PAIR, backward, forward


def changed(**fields):
    return dataclasses.replace(PAIR, **fields)


def failing(report):
    return {row.name: row.note for row in report.rows if row.verdict == "fail"}


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32])
def test_a_right_backward_passes(dtype):
    report = verify(PAIR, cases=30, dtype=dtype)
    assert report.ok
    assert report.verdict == "pass"
    assert report.first_failure is None
    assert report.cases == 30
    names = [row.name for row in report.rows]
    assert names[:5] == ["y", "dx", "dw", UNCHANGED, AGAIN]
    assert names[-1] == XLA
    assert set(names[5:-1]) == set(properties.of(PAIR))
    assert all(row.error <= 1 for row in report.rows)


def test_the_same_seed_gives_the_same_report_and_another_seed_another():
    first, again, other = (verify(PAIR, cases=20, seed=s).rows for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_json_holds_the_whole_report():
    report = verify(changed(backward=lambda c, d: {"x": c[0]}), cases=5)
    data = json.loads(report.to_json())
    assert data["verdict"] == "fail"
    assert data["first_failure"]["case"] == report.first_failure.case
    needed = {"python", "numpy", "jax", "jaxlib", "mpmath", "hypothesis", "manual-bptt"}
    assert set(data["versions"]) == needed | {"numba", "torch"}  # which the tests need
    assert [row["name"] for row in data["rows"]] == [row.name for row in report.rows]
    assert "inf" in [row["error"] for row in data["rows"]]


def spoil(f):
    """The right gradients, with one thing done to dw."""

    def wrong(cache, d):
        g = backward(cache, d)
        g["w"] = f(g["w"])
        return g

    return changed(backward=wrong)


@pytest.mark.parametrize(
    ("pair", "note"),
    [
        (spoil(lambda g: g * (1 + 1e-5)), "expected .* ± .*, got"),
        (spoil(lambda g: -g), "expected .* ± .*, got"),
        (spoil(lambda g: g * np.nan), "got nan"),
        (spoil(lambda g: np.full_like(g, np.inf)), "got inf"),
        (spoil(lambda g: g[None]), r"expected shape \(.*\), got \(1, "),
        (spoil(lambda g: g.astype(np.float16)), "expected dtype float64, got float16"),
        (spoil(lambda g: g.tolist()), "expected an array .*, got list"),
        (spoil(lambda g: None), "expected an array .*, got None"),
    ],
)
def test_a_wrong_gradient_fails_in_its_row_alone(pair, note):
    report = verify(pair, cases=20)
    assert report.verdict == "fail"
    assert set(failing(report)) == {"dw"}
    with pytest.raises(AssertionError, match=note):
        raise AssertionError(failing(report)["dw"])


def test_an_error_in_one_entry_of_float32_is_seen():
    def one_entry(g):
        g = g.copy()
        g.flat[0] *= np.float32(1 + 1e-4)
        return g

    wrong = set(failing(verify(spoil(one_entry), cases=50, dtype="float32")))
    assert wrong - set(properties.PROPERTIES) == {"dw"}


def raises(*_):
    raise RuntimeError("out of luck")


def overwrites_input(cache, d):
    g = backward(cache, d)
    cache[0][...] = 0
    return g


def overwrites_cotangent(cache, d):
    g = backward(cache, d)
    d["y"] *= 2
    return g


@pytest.mark.parametrize(
    ("fields", "row", "note"),
    [
        ({"forward": raises}, "forward", "raised RuntimeError: out of luck"),
        ({"backward": raises}, "backward", "raised RuntimeError: out of luck"),
        ({"forward": lambda i: forward(i)[0]}, "forward", "expected (outputs, cache), got dict"),
        ({"forward": lambda i: (3, 4)}, "forward", "outputs: expected a dict, got int"),
        ({"forward": lambda i: ({}, None)}, "forward", "outputs: missing y"),
        ({"backward": lambda c, d: {"x": c[0]}}, "backward", "gradients: missing w"),
        (
            {"backward": lambda c, d: {**backward(c, d), "q": 0}},
            "backward",
            "gradients: unexpected q",
        ),
        ({"backward": overwrites_input}, "inputs unchanged", "modified x"),
        ({"backward": overwrites_cotangent}, "inputs unchanged", "modified the cotangent of y"),
    ],
)
def test_what_a_subject_does_wrong_is_a_row(fields, row, note):
    report = verify(changed(**fields), cases=5)
    assert report.verdict == "fail"
    assert note in failing(report)[row]
    assert report.first_failure.row == row


@pytest.mark.parametrize(
    ("wrong_twin", "message"),
    [
        (lambda i: i["x"], "twin: expected a dict of ..y.., got"),
        (lambda i: {"z": i["x"]}, "twin: expected a dict of ..y.., got ..z.."),
        (lambda i: {"y": i["x"][:, 0]}, "twin: y: expected shape"),
        (lambda i: {"y": jnp.zeros((1, 2, 3))}, "twin: y: expected shape"),
        (lambda i: i["nothing"], "twin: raised KeyError"),
        (lambda i: {"y": i["x"] @ i["w"]}, "twin: raised TypeError"),
    ],
)
def test_a_twin_that_does_not_fit_the_pair_is_an_error(wrong_twin, message):
    with pytest.raises(ValueError, match=f"(?s)pair 'dense': {message}"):
        verify(changed(twin=wrong_twin), case="B=2 D=3 H=4")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pair": 3}, TypeError, "pair: expected a Pair, got int"),
        ({"cases": 0}, ValueError, "cases: expected at least 1, got 0"),
        ({"cases": 1.5}, TypeError, "cases: expected an int, got float"),
        ({"seed": -1}, ValueError, "seed: expected at least 0, got -1"),
        (
            {"dtype": "int8"},
            ValueError,
            "dtype: expected float64 or float32 or bfloat16 or float16, got 'int8'",
        ),
        (
            {"dtype": "nonsense"},
            ValueError,
            "dtype: expected float64 or float32 or bfloat16 or float16, got 'nonsense'",
        ),
        ({"case": "Q=1"}, ValueError, "case: expected one of"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        verify(**{"pair": PAIR, **arguments})


def test_taps_that_the_twin_does_not_read_are_said_to_be_unread():
    tapped = changed(
        taps={"delta": "B H"},
        backward=lambda c, d: {**backward(c, d), "delta": d["y"] * (1 - c[2] ** 2)},
    )
    report = verify(tapped, cases=5)
    assert report.verdict == "inconclusive"
    (row,) = [row for row in report.rows if row.name == "delta"]
    assert row.note == "the twin does not read inputs['delta']"

    reads = dataclasses.replace(
        tapped, twin=lambda i: {"y": jnp.tanh(i["x"] @ i["w"].T + i["delta"])}
    )
    assert verify(reads, cases=20).ok


def test_indices_and_options_reach_both_sides():
    def lookup(i, scale):
        return {"y": scale * i["w"][:, i["k"]].T}, (i["w"].shape, i["k"], scale)

    def gradient(cache, d):
        shape, k, scale = cache
        dw = np.zeros(shape, d["y"].dtype)
        np.add.at(dw.T, k, scale * d["y"])
        return {"w": dw}

    pair = Pair(
        name="lookup",
        inputs={"w": "H D", "k": Index("B", below="D")},
        outputs={"y": "B H"},
        options={"scale": (2.0, 3.0)},
        forward=lookup,
        backward=gradient,
        twin=lambda i, scale: {"y": scale * i["w"][:, i["k"]].T},
    )
    assert verify(pair, cases=30).ok
    wrong = dataclasses.replace(pair, twin=lambda i, scale: {"y": 2.0 * i["w"][:, i["k"]].T})
    report = verify(wrong, cases=30)
    assert "scale=3.0" in report.first_failure.case


def test_values_beyond_the_range_of_the_dtype_are_given_up_not_failed():
    def square(i):
        with np.errstate(over="ignore"):
            return {"y": (i["x"] * np.float32(1e18)) ** 2}, i["x"]

    pair = Pair(
        name="square",
        inputs={"x": "D"},
        outputs={"y": "D"},
        forward=square,
        twin=lambda i: {"y": (i["x"] * 1e18) ** 2},
    )
    report = verify(pair, cases=60, dtype="float32")
    assert report.redrawn > 0
    assert report.cases + report.redrawn == 60
    assert report.ok


def test_the_kink_of_relu_within_rounding_is_given_up_and_elsewhere_judged():
    def relu(i):
        # 3 · (x / 3) - x is 0 up to rounding: on which side, each dtype says differently
        a = i["x"] / 3 * 3 - i["x"]
        return {"y": np.maximum(a, 0)}, a

    pair = Pair(
        name="kink",
        inputs={"x": "D"},
        outputs={"y": "D"},
        forward=relu,
        backward=lambda a, d: {"x": d["y"] * 0 * a},
        twin=lambda i: {"y": jax.nn.relu(i["x"] / 3 * 3 - i["x"])},
    )
    report = verify(pair, cases=40, dtype="float32")
    assert report.verdict != "fail"


def test_a_band_that_sees_nothing_is_inconclusive():
    def cancel(i):
        return {"y": (i["x"] + 1e20) - 1e20}, None

    pair = Pair(
        name="cancel",
        inputs={"x": "D"},
        outputs={"y": "D"},
        forward=cancel,
        twin=lambda i: {"y": (i["x"] + 1e20) - 1e20},
    )
    report = verify(pair, cases=20)
    (row,) = [row for row in report.rows if row.name == "y"]
    assert (row.verdict, row.note) == (
        "inconclusive",
        "every band was wider than 1 % of its entry",
    )


def test_cases_given_up_hide_no_wrong_shape_and_too_many_are_no_pass():
    def twin(i):
        return {"y": jnp.where(jax.nn.softmax(i["x"]).sum() > 1, 2 * i["x"], 2 * i["x"])}

    def forward(factor, shape=()):
        return lambda i: ({"y": (factor * i["x"]).reshape(*shape, -1)}, None)

    pair = Pair(name="n", inputs={"x": "D"}, outputs={"y": "D"}, forward=forward(2), twin=twin)
    assert verify(pair, cases=60).ok
    wrong = verify(dataclasses.replace(pair, forward=forward(3)), cases=60)
    assert wrong.verdict != "pass"
    shape = verify(dataclasses.replace(pair, forward=forward(3, (1,))), cases=60)
    assert shape.redrawn == 0


def test_zeros_are_no_evidence():
    def blind(x, y):
        return ((x + 1e20) - 1e20) * y

    pair = Pair(
        name="blind",
        inputs={"x": "D", "y": "D"},
        outputs={"z": "D"},
        forward=lambda i: ({"z": blind(i["x"], i["y"])}, i),
        backward=lambda i, d: {"x": 17 * i["y"] * d["z"], "y": 17 * i["x"] * d["z"]},
        twin=lambda i: {"z": blind(i["x"], i["y"])},
    )
    assert verify(pair, cases=60).verdict != "pass"


def test_a_row_that_is_always_exactly_zero_passes():
    pair = changed(
        inputs={"x": "B D", "w": "H D", "unused": "D"},
        backward=lambda c, d: {**backward(c, d), "unused": np.zeros(c[0].shape[1], c[0].dtype)},
    )
    assert verify(pair, cases=20).ok


def test_an_output_repaired_by_backward_is_seen():
    def late(i):
        outputs, kept = forward(i)
        right = kept[2].copy()
        outputs["y"][...] = 7
        return outputs, (*kept[:2], right, outputs["y"])

    def repair(cache, d):
        cache[3][...] = cache[2]
        return backward(cache[:3], d)

    found = failing(verify(changed(forward=late, backward=repair), cases=5))
    assert "y" in found
    assert found[UNCHANGED] == "modified the output y"


def test_a_buffer_that_is_never_cleared_is_seen_by_the_second_call():
    buffers = {}

    def dirty(cache, d):
        g = backward(cache, d)
        buffer = buffers.setdefault((*g["w"].shape, g["w"].tobytes()), np.zeros_like(g["w"]))
        buffer += g["w"]
        return {**g, "w": buffer}

    report = verify(changed(backward=dirty), cases=20)
    assert "differs in dw" in failing(report)[AGAIN]


def test_a_subject_that_is_different_every_time_ends_in_a_report():
    noise = np.random.default_rng(0)

    def restless(cache, d):
        g = backward(cache, d)
        return {**g, "w": g["w"] * noise.normal()}

    report = verify(changed(backward=restless), cases=20)
    assert report.verdict == "fail"
    assert report.first_failure is not None


def test_a_subject_that_exits_or_plays_with_its_arguments_ends_in_a_report():
    def exits(*_):
        raise SystemExit(0)

    assert "SystemExit" in failing(verify(changed(forward=exits), cases=2))["forward"]

    def plays(i):
        result = forward(i)
        i["more"] = 3
        i.pop("x")
        return result

    assert verify(changed(forward=plays), cases=5).ok


def test_attention_under_a_mask_of_infinities_is_judged():
    def attend(i, np_, softmax):
        s = np_.where(np_.tril(np_.ones((len(i["q"]),) * 2)) > 0, i["q"] @ i["k"].T, -np_.inf)
        return {"y": softmax(s) @ i["k"]}

    def softmax(s):
        e = np.exp(s - s.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    pair = Pair(
        name="attention",
        inputs={"q": "T D", "k": "T D"},
        outputs={"y": "T D"},
        forward=lambda i: (attend(i, np, softmax), None),
        twin=lambda i: attend(i, jnp, jax.nn.softmax),
    )
    report = verify(pair, cases=60)
    assert report.ok
    assert report.redrawn == 0


@pytest.mark.parametrize(
    ("wrong_twin", "message"),
    [
        (lambda i: {"y": jnp.tanh(i["x"] @ i["w"].T + OUTSIDE)}, "float32"),
        (lambda i: {"y": jnp.fft.fft(i["x"] @ i["w"].T).real}, "complex128"),
        (lambda i: {"y": jnp.float32(i["x"] @ i["w"].T)}, "expected float64, .* got float32"),
        (
            lambda i: {"y": i["x"] @ i["w"].T + jax.random.normal(jax.random.key(0), ())},
            "draws random numbers",
        ),
    ],
)
def test_numbers_without_a_rounding_model_are_refused(wrong_twin, message):
    with pytest.raises(ValueError, match=f"pair 'dense': twin: .*{message}"):
        verify(changed(twin=wrong_twin), cases=2)


OUTSIDE = jnp.array([0.1])


def test_a_convolution_is_within_its_band():
    pair = Pair(
        name="convolution",
        inputs={"x": "T", "k": "K"},
        outputs={"y": "T"},
        forward=lambda i: ({"y": np.convolve(i["x"], i["k"])[: len(i["x"])]}, None),
        twin=lambda i: {"y": jnp.convolve(i["x"], i["k"])[: len(i["x"])]},
    )
    assert verify(pair, cases=60, dtype="float32").ok


def test_a_tap_that_is_read_from_two_steps_on_is_read():
    def twin(i):
        x = i["x"] if len(i["x"]) == 1 else i["x"] + i["delta"]
        return {"y": x * 2}

    pair = Pair(
        name="late",
        inputs={"x": "T"},
        outputs={"y": "T"},
        taps={"delta": "T"},
        forward=lambda i: ({"y": i["x"] * 2}, len(i["x"])),
        backward=lambda n, d: {"x": d["y"] * 2, "delta": d["y"] * 2 * (n > 1)},
        twin=twin,
    )
    assert verify(pair, cases=40).ok


def test_a_wrong_rule_of_the_interpreter_is_not_blamed_on_the_subject_alone(monkeypatch):
    monkeypatch.setitem(primitives.EXACT, "neg", lambda p, x: x)
    negative = changed(
        twin=lambda i: {"y": jnp.tanh(i["x"] @ i["w"].T) * 2 + -jnp.tanh(i["x"] @ i["w"].T)}
    )
    assert XLA in failing(verify(negative, cases=20))


def test_progress_is_told():
    told = []
    verify(PAIR, cases=7, progress=told.append)
    assert told == list(range(1, 8))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_of_16_bits(dtype):
    def wide(arrays):
        return {k: v.astype(np.float32) for k, v in arrays.items()}

    def narrow(arrays):
        return {k: v.astype(dtype) for k, v in arrays.items()}

    def half(i):
        out, kept = forward(wide(i))
        return narrow(out), kept

    def forgets_tanh(c, d):
        return {"x": d["y"] @ c[1], "w": d["y"].T @ c[0]}

    right = changed(forward=half, backward=lambda c, d: narrow(backward(c, wide(d))))
    report = verify(right, cases=60, dtype=dtype)
    assert report.verdict == "pass", failing(report)
    wrong = changed(forward=half, backward=lambda c, d: narrow(forgets_tanh(c, wide(d))))
    assert "dx" in failing(verify(wrong, cases=60, dtype=dtype, explain=False))


def test_a_case_without_any_band_is_given_up():
    pair = Pair(
        name="edge of the domain",
        inputs={"x": "N", "c": ""},
        outputs={"y": ""},
        forward=lambda i: ({"y": np.asarray(123, i["x"].dtype)}, None),
        twin=lambda i: {
            "y": jnp.sqrt(1 - i["c"] * 0 - 1 / 3.0 * 3 * jnp.ones(())) + 0 * i["x"].sum()
        },
    )
    report = verify(pair, cases=10)
    assert report.verdict != "pass"


def test_ties_may_be_left_out():
    """A half at the kink, as jnp.maximum has it, and a subject with 0 there."""
    relu = Pair(
        name="relu",
        inputs={"x": "N"},
        outputs={"y": "N"},
        forward=lambda i: ({"y": np.maximum(i["x"], 0)}, i["x"]),
        backward=lambda x, d: {"x": d["y"] * (x > 0)},
        twin=lambda i: {"y": jnp.maximum(i["x"], 0)},
    )
    report = verify(relu, cases=60)
    assert "dx" in failing(report)
    assert "at a kink or a tie the slope is a convention" in report.first_failure.votes
    assert verify(dataclasses.replace(relu, without={"ties"}), cases=60).ok


def test_a_mistake_in_a_long_case_is_shrunk():
    from bptt_verify.pairs import rnn_pair
    from manual_bptt import rnn
    from planting import planted

    late = planted(
        rnn, "carried = delta[t] @ W  #", "carried = delta[t] @ W * (t != len(delta) - 9)  #"
    )
    report = verify(rnn_pair(late), cases=5, explain=True)
    assert int(report.first_failure.case.split()[0].removeprefix("T=")) < 20


def test_what_is_no_number_is_not_explained():
    report = verify(changed(backward=lambda c, d: {**backward(c, d), "w": None}), cases=5)
    assert report.first_failure.diagnosis is None


def test_a_quantity_is_reported_before_a_property():
    mean = changed(backward=lambda c, d: {**backward(c, d), "w": backward(c, d)["w"] / len(c[0])})
    assert verify(mean, cases=60).first_failure.row == "dw"


def test_what_a_subject_raises_has_its_place():
    def raises(cache, d):
        raise RuntimeError("no")

    report = verify(changed(backward=raises), cases=2)
    assert "raised RuntimeError: no (test_verify_verify.py:" in failing(report)["backward"]


def test_a_pair_without_floats_or_backward_passes():
    pair = Pair(
        name="count",
        inputs={"m": Mask("T B")},
        outputs={"n": "B"},
        forward=lambda i: ({"n": i["m"].sum(0).astype(np.float64)}, None),
        twin=lambda i: {"n": i["m"].sum(0).astype(float)},
    )
    report = verify(pair, cases=30)
    assert report.rows[0].verdict == "pass"


def test_a_property_that_fails_is_counted_at_its_case():
    def by_layout(i):
        return forward({k: v if v.flags.c_contiguous else v * 2 for k, v in i.items()})

    report = verify(changed(forward=by_layout), cases=60)
    assert report.first_failure.row == "strides"
    assert report.failed_at < 60


def test_a_transposed_gradient_beside_another_mistake_is_reported():
    """In a larger case the first of them has no comparable values at all."""

    def wrong(cache, d):
        g = backward(cache, d)
        return {"x": np.ascontiguousarray(g["x"].T), "w": 2 * g["w"]}

    report = verify(changed(backward=wrong), case="B=1 D=1 H=1 seed=1")
    assert report.first_failure.row == "dw"
    assert {fault.name for fault in report.first_failure.diagnosis.faults} == {"dx", "dw"}


def test_a_twin_may_look_up_rows_inside_a_scan():
    """What it is given are arrays of JAX's, also where they are not traced."""

    def twin(i):
        def step(s, now):
            token, tap = now
            s = s + i["E"][token] + tap
            return s, s

        return {"s": lax.scan(step, jnp.zeros(i["E"].shape[1]), (i["tokens"], i["delta"]))[1]}

    def backward(tokens, d):
        delta = d["s"][::-1].cumsum(0)[::-1]
        dE = np.zeros((tokens[1], delta.shape[1]), delta.dtype)
        np.add.at(dE, tokens[0], delta)
        return {"E": dE, "delta": delta}

    pair = Pair(
        name="embedding",
        inputs={"tokens": Index("T", below="V"), "E": "V H"},
        outputs={"s": "T H"},
        taps={"delta": "T H"},
        forward=lambda i: ({"s": i["E"][i["tokens"]].cumsum(0)}, (i["tokens"], len(i["E"]))),
        backward=backward,
        twin=twin,
        batch=None,
    )
    assert verify(pair, cases=30).ok


def test_a_report_as_text_is_what_the_command_prints():
    report = verify(
        dataclasses.replace(PAIR, backward=lambda c, d: {**backward(c, d), "w": c[1]}), cases=9
    )
    text = str(report)
    assert "dense: worst error in units of the tolerance" in text
    assert "FAIL  " in text
    assert report.first_failure.reproduce in text
    assert "\x1b" not in text
    assert "1 case in" in str(dataclasses.replace(report, cases=1))
