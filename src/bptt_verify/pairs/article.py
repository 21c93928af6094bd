"""The article's layers beside their twins, with its numbered equations.

Each pair is built from its module, so that a changed copy of the module can be held against the
same twin.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

import jax_ref.model
import jax_ref.readout
import jax_ref.rnn
import jax_ref.update
import manual_bptt.model
import manual_bptt.readout
import manual_bptt.rnn
import manual_bptt.training
from bptt_verify.pair import Equation, Index, Mask, Odd, Pair, Probability
from bptt_verify.pairs.cells import Cell
from manual_bptt import activations
from manual_bptt.activations import Activation

Arrays = dict[str, Any]

ACTIVATIONS = tuple(activations.ACTIVATIONS)

# The article's equations: number, step, formula.
EQUATIONS = {
    number: Equation(number, step, formula)
    for number, step, formula in (
        (1, 1, "a_t = U x_t + W s_{t-1} + b"),
        (2, 1, "s_t = f(a_t)"),
        (3, 1, "z_t = V s_t + c"),
        (4, 1, "o_t = softmax(z_t)"),
        (5, 1, "L = -Σ_t Σ_k y_{t,k} log o_{t,k}"),
        (6, 2, "∂L/∂z_t = o_t - y_t"),
        (7, 2, "∂L/∂V = Σ_t (o_t - y_t) s_tᵀ,  ∂L/∂c = Σ_t (o_t - y_t)"),
        (8, 3, "δ_T = [Vᵀ(o_T - y_T)] ⊙ f′(a_T)"),
        (9, 4, "δ_t = [Vᵀ(o_t - y_t) + Wᵀ δ_{t+1}] ⊙ f′(a_t)"),
        (10, 5, "∂L/∂W = Σ_t δ_t s_{t-1}ᵀ"),
        (11, 6, "∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t"),
        (12, 6, "∂L/∂x_t = Uᵀ δ_t,  ∂L/∂s_0 = Wᵀ δ_1"),
        (13, 7, "θ ← θ - η ∂L/∂θ"),
    )
}
# The quantities that show each of them.
SHOWN_BY = {
    **{"a": 1, "s": 2, "last": 2, "z": 3, "o": 4, "loss": 5},
    **{"delta_z": 6, "dV": 7, "dc": 7, "delta_T": 8, "delta": 9, "ds": 9},
    **{"dW": 10, "dU": 11, "db": 11, "dx": 12, "ds0": 12},
}


def _equations(*quantities: str) -> dict[str, Equation]:
    return {name: EQUATIONS[SHOWN_BY[name]] for name in quantities}


class _Recorder:
    """An activation that keeps the pre-activations it is given: how (1) is seen from outside."""

    def __init__(self, activation: Activation) -> None:
        self._f = activation
        self._seen: list[Any] = []
        self.activation = self._f._replace(f=self._record)

    def _record(self, a: Any) -> Any:
        self._seen.append(a.copy())
        return self._f.f(a)

    @property
    def a(self) -> Any:
        """(T, B, H)"""
        return np.stack(self._seen)


def _perturb_a(i: Arrays) -> Any:
    """Zeros added to a_t: their cotangents are δ at every step, and δ_T."""
    return jnp.concatenate([i["delta"][:-1], i["delta"][-1:] + i["delta_T"]])


# --- the recurrent layer: (1), (2), (8) to (12)


def rnn_pair(layer: ModuleType = manual_bptt.rnn, *, indices: bool = False) -> Pair:
    """The recurrent layer on vectors, or on class indices that stand for one-hot vectors."""

    def forward(i: Arrays, activation: str) -> tuple[Arrays, Any]:
        recorder = _Recorder(layer.activations.get(activation))
        params = layer.Params(i["U"], i["W"], i["b"])
        s, cache = layer.forward(params, i["x"], i["s0"], recorder.activation)
        return {"a": recorder.a, "s": s, "last": s[-1]}, (params, cache)

    def backward(cache: Any, d: Arrays) -> Arrays:
        g = layer.backward(*cache, d["s"], d["last"])
        found = {"U": g.U, "W": g.W, "b": g.b, "x": g.x, "s0": g.s0}
        return {**found, "delta": g.delta, "delta_T": g.delta[-1]}

    def twin(i: Arrays, activation: str) -> Arrays:
        params = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"])
        a, s = jax_ref.rnn.forward(params, i["x"], i["s0"], activation, _perturb_a(i))
        return {"a": a, "s": s, "last": s[-1]}

    def untied(i: Arrays, activation: str) -> Arrays:
        weights = SimpleNamespace(U=i["U"], W=i["W"], b=i["b"])
        s = jax_ref.rnn.forward_untied(weights, i["x"], i["s0"], activation)
        return {"s": s, "last": s[-1]}

    shown = ["a", "s", "last", "delta_T", "delta", "dW", "dU", "db", "ds0"]
    return Pair(
        name="rnn-index" if indices else "rnn",
        inputs={
            "x": Index("T B", below="D") if indices else "T B D",
            "s0": "B H",
            "U": "H D",
            "W": "H H",
            "b": "H",
        },
        outputs={"s": "T B H", "last": "B H"},
        probes={"a": "T B H"},
        states={"s0": "s"},
        taps={"delta_T": "B H", "delta": "T B H"},
        options={"activation": ACTIVATIONS},
        forward=forward,
        backward=backward,
        twin=twin,
        untied=untied,
        # a_t = U x_t + W s_{t-1} + b changes its sign with them; class indices have none
        odd=Odd({"U" if indices else "x", "s0", "b"}, {"activation": "tanh"}),
        optional={"s", "last"},
        equations=_equations(*shown, *([] if indices else ["dx"])),
    )


def _states(params: Any, x: Any, s0: Any, *, activation: str, delta: Any) -> Any:
    """The states alone, as a cell has it."""
    return jax_ref.rnn.forward(params, x, s0, activation, delta)[1]


RNN = Cell(
    name="rnn",
    by_hand=manual_bptt.rnn,
    twin=cast(ModuleType, SimpleNamespace(forward=_states)),
    weights={"U": "H D", "W": "H H", "b": "H"},
    states={"s": "H"},
    taps={"delta": "H"},
    options={"activation": ACTIVATIONS},
    shown={},
)
"""The layer as what is made of cells takes it."""

RNN_SHOWN = {2: "s", 9: "delta", 10: "dW", 11: "dU db", 12: "dx ds0"}
"""What shows its equations, where it stands alone."""


# --- the readout: (3) to (7)


def readout_pair(layer: ModuleType = manual_bptt.readout, *, probabilities: bool = False) -> Pair:
    """The readout with class indices (some -1) or probabilities as targets, and a mask."""

    def forward(i: Arrays) -> tuple[Arrays, Any]:
        params = layer.Params(i["V"], i["c"])
        loss, cache = layer.forward(params, i["s"], i["targets"], i["mask"])
        z = layer.logits(params, i["s"])
        return {"z": z, "o": cache.o, "loss": loss}, (params, cache)

    def backward(cache: Any, d: Arrays) -> Arrays:
        g = layer.backward(*cache, d["loss"][()])
        return {"V": g.V, "c": g.c, "s": g.states, "delta_z": g.z}

    def twin(i: Arrays) -> Arrays:
        params = SimpleNamespace(V=i["V"], c=i["c"])
        z, o, loss = jax_ref.readout.forward(params, i["s"], i["targets"], i["mask"], i["delta_z"])
        return {"z": z, "o": o, "loss": loss}

    soft, hard = Probability("T B C"), Index("T B", below="C", missing=True)
    return Pair(
        name="readout-probability" if probabilities else "readout",
        inputs={
            "s": "T B H",
            "V": "C H",
            "c": "C",
            "targets": soft if probabilities else hard,
            "mask": Mask("T B"),
        },
        outputs={"loss": ""},
        probes={"z": "T B C", "o": "T B C"},
        taps={"delta_z": "T B C"},
        forward=forward,
        backward=backward,
        twin=twin,
        equations=_equations("z", "o", "loss", "delta_z", "dV", "dc", "ds"),
    )


# --- the article's whole model: (1) to (12)


def model_pair(model: ModuleType = manual_bptt.model, *, indices: bool = False) -> Pair:
    """Steps 1 to 6 in one go, on vectors or on class indices."""

    def forward(i: Arrays, activation: str) -> tuple[Arrays, Any]:
        recorder = _Recorder(activations.get(activation))
        params = model.Params(U=i["U"], W=i["W"], V=i["V"], b=i["b"], c=i["c"])
        loss, cache = model.forward(
            params,
            i["x"],
            i["targets"],
            s0=i["s0"],
            mask=i["mask"],
            activation=recorder.activation,
        )
        probes = {"a": recorder.a, "s": cache.rnn.states, "o": cache.readout.o}
        return {**probes, "loss": loss}, (params, cache)

    def backward(cache: Any, d: Arrays) -> Arrays:
        g = model.backward(*cache, d["loss"][()])
        found = {"delta_z": g.z, "delta_T": g.delta[-1], **g._asdict()}
        del found["z"]
        return found

    def twin(i: Arrays, activation: str) -> Arrays:
        a, s, _, o, loss = jax_ref.model.forward(
            SimpleNamespace(U=i["U"], W=i["W"], V=i["V"], b=i["b"], c=i["c"]),
            i["x"],
            i["s0"],
            i["targets"],
            i["mask"],
            activation=activation,
            perturb_a=_perturb_a(i),
            perturb_z=i["delta_z"],
        )
        return {"a": a, "s": s, "o": o, "loss": loss}

    absent = {"z", "ds", "last", *(["dx"] if indices else [])}
    return Pair(
        name="model-index" if indices else "model",
        inputs={
            "x": Index("T B", below="D") if indices else "T B D",
            "s0": "B H",
            "U": "H D",
            "W": "H H",
            "b": "H",
            "V": "C H",
            "c": "C",
            "targets": Index("T B", below="C", missing=True),
            "mask": Mask("T B"),
        },
        outputs={"loss": ""},
        probes={"a": "T B H", "s": "T B H", "o": "T B C"},
        states={"s0": "s"},
        taps={"delta_z": "T B C", "delta_T": "B H", "delta": "T B H"},
        options={"activation": ACTIVATIONS},
        forward=forward,
        backward=backward,
        twin=twin,
        equations=_equations(*(name for name in SHOWN_BY if name not in absent)),
    )


# --- the update: (13)

_SHAPES = {"U": "H D", "W": "H H", "V": "C H", "b": "H", "c": "C"}


def update_pair(training: ModuleType = manual_bptt.training) -> Pair:
    """Plain gradient descent on all five parameters."""

    def forward(i: Arrays) -> tuple[Arrays, Any]:
        params = manual_bptt.model.Params(**{k: i[k] for k in _SHAPES})
        grads = SimpleNamespace(**{k: i[f"d{k}"] for k in _SHAPES})
        new = training.sgd(params, grads, abs(float(i["eta"])))
        return {f"new_{k}": getattr(new, k) for k in _SHAPES}, None

    def twin(i: Arrays) -> Arrays:
        theta, gradients = {k: i[k] for k in _SHAPES}, {k: i[f"d{k}"] for k in _SHAPES}
        new = jax_ref.update.sgd(theta, gradients, abs(i["eta"]))
        return {f"new_{k}": new[k] for k in _SHAPES}

    return Pair(
        name="update",
        inputs={**_SHAPES, **{f"d{k}": shape for k, shape in _SHAPES.items()}, "eta": ""},
        outputs={f"new_{k}": shape for k, shape in _SHAPES.items()},
        forward=forward,
        twin=twin,
        equations={f"new_{k}": EQUATIONS[13] for k in _SHAPES},
    )
