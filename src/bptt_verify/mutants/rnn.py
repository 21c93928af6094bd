"""Wrong backwards for the recurrent layer.

Most of them shipped once, in some library: those cite the report. What each is named for is what a
checker would have to look at to see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import ModuleType

from bptt_verify.mutants.mutant import Builder, Mutant
from bptt_verify.pairs import rnn_pair
from manual_bptt import activations, rnn

# The lines of `manual_bptt.rnn` that are right.
STATES_LOCKED = "states.flags.writeable = False"
DSTATES = 'dstates = shapes.cotangents("dstates", dstates, "T B H", states)'
DELTA = "delta = np.empty_like(states)  # (T, B, H)"
LAST = "carried = dlast  # (B, H)"
LOOP = "for t in reversed(range(len(delta))):"
ERROR = "delta[t] = (dstates[t] + carried) * f.df(states[t])  # (B, H)"
CARRY = "carried = delta[t] @ W  # Wᵀ δ_t (B, H)"
BEFORE = "before = np.concatenate([s0[None], states[:-1]])  # s_{t-1} (T, B, H)"
DW = "dW = flat(delta).T @ flat(before)  # (H, H)"
DU = "dU = _dproject(x, delta, U)  # (H, D)"
DB = "db = None if b is None else delta.sum(axis=(0, 1))  # (H,)"
DX = "dx = None if _is_indices(x) else (flat(delta) @ U).reshape(x.shape)  # (T, B, D)"
DS0 = "ds0 = carried  # (B, H)"
RETURN = "return Grads(dU, dW, db, dx, ds0, delta)"
RESULT = "return states, Cache(x, s0, states, f, sizes)"
# … for class indices
ORDER = 'order = np.argsort(x, axis=None, kind="stable")'
ZEROS = "dU = np.zeros_like(U)  # (H, D)"
SCATTER = "dU[:, columns] = np.add.reduceat(flat(delta)[order], starts).T"
# … and of `manual_bptt.activations`
RELU = "return np.maximum(a, 0)"
DTANH = "return (1 - s) * (1 + s)"
DSIGMOID = "return s * (1 - s)"
DRELU = "return (s > 0).astype(s.dtype)"


def _mutant(
    name: str,
    what: str,
    source: str,
    changes: Mapping[str, str],
    *,
    build: Builder = rnn_pair,
    module: ModuleType | None = None,
) -> Mutant:
    return Mutant(
        name=name,
        what=what,
        source=source,
        changes=changes,
        layer=rnn,
        build=build,
        module=module,
    )


_activation = partial(_mutant, module=activations)
_on_indices = partial(_mutant, build=partial(rnn_pair, indices=True))


def _then(line: str, more: str) -> dict[str, str]:
    """The line stays, and more follows it."""
    return {line: f"{line}\n    {more}"}


def _window(steps: int) -> dict[str, str]:
    """Each ∂L/∂s_t goes back over so many steps, its own counted."""
    return {
        ERROR: f"""carried = np.zeros_like(s0)
        for u in reversed(range(t, min(t + {steps}, len(delta)))):
            late = dstates[u] + dlast * (u == len(delta) - 1)
            delta[t] = (late + carried) * f.df(states[u])
            carried = delta[t] @ W"""
    }


MUTANTS = (
    # --- the carry
    _mutant(
        "carry-dropped",
        "δ_{t+1} never goes back",
        "FluxML/Flux.jl#1209",
        {CARRY: "carried = np.zeros_like(s0)"},
    ),
    _mutant(
        "carry-unread",
        "δ_t without δ_{t+1}, and without the cotangent of the last state",
        "qixianbiao/RNN#2",
        {ERROR: "delta[t] = dstates[t] * f.df(states[t])"},
    ),
    _mutant(
        "carry-reset",
        "the carry starts from zero again at every even step",
        "ooples/AiDotNet#722",
        {CARRY: "carried = (delta[t] @ W) * (t % 2)"},
    ),
    _mutant(
        "carry-untransposed",
        "W where Wᵀ is meant",
        "victorzhou, rnn-from-scratch",
        {CARRY: "carried = delta[t] @ W.T"},
    ),
    _mutant(
        "carry-untransposed-square",
        "W where Wᵀ is meant, only when D = H",
        "textbook",
        {CARRY: "carried = delta[t] @ (W.T if U.shape == W.shape else W)"},
    ),
    _mutant(
        "carry-sign",
        "-Wᵀ δ_{t+1}",
        "textbook",
        {CARRY: "carried = -delta[t] @ W"},
    ),
    _mutant(
        "carry-piles-up",
        "+= where = is meant: what was carried before comes along",
        "textbook",
        {CARRY: "carried = carried + delta[t] @ W"},
    ),
    _mutant(
        "carry-without-derivative",
        "the carry goes past f′",
        "fla-org/flash-linear-attention#360",
        {CARRY: "carried = (dstates[t] + carried) @ W"},
    ),
    _mutant(
        "carry-beside-derivative",
        "f′ on ∂L/∂s_t only, not on what is carried",
        "fla-org/flash-linear-attention#360",
        {ERROR: "delta[t] = dstates[t] * f.df(states[t]) + carried"},
    ),
    _mutant(
        "carry-derivative-twice",
        "f′ once more on the way back",
        "wvabrinskas/Neuron#181",
        {CARRY: "carried = (delta[t] * f.df(states[t])) @ W"},
    ),
    _mutant(
        "carry-detached-at-first-step",
        "the chain is severed between the first two steps",
        "fla-org/flash-linear-attention#875",
        {CARRY: "carried = (delta[t] @ W) * (t != 1)"},
    ),
    _mutant(
        "carry-lost-between-blocks",
        "blocks of four steps, and nothing goes from one to the one before",
        "proger/accelerated-scan#15",
        {CARRY: "carried = (delta[t] @ W) * (t == 0 or t % 4 != 0)"},
    ),
    _mutant(
        "carry-of-the-next-sequence",
        "each sequence gets the carry of another one in the batch",
        "textbook",
        {CARRY: "carried = np.roll(delta[t] @ W, 1, axis=0)"},
    ),
    _mutant(
        "carry-averaged",
        "the carry is the mean over the batch",
        "textbook",
        {CARRY: "carried = np.zeros_like(s0) + (delta[t] @ W).mean(axis=0)"},
    ),
    _mutant(
        "carry-clipped",
        "clipped to ±5, unsaid",
        "textbook",
        {CARRY: "carried = np.clip(delta[t] @ W, -5, 5)"},
    ),
    _mutant(
        "carry-flushed",
        "entries below 1e-8 are taken for zero",
        "textbook",
        {CARRY: "carried = delta[t] @ W\n        carried[np.abs(carried) < 1e-8] = 0"},
    ),
    _mutant(
        "carry-normalised",
        "0/0 where the carry is all zero",
        "jax-ml/jax#15183",
        {
            CARRY: "carried = delta[t] @ W\n"
            "        carried = carried / np.abs(carried).max() * np.abs(carried).max()"
        },
    ),
    _mutant(
        "carry-normalised-with-eps",
        "divided by its norm + 1e-8, multiplied by its norm",
        "textbook",
        {
            CARRY: "carried = delta[t] @ W\n"
            "        carried *= np.abs(carried).max() / (np.abs(carried).max() + 1e-8)"
        },
    ),
    _mutant(
        "carry-in-float32",
        "carried in float32",
        "textbook",
        {CARRY: "carried = (delta[t] @ W).astype(np.float32).astype(W.dtype)"},
    ),
    _mutant(
        "carry-in-float16",
        "carried in float16",
        "textbook",
        {CARRY: "carried = (delta[t] @ W).astype(np.float16).astype(W.dtype)"},
    ),
    _mutant(
        "carry-a-little-off",
        "1e-7 too much at every step",
        "textbook",
        {CARRY: "carried = delta[t] @ W * 1.0000001"},
    ),
    # --- truncation
    _mutant("window-1", "each error goes back over one step", "textbook", _window(1)),
    _mutant("window-2", "over two steps", "textbook", _window(2)),
    _mutant("window-3", "over three steps", "textbook", _window(3)),
    _mutant(
        "window-3-plus-1",
        "over four steps, where it says three",
        "a widely copied RNN gradient check",
        _window(4),
    ),
    _mutant("window-7", "over seven steps", "textbook", _window(7)),
    _mutant(
        "window-in-blocks",
        "cut into blocks of three steps from the end, unsaid",
        "textbook",
        {CARRY: "carried = (delta[t] @ W) * bool((len(delta) - t) % 3)"},
    ),
    _mutant(
        "window-from-the-last-state",
        "only the error of the last state counts",
        "rsokl/MyGrad#4",
        {ERROR: ERROR.replace("dstates[t]", "(t == len(delta) - 1) * dstates[t]")},
    ),
    # --- the cotangents
    _mutant(
        "dstates-dropped",
        "the cotangents of the states are taken for zero",
        "PaddlePaddle/Paddle#6970",
        {ERROR: "delta[t] = carried * f.df(states[t])"},
    ),
    _mutant(
        "dstates-shifted",
        "∂L/∂s_{t-1} where ∂L/∂s_t is meant, the last one first",
        "textbook",
        {ERROR: ERROR.replace("dstates[t]", "dstates[t - 1]")},
    ),
    _mutant(
        "dstates-reversed",
        "the cotangents from the other end of the sequence",
        "Theano/Theano#5439",
        {ERROR: ERROR.replace("dstates[t]", "dstates[-1 - t]")},
    ),
    _mutant(
        "dstates-batch-first",
        "time and batch exchanged, only when T = B",
        "textbook",
        _then(DSTATES, "dstates = dstates.swapaxes(0, 1) if len(s0) == len(states) else dstates"),
    ),
    _mutant(
        "dstates-averaged",
        "divided by the size of the batch",
        "textbook",
        {ERROR: ERROR.replace("dstates[t]", "dstates[t] / len(s0)")},
    ),
    _mutant(
        "dstates-in-place",
        "δ is written into the cotangents",
        "apache/mxnet#18203",
        {DELTA: "delta = dstates"},
    ),
    _mutant(
        "dlast-dropped",
        "the last state's own cotangent dropped",
        "deeplearning4j/deeplearning4j#8838",
        {LAST: "carried = np.zeros_like(dlast)"},
    ),
    _mutant(
        "dlast-dropped-at-one-step",
        "the same, only when T = 1",
        "textbook",
        {LAST: "carried = dlast * (len(states) > 1)"},
    ),
    _mutant(
        "dlast-alone",
        "dropped when it comes alone, without any other cotangent",
        "pytorch/pytorch#11872",
        {LAST: "carried = dlast * dstates.any()"},
    ),
    _mutant(
        "dlast-for-all",
        "the last state's cotangent at every step",
        "textbook",
        {ERROR: ERROR.replace("carried", "carried + dlast * (t < len(delta) - 1)")},
    ),
    _mutant(
        "dlast-overwrites",
        "= where += is meant: it takes the place of ∂L/∂s_T",
        "tensorflow/swift-apis#518",
        {ERROR: ERROR.replace("dstates[t]", "(t < len(delta) - 1) * dstates[t]")},
    ),
    _mutant(
        "dlast-one-step-early",
        "it lands on the last state but one",
        "fla-org/flash-linear-attention#1141",
        {
            LAST: "carried = np.zeros_like(dlast)",
            ERROR: ERROR.replace("carried", "carried + dlast * (t == max(len(delta) - 2, 0))"),
        },
    ),
    _mutant(
        "dlast-of-another-sequence",
        "the batch backwards",
        "textbook",
        {LAST: "carried = dlast[::-1]"},
    ),
    _mutant(
        "dlast-in-place",
        "the carry is written into the last state's cotangent",
        "apache/mxnet#18203",
        {CARRY: "np.matmul(delta[t], W, out=carried)"},
    ),
    _mutant(
        "order-of-time",
        "from the first step to the last",
        "Theano/Theano#5439",
        {LOOP: "for t in range(len(delta)):"},
    ),
    # --- f′
    _mutant(
        "derivative-dropped",
        "f′ dropped",
        "d2l-ai/d2l-en#2616",
        {ERROR: "delta[t] = dstates[t] + carried"},
    ),
    _mutant(
        "derivative-twice",
        "f′ applied twice",
        "wvabrinskas/Neuron#181",
        {ERROR: ERROR.replace("f.df(states[t])", "f.df(states[t]) ** 2")},
    ),
    _mutant(
        "derivative-of-the-state-before",
        "f′ at s_{t-1}",
        "textbook",
        {ERROR: ERROR.replace("states[t])", "states[t - 1] if t else s0)")},
    ),
    _mutant(
        "derivative-of-the-first-state",
        "f′ at s_1 used at every step",
        "lmnt-com/haste#43",
        {ERROR: ERROR.replace("f.df(states[t])", "f.df(states[0])")},
    ),
    _mutant(
        "derivative-of-the-first-sequence",
        "f′ of the first sequence, broadcast over the batch",
        "tensorflow/tensorflow#34171",
        {ERROR: ERROR.replace("f.df(states[t])", "f.df(states[t, :1])")},
    ),
    _activation("tanh-1-s", "tanh′ = 1 - s", "textbook", {DTANH: "return 1 - s"}),
    _activation("tanh-as-sigmoid", "tanh′ = s (1 - s)", "textbook", {DTANH: "return s * (1 - s)"}),
    _activation(
        "tanh-of-the-state",
        "tanh′ of the state, as if it were a",
        "textbook",
        {DTANH: "return 1 - np.tanh(s) ** 2"},
    ),
    _activation(
        "tanh-quotient",
        "tanh′ = (1 - s²)² / (1 - s²): 0/0 where |s| = 1",
        "jax-ml/jax#15183",
        {DTANH: "return (1 - s * s) ** 2 / (1 - s * s)"},
    ),
    _activation(
        "tanh-never-dies",
        "tanh′ + 1e-8, so that it never vanishes",
        "textbook",
        {DTANH: f"{DTANH} + 1e-8"},
    ),
    _activation(
        "tanh-saturated",
        "tanh′ = 0 from |s| > 0.999 on",
        "textbook",
        {DTANH: f"{DTANH} * (np.abs(s) <= 0.999)"},
    ),
    _activation(
        "sigmoid-as-tanh",
        "sigmoid′ = 1 - s²",
        "textbook",
        {DSIGMOID: "return (1 - s * s)"},
    ),
    _activation("sigmoid-1-s", "sigmoid′ = 1 - s", "textbook", {DSIGMOID: "return 1 - s"}),
    _activation(
        "sigmoid-of-the-state",
        "sigmoid′ of the state, as if it were a",
        "textbook",
        {DSIGMOID: "return sigmoid(s) * (1 - sigmoid(s))"},
    ),
    _activation(
        "sigmoid-floor",
        "sigmoid′ is at least 0.001",
        "textbook",
        {DSIGMOID: "return np.maximum(s * (1 - s), s.dtype.type(0.001))"},
    ),
    _activation(
        "relu-slope-always",
        "relu′ = 1 also where a < 0: s ≥ 0 is always so",
        "textbook",
        {DRELU: "return (s >= 0).astype(s.dtype)"},
    ),
    _activation(
        "relu-leaks",
        "relu′ = 0.01 where a < 0",
        "textbook",
        {DRELU: "return np.where(s > 0, 1, 0.01).astype(s.dtype)"},
    ),
    # --- ∂L/∂W
    _mutant(
        "dW-of-the-state-itself",
        "s_t, not s_{t-1}",
        "wvabrinskas/Neuron#181",
        {DW: "dW = flat(delta).T @ flat(states)"},
    ),
    _mutant(
        "dW-last-step-only",
        "= for += over time",
        "tensorflow/swift-apis#518",
        {DW: "dW = delta[-1].T @ before[-1]"},
    ),
    _mutant(
        "dW-without-s0",
        "the term of the initial state missing",
        "fla-org/flash-linear-attention#1141",
        {BEFORE: BEFORE.replace("s0[None]", "np.zeros_like(s0[None])")},
    ),
    _mutant(
        "dW-without-s0-when-short",
        "the same, only when T ≤ 2",
        "fla-org/flash-linear-attention#1141",
        {BEFORE: BEFORE.replace("s0[None]", "s0[None] * (len(states) > 2)")},
    ),
    _mutant(
        "dW-rolled",
        "rolled where shifted is meant: s_T before s_1",
        "textbook",
        {BEFORE: "before = np.roll(states, 1, axis=0)"},
    ),
    _mutant(
        "dW-ragged-block",
        "blocks of four steps, and an incomplete last one is left out",
        "fla-org/flash-linear-attention#1142",
        {
            DW: "whole = len(delta) // 4 * 4 or len(delta)\n"
            "    dW = flat(delta[:whole]).T @ flat(before[:whole])"
        },
    ),
    _mutant(
        "dW-immediate",
        "the immediate derivative for the total one",
        "d2l-ai/d2l-en#2616",
        {DW: "dW = flat(dstates * f.df(states)).T @ flat(before)"},
    ),
    _mutant(
        "dW-transposed",
        "transposed",
        "pytorch/pytorch#95137",
        {DW: "dW = flat(before).T @ flat(delta)"},
    ),
    _mutant("dW-symmetric", "its symmetric part", "textbook", _then(DW, "dW = (dW + dW.T) / 2")),
    _mutant("dW-over-B", "mean over the batch", "textbook", _then(DW, "dW /= len(s0)")),
    _mutant("dW-over-T", "mean over time", "textbook", _then(DW, "dW /= len(delta)")),
    _mutant(
        "dW-across-the-batch",
        "the product of sums for the sum of products",
        "textbook",
        {DW: "dW = delta.sum(axis=1).T @ before.sum(axis=1)"},
    ),
    _mutant(
        "dW-first-sequence",
        "only the first sequence of the batch",
        "textbook",
        {DW: "dW = delta[:, 0].T @ before[:, 0]"},
    ),
    _mutant(
        "dW-batch-first",
        "time and batch of s exchanged, only when T = B",
        "textbook",
        {DW: "dW = flat(delta).T @ flat(before.swapaxes(0, 1) if len(s0) == len(x) else before)"},
    ),
    _mutant(
        "dW-clipped", "clipped to ±1000, unsaid", "textbook", _then(DW, "dW = dW.clip(-1000, 1000)")
    ),
    _mutant(
        "dW-in-float32",
        "added up in float32",
        "textbook",
        {
            DW: "dW = flat(delta).astype(np.float32).T @ flat(before).astype(np.float32)\n"
            "    dW = dW.astype(W.dtype)"
        },
    ),
    _mutant(
        "dW-one-entry-1e-6",
        "one entry is off by 1e-6 of itself",
        "textbook",
        _then(DW, "dW[0, 0] *= 1.000001"),
    ),
    _mutant(
        "dW-piles-up",
        "added to what the calls before left",
        "apache/mxnet#17086",
        {
            DW: 'dW = backward.__dict__.setdefault(f"{W.shape} {W.dtype}", np.zeros_like(W))\n'
            "    dW += flat(delta).T @ flat(before)"
        },
    ),
    _mutant(
        "dW-races",
        "added up in another order at every call",
        "fla-org/flash-linear-attention#360",
        {
            DW: 'backward.turn = -backward.__dict__.get("turn", -1)\n'
            "    dW = flat(delta)[:: backward.turn].T @ flat(before)[:: backward.turn]"
        },
    ),
    # --- ∂L/∂U
    _mutant(
        "dU-first-step-only",
        "= for += over time",
        "tensorflow/swift-apis#518",
        {DU: "dU = _dproject(x[:1], delta[:1], U)"},
    ),
    _mutant(
        "dU-shifted",
        "x_{t-1} for x_t, the last one first",
        "textbook",
        {DU: "dU = _dproject(np.roll(x, 1, axis=0), delta, U)"},
    ),
    _mutant(
        "dU-reversed",
        "x from the other end of the sequence",
        "Theano/Theano#5439",
        {DU: "dU = _dproject(x[::-1], delta, U)"},
    ),
    _mutant(
        "dU-of-another-sequence",
        "the batch of x backwards",
        "textbook",
        {DU: "dU = _dproject(x[:, ::-1], delta, U)"},
    ),
    _mutant(
        "dU-transposed-square",
        "transposed, only when D = H",
        "pytorch/pytorch#95137",
        _then(DU, "dU = dU.T if dU.shape == W.shape else dU"),
    ),
    _mutant(
        "dU-dW-exchanged",
        "dU and dW exchanged, only when D = H",
        "textbook",
        {RETURN: f"dU, dW = (dW, dU) if dU.shape == dW.shape else (dU, dW)\n    {RETURN}"},
    ),
    # --- ∂L/∂b
    _mutant(
        "db-zero",
        "all zeros",
        "apache/mxnet#17818",
        {DB: "db = np.zeros_like(b)"},
    ),
    _mutant(
        "db-zero-without-s0",
        "dropped when the initial state is all zero",
        "ml-explore/mlx#3249",
        _then(DB, "db *= s0.any()"),
    ),
    _mutant("db-mean", "mean for sum", "textbook", {DB: "db = delta.mean(axis=(0, 1))"}),
    _mutant(
        "db-first-sequence",
        "only the first sequence of the batch",
        "textbook",
        {DB: "db = delta[:, 0].sum(axis=0)"},
    ),
    _mutant(
        "db-wrong-axis",
        "summed over the units in place of the batch, only when B = H",
        "textbook",
        {DB: "db = delta.sum(axis=(0, 2) if len(s0) == len(W) else (0, 1))"},
    ),
    _mutant("db-twice", "counted twice, as if there were two", "textbook", _then(DB, "db *= 2")),
    _mutant(
        "db-shifted",
        "written one place too far",
        "asappresearch/sru#52",
        _then(DB, "db = np.roll(db, 1)"),
    ),
    _mutant(
        "db-of-s0",
        "the gradient of s_0, summed over the batch",
        "textbook",
        {DB: "db = carried.sum(axis=0)"},
    ),
    _mutant(
        "db-before-derivative",
        "the cotangents summed, not δ",
        "textbook",
        {DB: "db = dstates.sum(axis=(0, 1)) + dlast.sum(axis=0)"},
    ),
    _mutant(
        "db-in-float32",
        "added up in float32",
        "textbook",
        {DB: "db = delta.sum(axis=(0, 1), dtype=np.float32).astype(b.dtype)"},
    ),
    _mutant(
        "db-in-float64",
        "returned in float64 whatever came in",
        "textbook",
        {DB: "db = delta.sum(axis=(0, 1), dtype=np.float64)"},
    ),
    _mutant(
        "db-with-an-axis-more",
        "of shape (1, H)",
        "textbook",
        {DB: "db = delta.sum(axis=(0, 1), keepdims=True)[0]"},
    ),
    _mutant(
        "db-one-entry-1e-9",
        "one entry is off by 1e-9 of itself",
        "textbook",
        _then(DB, "db[-1] *= 1.000000001"),
    ),
    _mutant(
        "db-piles-up",
        "added to what the calls before left",
        "apache/mxnet#17086",
        {
            DB: 'db = backward.__dict__.setdefault(f"{b.shape} {b.dtype}", np.zeros_like(b))\n'
            "    db += delta.sum(axis=(0, 1))"
        },
    ),
    # --- ∂L/∂x_t
    _mutant("dx-zero", "all zeros", "jax-ml/jax#753", _then(DX, "dx = np.zeros_like(x)")),
    _mutant(
        "dx-reversed",
        "on the wrong end of the sequence",
        "Theano/Theano#5439",
        _then(DX, "dx = dx[::-1]"),
    ),
    _mutant("dx-shifted", "one step late", "textbook", _then(DX, "dx = np.roll(dx, 1, axis=0)")),
    _mutant(
        "dx-of-another-sequence",
        "one place on in the batch",
        "textbook",
        _then(DX, "dx = np.roll(dx, 1, axis=1)"),
    ),
    _mutant(
        "dx-batch-first",
        "reshaped as if the batch came first",
        "textbook",
        {DX: "T, B, D = x.shape\n    dx = (flat(delta) @ U).reshape(B, T, D).swapaxes(0, 1)"},
    ),
    _mutant(
        "dx-untransposed-square",
        "U where Uᵀ is meant, only when D = H",
        "textbook",
        {DX: "dx = (flat(delta) @ (U.T if U.shape == W.shape else U)).reshape(x.shape)"},
    ),
    _mutant(
        "dx-by-W",
        "Wᵀ δ_t for Uᵀ δ_t, only when D = H",
        "textbook",
        {DX: "dx = (flat(delta) @ (W if U.shape == W.shape else U)).reshape(x.shape)"},
    ),
    _mutant(
        "dx-padding",
        "zeros in x are taken for padding, and get no gradient",
        "state-spaces/mamba#368",
        _then(DX, "dx = dx * (x != 0)"),
    ),
    _mutant(
        "dx-first-step-when-long",
        "the first step gets none, only when T > 6",
        "textbook",
        _then(DX, "dx[0] *= len(dx) <= 6"),
    ),
    _mutant(
        "dx-over-B", "divided by the size of the batch", "textbook", _then(DX, "dx /= len(s0)")
    ),
    _mutant(
        "dx-one-entry-1e-6",
        "the very last entry is off by 1e-6 of itself",
        "textbook",
        _then(DX, "dx[-1, -1, -1] *= 1.000001"),
    ),
    _mutant("x-in-place", "dx is written into x", "apache/mxnet#18203", _then(DX, "x[...] = dx")),
    # --- ∂L/∂s_0
    _mutant("ds0-slot", "δ_1 for Wᵀ δ_1", "FluxML/Flux.jl#2185", {DS0: "ds0 = delta[0]"}),
    _mutant("ds0-zero", "all zeros", "textbook", {DS0: "ds0 = np.zeros_like(s0)"}),
    _mutant(
        "ds0-zero-when-short",
        "all zeros when T ≤ 2",
        "fla-org/flash-linear-attention#1141",
        {DS0: "ds0 = carried * (len(delta) > 2)"},
    ),
    _mutant(
        "ds0-through-tanh",
        "one derivative too many; right when s_0 = 0",
        "wvabrinskas/Neuron#181",
        {DS0: "ds0 = carried * (1 - s0 * s0)"},
    ),
    _mutant(
        "ds0-by-U",
        "Uᵀ δ_1 for Wᵀ δ_1, only when D = H",
        "textbook",
        {DS0: "ds0 = delta[0] @ (U if U.shape == W.shape else W)"},
    ),
    _mutant(
        "ds0-shared",
        "the mean over the batch, as if all sequences shared one s_0",
        "textbook",
        {DS0: "ds0 = np.zeros_like(s0) + carried.mean(axis=0)"},
    ),
    _mutant(
        "ds0-with-dlast",
        "the last state's cotangent added once more",
        "textbook",
        {DS0: "ds0 = carried + dlast"},
    ),
    _mutant(
        "s0-in-place",
        "ds0 is written into s_0",
        "apache/mxnet#18203",
        {DS0: "ds0 = s0\n    s0[...] = carried"},
    ),
    # --- between calls
    _mutant(
        "second-call-differs",
        "the second call returns twice the gradient of s_0",
        "tensorflow/tensorflow#26331",
        {
            DS0: 'backward.calls = backward.__dict__.get("calls", 0) + 1\n'
            "    ds0 = carried if backward.calls % 2 else 2 * carried"
        },
    ),
    _mutant(
        "states-in-place",
        "δ is written into the states that `forward` returned",
        "linkedin/Liger-Kernel#272",
        {STATES_LOCKED: "", DELTA: "delta = states"},
    ),
    _mutant(
        "states-wiped",
        "the gradients are right, the states that `forward` returned are gone",
        "a widely copied RNN gradient check",
        {STATES_LOCKED: "", RETURN: f"states[...] = 0\n    {RETURN}"},
    ),
)

ON_INDICES = (
    _on_indices(
        "index-overwrites",
        "= for +=: of a repeated class the last one counts",
        "tensorflow/swift-apis#518",
        {SCATTER: "dU.T[x.ravel()] = flat(delta)"},
    ),
    _on_indices(
        "index-unsorted",
        "the δ_t in the order of time, not of the classes",
        "textbook",
        {SCATTER: SCATTER.replace("[order]", "")},
    ),
    _on_indices(
        "index-batch-first",
        "the classes batch by batch, the δ_t step by step",
        "textbook",
        {ORDER: f"x = x.T\n        {ORDER}"},
    ),
    _on_indices(
        "index-mean",
        "mean for sum over a repeated class",
        "textbook",
        {SCATTER: f"{SCATTER} / np.diff(starts, append=x.size)"},
    ),
    _on_indices(
        "index-padding",
        "class 0 is taken for padding, and gets no gradient",
        "state-spaces/mamba#368",
        {SCATTER: f"{SCATTER}\n        dU[:, 0] = 0"},
    ),
    _on_indices(
        "index-shifted",
        "one column too far",
        "asappresearch/sru#52",
        {SCATTER: SCATTER.replace("columns", "columns - 1")},
    ),
    _on_indices(
        "index-last-class",
        "the last class gets no gradient",
        "textbook",
        {SCATTER: f"{SCATTER}\n        dU[:, -1] = 0"},
    ),
    _on_indices(
        "index-buffer-not-cleared",
        "classes that do not occur keep the gradient of the call before",
        "apache/mxnet#17086",
        {ZEROS: 'dU = _dproject.__dict__.setdefault(f"{U.shape} {U.dtype}", np.zeros_like(U))'},
    ),
)

HIDDEN = (
    _activation(
        "relu-slope-1-at-0",
        "relu′(0) = 1 in place of 0",
        "textbook",
        {
            RELU: "return np.where(a < 0, -0.0, a)  # the sign tells a < 0 from a = 0",
            DRELU: "return (~np.signbit(s)).astype(s.dtype)",
        },
    ),
    _activation(
        "relu-slope-half-at-0",
        "relu′(0) = 1/2",
        "textbook",
        {
            RELU: "return np.where(a < 0, -0.0, a)",
            DRELU: "return ((s > 0) * 0.5 + ~np.signbit(s) * 0.5).astype(s.dtype)",
        },
    ),
    _mutant(
        "window-16",
        "each error goes back over sixteen steps",
        "textbook",
        _window(16),
    ),
    _mutant(
        "dstates-by-memory",
        "strided cotangents read as if they were contiguous",
        "pytorch/pytorch#620",
        {DSTATES: f"dstates = dstates.ravel(order='K').reshape(dstates.shape)\n    {DSTATES}"},
    ),
    _mutant(
        "cache-used-up",
        "a second way back over the same cache finds the states wiped",
        "tensorflow/tensorflow#26331",
        {
            STATES_LOCKED: "",
            RESULT: RESULT.replace("return states", "return states.copy()"),
            RETURN: f"states[...] = 0\n    {RETURN}",
        },
    ),
    _mutant(
        "buffer-reused",
        "the next call writes over the δ that this one returned",
        "linkedin/Liger-Kernel#272",
        {
            DELTA: 'delta = backward.__dict__.setdefault(f"{states.shape} {states.dtype}", '
            "np.empty_like(states))"
        },
    ),
)
"""Mistakes that equal gradients do not show: at a kink, after many steps, in how it is called."""
