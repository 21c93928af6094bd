"""Mistakes that people make in an LSTM, and what the report says is likely."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

import lstm_layer
from bptt_verify import Index, Mask, Pair, draw, verify
from bptt_verify.judge import Judge, first_failed
from bptt_verify.localise import ALONE, diagnose
from bptt_verify.pairs import rnn_pair
from bptt_verify.suspects import distinct
from lstm_layer import looped, pair_of, scanned
from manual_bptt import rnn
from planting import planted

LOOP = "for t in reversed(range(len(x))):"
AFTER = "after = da @ W"
DC_NEXT = "dc_next = dc * f"
RETURN = 'return {"x": dx,'

# what is right, what was written, words of a good diagnosis
MISTAKES = {
    "the first step": (LOOP, "for t in range(len(x) - 1, 0, -1):", "first step is left out"),
    "the last step": (LOOP, "for t in range(len(x) - 2, -1, -1):", "last step is left out"),
    "one sequence": ("da.sum(0)", "da[0]", "only the first sequence of the batch counts in db"),
    "slope": ("(1 - g * g)", "(1 - g) ** 2", "(1 - y)² stands for the derivative of y = tanh"),
    "gate order": ("da_i, da_f, da_g, da_o]", "da_i, da_f, da_o, da_g]", "gates 3 and 4 of 4"),
    "blocks": (
        AFTER,
        "after = sum(a @ w.T for a, w in zip(np.split(da, 4, 1), np.split(W, 4)))",
        "each of the 4 blocks of W is transposed",
    ),
    "one gate": (AFTER, "after = da_f @ np.split(W, 4)[1]", "only the path through block 2 of 4"),
    "a gate forgotten": (
        "dx[t] = da @ U",
        "dx[t] = np.delete(da, np.s_[:len(W) // 4], 1) @ U[len(W) // 4:]",
        "the path through block 1 of 4 of U is missing",
    ),
    "stale cell": ("tc = np.tanh(new)", "tc = np.tanh(c)", "the previous value of the state"),
    "new cell": ("dc * c * f", "dc * new * f", "the new value of the state that starts as c0"),
    "new state": (
        "da.T @ h\n",
        "da.T @ kept[t][4]\n",
        "the new value of the state that starts as h0",
    ),
    "chunks": (
        f"{AFTER}\n        {DC_NEXT}",
        f"{AFTER} * (t != 2)\n        {DC_NEXT} * (t != 2)",
        "every state is carried back within chunks of 2 steps only",
    ),
    "clipped": (
        RETURN,
        f"dU = np.clip(dU, -0.1, 0.1)\n    {RETURN}",
        "dU is clipped at ±0.1",
    ),
    "norm": (
        RETURN,
        f"dU, dW, db = (a * np.asarray(0.3, a.dtype) for a in (dU, dW, db))\n    {RETURN}",
        "dU, dW, db are 0.3 times what they should be",
    ),
    "mean": (
        RETURN,
        f"dU, dW, db = dU / x.shape[1], dW / x.shape[1], db / x.shape[1]\n    {RETURN}",
        "dU, dW, db are 1/B (a mean for a sum) of what they should be",
    ),
    "=": ("dW += da.T", "dW = da.T", "only the first step counts for W"),
}
IN_A_LOOP = ["slope", "gate order", "one gate", "=", "new cell", "chunks"]


def of(judge):
    case = distinct(judge.oracle, draw.parse(judge.pair, "seed=1"))
    return diagnose(judge, first_failed(case, judge.one(case))).likely


def likely(name, twin):
    right, wrong, _ = MISTAKES[name]
    pair = pair_of(planted(lstm_layer, right, wrong).backward, twin)
    judge = Judge(pair, np.dtype(np.float64))
    return of(judge)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_an_lstm_is_named(name):
    assert any(MISTAKES[name][2] in text for text in likely(name, scanned))


@pytest.mark.parametrize("name", IN_A_LOOP)
def test_a_twin_in_a_python_loop_tells_as_much(name):
    assert any(MISTAKES[name][2] in text for text in likely(name, looped))


@pytest.mark.parametrize("twin", [scanned, looped])
def test_the_layer_without_mistake_passes(twin):
    assert verify(pair_of(lstm_layer.backward, twin), cases=30, dtype="float32").ok


def test_a_window_is_named():
    wrong = """delta = np.zeros_like(states)
    for end in range(len(delta)):
        carried = dlast * (end == len(delta) - 1)
        for t in range(end, max(end - 2, 0) - 1, -1):
            now = ((dstates[t] if t == end else 0) + carried) * f.df(states[t])
            delta[t] += now
            carried = now @ W"""
    text = rnn.__loader__.get_source(rnn.__name__)
    start = text.index("delta = np.empty_like(states)")
    end = text.index("# (10) ∂L/∂W = Σ_t δ_t s_{t-1}ᵀ\n    before")
    pair = rnn_pair(planted(rnn, text[start:end].rstrip(), wrong))
    judge = Judge(pair, np.dtype(np.float64))
    found = of(judge)
    assert any("carried back over 2 steps only (a window)" in text for text in found), found


def masked(forgets):
    """A layer whose state stays where the mask says so."""

    def forward(i):
        h, states = i["h0"], []
        for x_t, m_t in zip(i["x"], i["m"], strict=True):
            h = np.where(m_t[:, None], np.tanh(x_t @ i["U"].T + h @ i["W"].T), h)
            states.append(h)
        return {"h": np.stack(states)}, (i, np.stack(states))

    def backward(kept, d):
        i, states = kept
        before = np.concatenate([i["h0"][None], states[:-1]])
        delta, carried = np.zeros_like(states), np.zeros_like(i["h0"])
        for t in reversed(range(len(states))):
            m = i["m"][t][:, None]
            dh = d["h"][t] + carried
            delta[t] = dh * m * (1 - states[t] ** 2)
            carried = delta[t] @ i["W"] + (0 if forgets else dh * ~m)
        return {
            "x": delta @ i["U"],
            "h0": carried,
            "U": np.einsum("tbh,tbd->hd", delta, i["x"]),
            "W": np.einsum("tbh,tbk->hk", delta, before),
        }

    def twin(i):
        def step(h, now):
            x_t, m_t = now
            h = jnp.where(m_t[:, None], jnp.tanh(x_t @ i["U"].T + h @ i["W"].T), h)
            return h, h

        return {"h": lax.scan(step, i["h0"], (i["x"], i["m"]))[1]}

    return Pair(
        name="masked",
        inputs={"x": "T B D", "m": Mask("T B"), "h0": "B H", "U": "H D", "W": "H H"},
        outputs={"h": "T B H"},
        forward=forward,
        backward=backward,
        twin=twin,
    )


def test_a_carry_that_is_dropped_where_the_state_stays_is_named():
    judge = Judge(masked(forgets=True), np.dtype(np.float64))
    assert "the path through h0 is missing where it was chosen" in of(judge)[0]
    assert verify(masked(forgets=False), cases=30).ok


def windowed(off):
    """The last state alone, and the gradient of x over so many steps."""

    def forward(i, k):
        return {"last": i["x"].sum(0)}, (i["x"], k)

    def backward(kept, d):
        x, k = kept
        counts = np.arange(len(x)) >= len(x) - (k + off)
        return {"x": counts[:, None, None] * d["last"]}

    def twin(i, k):
        x = i["x"]
        T = x.shape[0]
        kept = jnp.concatenate([lax.stop_gradient(x[: max(T - k, 0)]), x[max(T - k, 0) :]])
        return {"last": kept.sum(0)}

    return Pair(
        name="windowed",
        inputs={"x": "T B H"},
        outputs={"last": "B H"},
        options={"k": (1, 3, 5)},
        forward=forward,
        backward=backward,
        twin=twin,
    )


def test_a_window_that_is_one_step_short_is_named_where_it_is_one_step_long():
    """There it is the same as no gradient at all."""
    judge = Judge(windowed(-1), np.dtype(np.float64))
    case = draw.parse(judge.pair, "T=1 k=1")
    found = diagnose(judge, first_failed(case, judge.one(case)))
    assert found.likely == ("the gradients are those of k=0",)


@pytest.mark.parametrize("factor", [2, 0])
def test_a_tap_that_the_twin_does_not_add_just_once_is_not_the_subject_s_fault(factor):
    right = rnn_pair()

    def twin(i, activation):
        return right.twin({**i, "delta": factor * i["delta"]}, activation)

    report = verify(replace(right, twin=twin), cases=5)
    assert "the twin may add the tap" in report.first_failure.diagnosis.likely[-1]


def update_gate(mistake=""):
    """h_t = z ⊙ h_{t-1} + (1 - z) ⊙ n; what is carried back may be spoiled on the way."""

    def forward(i):
        h, kept = i["h0"], []
        for x_t in i["x"]:
            z, n = np.split(x_t @ i["U"].T + h @ i["W"].T, 2, axis=1)
            z, n = 1 / (1 + np.exp(-z)), np.tanh(n)
            kept.append((h, z, n))
            h = z * h + (1 - z) * n
        return {"h": np.stack([*(before for before, *_ in kept[1:]), h])}, (i, kept)

    def backward(cache, d):
        i, kept = cache
        dU, dW, dx = (np.zeros_like(i[name]) for name in ("U", "W", "x"))
        carried = np.zeros_like(i["h0"])
        for t in reversed(range(len(kept))):
            h, z, n = kept[t]
            dh = d["h"][t] + carried
            right = dh.copy()
            if mistake == "for all":
                dh *= 1 - z
            dz = dh * h - right * n
            if mistake == "for the state":
                dh *= 1 - z
            da = np.concatenate([dz * z * (1 - z), right * (1 - z) * (1 - n * n)], axis=1)
            dU, dW, dx[t] = dU + da.T @ i["x"][t], dW + da.T @ h, da @ i["U"]
            carried = dh * z + da @ i["W"]
        return {"x": dx, "h0": carried, "U": dU, "W": dW}

    def twin(i):
        def step(h, x_t):
            z, n = jnp.split(x_t @ i["U"].T + h @ i["W"].T, 2, axis=1)
            z, n = nn.sigmoid(z), jnp.tanh(n)
            h = z * h + (1 - z) * n
            return h, h

        return {"h": lax.scan(step, i["h0"], i["x"])[1]}

    return Pair(
        name="update gate",
        inputs={"x": "T B D", "h0": "B H", "U": "2H D", "W": "2H H"},
        outputs={"h": "T B H"},
        forward=forward,
        backward=backward,
        twin=twin,
    )


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("for all", "the first term gets what was multiplied in place for the second"),
        ("for the state", "the second factor of the first term gets what was multiplied in place"),
    ],
)
def test_what_is_multiplied_in_place_and_goes_on_is_named(mistake, said):
    found = of(Judge(update_gate(mistake), np.dtype(np.float64)))
    assert any(said in text and not text.endswith(ALONE) for text in found), found


def test_an_update_gate_is_right_otherwise():
    assert verify(update_gate(), cases=30).ok


def residual(spoiled):
    """y = x + tanh(x w), where `dy *= 1 - t²` is made in place before x gets dy."""

    def forward(i):
        t = np.tanh(i["x"] * i["w"])
        return {"y": i["x"] + t}, (i, t)

    def backward(kept, d):
        i, t = kept
        dy = d["y"]
        dt = dy * (1 - t * t)
        return {"x": (dt if spoiled else dy) + dt * i["w"], "w": dt * i["x"]}

    return Pair(
        name="residual",
        inputs={"x": "B H", "w": "B H"},
        outputs={"y": "B H"},
        forward=forward,
        backward=backward,
        twin=lambda i: {"y": i["x"] + jnp.tanh(i["x"] * i["w"])},
    )


def test_a_slope_that_is_multiplied_in_place_and_goes_on_is_named():
    found = of(Judge(residual(spoiled=True), np.dtype(np.float64)))
    assert "the first term gets what was multiplied in place for the second term" in found[0]
    assert not found[0].endswith(ALONE)
    assert verify(residual(spoiled=False), cases=30).ok


def lookup(adds):
    """Rows of a table by their index, at all steps; `adds(dE, index, d)` is the way back."""

    def forward(i):
        y = np.tanh(i["E"][i["k"]])
        return {"y": y}, (i["E"], i["k"], y)

    def backward(kept, d):
        E, k, y = kept
        dE = np.zeros_like(E)
        adds(dE, k, d["y"] * (1 - y * y))
        return {"E": dE}

    return Pair(
        name="lookup",
        inputs={"E": "K D", "k": Index("T B", below="K")},
        outputs={"y": "T B D"},
        forward=forward,
        backward=backward,
        twin=lambda i: {"y": jnp.tanh(i["E"][i["k"]])},
    )


def at_once(dE, k, d):
    dE[k] += d


def step_by_step(dE, k, d):
    for k_t, d_t in zip(k, d, strict=True):
        dE[k_t] += d_t


@pytest.mark.parametrize(
    ("adds", "which"), [(at_once, ""), (step_by_step, " at the same place on axis 0")]
)
def test_rows_that_are_added_to_by_equal_indices_are_named(adds, which):
    report = verify(lookup(adds), cases=30)
    likely = report.first_failure.diagnosis.likely
    said = f"of equal indices into E{which} only the last one counts"
    assert any(text.startswith(said) and not text.endswith(ALONE) for text in likely), likely
    assert verify(lookup(np.add.at), cases=30).ok
