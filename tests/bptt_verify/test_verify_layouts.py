"""Weights and gradients of the real libraries, through their layouts, within the derived band."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verify import layouts
from bptt_verify.compare import compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.layouts import LAYOUTS
from bptt_verify.oracle import Expected, Oracle
from bptt_verify.pairs import REGISTRY
from bptt_verify.tolerance import multiplier

T, B, D, H, R = 7, 3, 4, 5, 2
SIZES = {"T": T, "B": B, "D": D, "H": H, "R": R}
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
CELLS = {
    "pytorch": ["lstm", "gru"],
    "keras": ["lstm", "gru", "gru-before"],
    "flax-linen": ["lstm", "gru"],
    "flax-nnx": ["lstm", "gru"],
    "equinox": ["lstm", "gru"],
    "onnx": ["lstm", "gru", "gru-before"],
}
ALL = [(library, cell) for library, cells in CELLS.items() for cell in cells]


class Question:
    """A registered cell with weights from elsewhere, everything else random; what the twin says.

    `zero` are outputs whose cotangent is zero, and initial states that are.
    """

    def __init__(self, name, params, dtype=F32, zero=()):
        pair, rng = REGISTRY[name], np.random.default_rng(0)
        sizes = {letter: SIZES[letter] for letter in pair.letters()}
        options = {k: values[0] for k, values in pair.options.items()}

        def array(name, text):
            shape = [int(a[:-1] or 1) * SIZES[a[-1]] for a in text.split()]
            return rng.standard_normal(shape).astype(dtype) * (name not in zero)

        weights = fields(params)
        self.dtype = dtype
        self.inputs = {k: weights.get(k, array(k, text)) for k, text in pair.floats.items()}
        self.cotangents = {k: array(k, text) for k, text in pair.outputs.items()}
        case, drawn = Case(sizes, options, {}, 0), Drawn(self.inputs, self.cotangents)
        self.expected = Oracle(pair, multiplier(dtype)).answer(case, drawn, dtype).quantities

    def start(self):
        """The initial states, by name."""
        return {k: self.inputs[k] for k in ("h0", "c0") if k in self.inputs}

    def agree(self, found):
        """What a library returned, by our names, is what the twin says."""
        self._agree(found, self.expected)

    def gradients_agree(self, layout, theirs):
        """Its gradients of all its weights, by its own names."""
        values, sigmas = (
            layout.export_grads(layout.kind(**{k: self._of(k, which) for k in layout.kind._fields}))
            for which in ("value", "sigma")
        )
        assert set(theirs) == set(values)
        self._agree(theirs, {k: Expected(values[k], sigmas[k]) for k in values})

    def _of(self, field, which):
        known = self.expected.get(f"d{field}")
        return None if known is None else getattr(known, which)

    def _agree(self, found, expected):
        compared = {k: compare(np.asarray(a), expected[k], self.dtype) for k, a in found.items()}
        assert {k: c.problem for k, c in compared.items() if not c.ok} == {}


def fields(params):
    return {k: v for k, v in params._asdict().items() if v is not None}


# --- the map itself


def shapes(layout):
    """Of each of their arrays."""
    sizes = {"U": (H, D), "W": (H, H), "b": (H,), "b_n": (H,), "p": (H,), "P": (R, H)}
    found = {}
    for name, array in layout.theirs.items():
        first, *rest = sizes[array.places[0][0]]
        shape = [first * len(array.split), *rest]
        shape = [array.rows, shape[0] // array.rows] if array.rows > 1 else shape
        found[name] = tuple(shape[::-1] if array.transposed else shape)
    return found


def whole_numbers(layout, seed):
    rng = np.random.default_rng(seed)
    return {k: rng.integers(-9, 9, shape).astype(F64) for k, shape in shapes(layout).items()}


def inner(a, b):
    return sum((a[k] * b[k]).sum() for k in a)


@pytest.mark.parametrize(("library", "cell"), ALL)
@given(seed=st.integers(0, 2**32))
def test_gradients_go_through_the_transpose_of_the_map(library, cell, seed):
    layout = LAYOUTS[library](cell)
    theirs, other = (whole_numbers(layout, [seed, k]) for k in (0, 1))
    params, grads = layout.params(theirs), layout.params(other)
    # ⟨A φ, g⟩ = ⟨φ, Aᵀ g⟩ and ⟨B θ, γ⟩ = ⟨θ, Bᵀ γ⟩, exactly: whole numbers
    assert inner(fields(params), fields(grads)) == inner(theirs, layout.export_grads(grads))
    assert inner(layout.export(params), other) == inner(fields(params), fields(layout.grads(other)))


@pytest.mark.parametrize(("library", "cell"), ALL)
def test_what_goes_out_comes_back(library, cell):
    layout = LAYOUTS[library](cell)
    params = layout.params(whole_numbers(layout, 0))
    exported = layout.export(params)
    assert {k: a.shape for k, a in exported.items()} == shapes(layout)
    for k, a in fields(layout.params(exported)).items():
        np.testing.assert_array_equal(a, getattr(params, k))


@pytest.mark.parametrize("library", ["pytorch", "flax-linen", "flax-nnx", "equinox"])
def test_a_reset_in_the_other_place_has_no_conversion(library):
    with pytest.raises(ValueError, match="after the product, gru-before before it"):
        LAYOUTS[library]("gru-before")


def test_what_does_not_fit_is_named():
    layout = layouts.pytorch("lstm")
    good = whole_numbers(layout, 0)
    with pytest.raises(ValueError, match=r"lstm: expected weight_ih_l0, .*, got weight_ih_l1"):
        layout.params({**good, "weight_ih_l1": good["weight_ih_l0"]})
    with pytest.raises(ValueError, match="missing weight_hh_l0"):
        layout.params({k: v for k, v in good.items() if k != "weight_hh_l0"})
    with pytest.raises(ValueError, match=r"weight_ih_l0: expected 4 blocks .* got shape \(21, 4\)"):
        layout.params({**good, "weight_ih_l0": np.ones((21, 4))})
    with pytest.raises(ValueError, match=r"bias_hh_l0: expected blocks \(5,\), got \(6,\)"):
        layout.params({**good, "bias_hh_l0": np.ones(24)})
    with pytest.raises(TypeError, match="bias_hh_l0: expected an array of floats, got list"):
        layout.params({**good, "bias_hh_l0": [1.0]})
    with pytest.raises(TypeError, match=r"params: expected manual_bptt.lstm.Params, got tuple"):
        layout.export(())
    with pytest.raises(ValueError, match="expected a cell of lstm, gru, got 'rnn'"):
        layouts.pytorch("rnn")
    peephole = layouts.onnx("lstm")
    params = peephole.params(whole_numbers(peephole, 0))
    with pytest.raises(ValueError, match="lstm: this layout has no place for p"):
        layout.export(params)
    half = {k: v for k, v in whole_numbers(layouts.flax_linen("lstm"), 0).items() if k != "hg/bias"}
    with pytest.raises(
        ValueError, match="lstm: expected all of hi/bias, hf/bias, hg/bias, ho/bias"
    ):
        layouts.flax_linen("lstm").params(half)


# --- the real libraries


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", ["lstm", "lstm-projection", "gru"])
def test_pytorch(name, dtype):
    import torch

    torch.manual_seed(0)
    cell = name.partition("-")[0]
    more = {"proj_size": R} if name == "lstm-projection" else {}
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](D, H, **more)
    module.to(getattr(torch, dtype.name))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    layout = layouts.pytorch(cell)
    params = layout.params({k: v.numpy() for k, v in module.state_dict().items()})
    q = Question(name, params, dtype, zero={"c"})  # it returns the last cell alone
    leaves = {k: torch.tensor(q.inputs[k], requires_grad=True) for k in ("x", *q.start())}
    start = tuple(leaves[k][None] for k in q.start())
    h, last = module(leaves["x"], start if cell == "lstm" else start[0])
    states = last if cell == "lstm" else (last,)
    outputs = {"h": h, **{f"{k}_last": a[0] for k, a in zip("hc", states, strict=False)}}
    sum((torch.from_numpy(q.cotangents[k]) * a).sum() for k, a in outputs.items()).backward()
    q.agree({k: a.detach().numpy() for k, a in outputs.items()})
    q.agree({f"d{k}": a.grad.numpy() for k, a in leaves.items()})
    q.gradients_agree(layout, {k: p.grad.numpy() for k, p in module.named_parameters()})
    # the other way: what we export does the same there
    exported = {k: torch.from_numpy(a) for k, a in layout.export(params).items()}
    assert not module.load_state_dict(exported).missing_keys
    again, _ = module(leaves["x"], start if cell == "lstm" else start[0])
    q.agree({"h": again.detach().numpy()})


def in_jax(q, layout, forward, theirs):
    """A library in JAX, forward(theirs, x, *start) -> outputs by our names, and its gradients."""
    inputs = [q.inputs["x"], *q.start().values()]
    outputs, vjp = jax.vjp(forward, theirs, *inputs)
    q.agree(outputs)
    found, *others = vjp({k: jnp.asarray(q.cotangents[k]) for k in outputs})
    q.gradients_agree(layout, {k: np.asarray(a) for k, a in found.items()})
    names = ["dx", *(f"d{k}" for k in q.start())]
    q.agree({k: np.asarray(a) for k, a in zip(names, others, strict=True)})


def random_like(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(shape).astype(F32) for k, shape in shapes.items()}


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru-before"])
def test_keras(cell):
    import keras

    more = {} if cell == "lstm" else {"reset_after": cell == "gru"}
    kind = keras.layers.LSTM if cell == "lstm" else keras.layers.GRU
    layer = kind(H, return_sequences=True, return_state=True, **more)
    layer.build((B, T, D))
    order = [v.name for v in layer.trainable_variables]
    layout = layouts.keras(cell)
    theirs = random_like(shapes(layout))
    assert {v.name: tuple(v.shape) for v in layer.trainable_variables} == shapes(layout)

    def forward(theirs, x, *start):
        (h, *last), _ = layer.stateless_call(
            [theirs[name] for name in order],
            layer.non_trainable_variables,
            x.swapaxes(0, 1),
            initial_state=list(start),
        )
        found = {f"{k}_last": a for k, a in zip("hc", last, strict=False)}
        return {"h": h.swapaxes(0, 1), **found}

    in_jax(Question(cell, layout.params(theirs), zero={"c"}), layout, forward, theirs)


@pytest.mark.parametrize(
    ("cell", "name"),
    [("lstm", "LSTMCell"), ("lstm", "OptimizedLSTMCell"), ("gru", "GRUCell")],
)
def test_flax_linen(cell, name):
    import flax.linen as nn
    from flax.traverse_util import flatten_dict, unflatten_dict

    layout = layouts.flax_linen(cell)
    module = getattr(nn, name)(features=H)
    theirs = random_like(shapes(layout))

    def forward(theirs, x, *start):
        carry = start[::-1] if cell == "lstm" else start[0]  # (c, h)
        variables = {"params": unflatten_dict(theirs, sep="/")}

        def step(carry, x_t):
            return module.apply(variables, carry, x_t)

        last, h = jax.lax.scan(step, carry, x)
        found = {"h_last": last[1], "c_last": last[0]} if cell == "lstm" else {"h_last": last}
        return {"h": h, **found}

    carry = (np.zeros((B, H), F32),) * 2 if cell == "lstm" else np.zeros((B, H), F32)
    built = module.init(jax.random.key(0), carry, np.zeros((B, D), F32))["params"]
    assert {k: a.shape for k, a in flatten_dict(built, sep="/").items()} == shapes(layout)
    in_jax(Question(cell, layout.params(theirs), zero={"c"}), layout, forward, theirs)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_flax_nnx(cell):
    from flax import nnx

    layout = layouts.flax_nnx(cell)
    kind = nnx.OptimizedLSTMCell if cell == "lstm" else nnx.GRUCell
    graph, state = nnx.split(kind(D, H, rngs=nnx.Rngs(0)), nnx.Param)[:2]
    flat = {"/".join(k): v for k, v in nnx.to_flat_state(state)}
    assert {k: v.shape for k, v in flat.items()} == shapes(layout)
    _, _, rest = nnx.split(kind(D, H, rngs=nnx.Rngs(0)), nnx.Param, ...)
    theirs = random_like(shapes(layout))

    def forward(theirs, x, *start):
        given = nnx.from_flat_state(
            [(tuple(k.split("/")), flat[k].replace(v)) for k, v in theirs.items()]
        )
        module = nnx.merge(graph, given, rest)
        carry, outputs = start[::-1] if cell == "lstm" else start[0], []
        for x_t in x:
            carry, h = module(carry, x_t)
            outputs.append(h)
        found = {"h_last": carry[1], "c_last": carry[0]} if cell == "lstm" else {"h_last": carry}
        return {"h": jnp.stack(outputs), **found}

    in_jax(Question(cell, layout.params(theirs), zero={"c", "b_n"}), layout, forward, theirs)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_equinox(cell):
    import equinox as eqx

    layout = layouts.equinox(cell)
    kind = eqx.nn.LSTMCell if cell == "lstm" else eqx.nn.GRUCell
    module = kind(D, H, key=jax.random.key(0))
    names = list(layout.theirs)
    assert {k: getattr(module, k).shape for k in names} == shapes(layout)
    theirs = random_like(shapes(layout))

    def forward(theirs, x, *start):
        filled = eqx.tree_at(
            lambda m: [getattr(m, k) for k in names], module, [theirs[k] for k in names]
        )

        def step(carry, x_t):
            new = jax.vmap(lambda x, *s: filled(x, s if cell == "lstm" else s[0]))(x_t, *carry)
            new = new if cell == "lstm" else (new,)
            return new, new[0]

        last, h = jax.lax.scan(step, start, x)
        return {"h": h, **{f"{k}_last": a for k, a in zip("hc", last, strict=False)}}

    in_jax(Question(cell, layout.params(theirs), zero={"c"}), layout, forward, theirs)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("lstm", "lstm"),
        ("lstm", "lstm-peephole"),
        ("gru", "gru"),
        ("gru-before", "gru-before"),
    ],
)
def test_onnx(cell, name, monkeypatch):
    import onnxruntime
    from onnx import TensorProto, helper

    layout = layouts.onnx(cell)
    theirs = random_like(shapes(layout))
    if name == "lstm":
        del theirs["P"]
    # onnxruntime's sigmoid is 1/2 plus an odd function: exact to a rounding of 1/2, not of itself
    monkeypatch.setattr(jax.nn, "sigmoid", lambda a: 0.5 + 0.5 * jnp.tanh(0.5 * a))
    q = Question(name, layout.params(theirs))
    start = {f"initial_{k[0]}": a[None] for k, a in q.start().items()}
    given = {"X": q.inputs["x"], **{k: a[None] for k, a in theirs.items()}, **start}
    order = ["X", "W", "R", "B", "", "initial_h", "initial_c", "P"]
    used = [k if k in given else "" for k in order[: 8 if cell == "lstm" else 6]]
    more = {} if cell == "lstm" else {"linear_before_reset": int(cell == "gru")}
    returned = ["Y", "Y_h", "Y_c"] if cell == "lstm" else ["Y", "Y_h"]
    node = helper.make_node(
        "LSTM" if cell == "lstm" else "GRU", used, returned, hidden_size=H, **more
    )
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "one layer",
        [helper.make_tensor_value_info(k, real, a.shape) for k, a in given.items()],
        [helper.make_tensor_value_info(k, real, None) for k in returned],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = dict(zip(returned, session.run(returned, given), strict=True))
    outputs = {"h": found["Y"][:, 0], "h_last": found["Y_h"][0]}
    q.agree(outputs | ({"c_last": found["Y_c"][0]} if cell == "lstm" else {}))
