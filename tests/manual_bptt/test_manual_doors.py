import inspect
import re

import numpy as np
import pytest

from manual_bptt import model, readout, rnn, training

T, B, D, H, C = 3, 2, 4, 5, 6
RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, C, (T, B))
GOOD = {
    "params.U": RNG.normal(size=(H, D)),
    "params.W": RNG.normal(size=(H, H)),
    "params.V": RNG.normal(size=(C, H)),
    "params.b": RNG.normal(size=H),
    "params.c": RNG.normal(size=C),
    "x": RNG.normal(size=(T, B, D)),
    "s0": RNG.normal(size=(B, H)),
    "states": RNG.normal(size=(T, B, H)),
    "targets": np.eye(C)[INDICES],
    "mask": None,
    "activation": "tanh",
    "dstates": RNG.normal(size=(T, B, H)),
    "dlast": RNG.normal(size=(B, H)),
    "dloss": 1.0,
}


def layer(a):
    return rnn.Params(a["params.U"], a["params.W"], a["params.b"])


def head(a):
    return readout.Params(a["params.V"], a["params.c"])


def whole(a):
    return model.Params(*(a["params." + k] for k in model.Params._fields))


def rnn_forward(a):
    return rnn.forward(a.get("params", layer(a)), a["x"], a["s0"], a["activation"])


def rnn_backward(a):
    params = a.get("params", layer(a))
    return rnn.backward(params, a.get("cache", RNN_CACHE), a["dstates"], a["dlast"])


def logits(a):
    return readout.logits(a.get("params", head(a)), a["states"])


def readout_forward(a):
    return readout.forward(a.get("params", head(a)), a["states"], a["targets"], a["mask"])


def readout_backward(a):
    return readout.backward(a.get("params", head(a)), a.get("cache", READOUT_CACHE), a["dloss"])


def model_forward(a, door=model.forward):
    named = {k: a[k] for k in ("s0", "mask", "activation")}
    return door(a.get("params", whole(a)), a["x"], a["targets"], **named)


def model_loss_and_grads(a):
    return model_forward(a, model.loss_and_grads)


def model_backward(a):
    return model.backward(a.get("params", whole(a)), a.get("cache", MODEL_CACHE), a["dloss"])


RNN_CACHE = rnn_forward(GOOD)[1]
READOUT_CACHE = readout_forward(GOOD)[1]
MODEL_CACHE = model_forward(GOOD)[1]

LAYER = ["params.U", "params.W", "params.b"]
HEAD = ["params.V", "params.c"]
MODEL = [*LAYER, *HEAD, "x", "s0", "targets"]
ARRAYS = {
    rnn_forward: [*LAYER, "x", "s0"],
    rnn_backward: [*LAYER, "dstates", "dlast"],
    logits: [*HEAD, "states"],
    readout_forward: [*HEAD, "states", "targets"],
    readout_backward: HEAD,
    model_forward: MODEL,
    model_loss_and_grads: MODEL,
    model_backward: [*LAYER, *HEAD],
}
PAIRS = [(door, name) for door, names in ARRAYS.items() for name in names]


def where(*wanted):
    """Every door that takes one of the arguments, with that argument."""
    return [(door, name) for door, name in PAIRS if name in wanted]


def refuses(error, message, call, *args, **named):
    with pytest.raises(error, match="^" + message):
        call(*args, **named)


def with_last(entry):
    def change(array):
        array = array.copy()
        array.flat[-1] = entry
        return array

    return change


WRONG = {
    "list": (lambda a: a.tolist(), TypeError, "expected a numpy.ndarray, got list"),
    "float": (lambda a: 1.0, TypeError, "expected a numpy.ndarray, got float"),
    "masked": (
        np.ma.masked_array,
        TypeError,
        r"expected a numpy.ndarray, got numpy\.ma\.\S*Masked",
    ),
    "float16": (lambda a: a.astype("f2"), TypeError, "expected dtype .*float64, got float16"),
    "complex": (lambda a: a.astype("c16"), TypeError, "expected dtype .*float64, got complex128"),
    "object": (lambda a: a.astype("O"), TypeError, "expected dtype .*float64, got object"),
    "big-endian": (lambda a: a.astype(">f8"), TypeError, "expected dtype .*float64, got >f8"),
    "rank up": (lambda a: a[None], ValueError, r"expected shape \([TBDHC, ]+\).*, got \(1, "),
    "rank down": (
        lambda a: np.array(a[0]),
        ValueError,
        r"expected shape \([TBDHC, ]+\).*, got \(\d*,?( \d)?\)$",
    ),
    "empty": (lambda a: a[:0], ValueError, r"expected (no empty axis,|shape) .*got .*\(0,"),
    "nan": (with_last(np.nan), ValueError, r"expected finite values, got nan at \("),
    "inf": (with_last(np.inf), ValueError, r"expected finite values, got inf at \("),
    "-inf": (with_last(-np.inf), ValueError, r"expected finite values, got -inf at \("),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("door", "name"), PAIRS)
def test_a_wrong_float_array_is_named(door, name, wrong):
    change, error, message = WRONG[wrong]
    refuses(error, f"{re.escape(name)}: {message}", door, {**GOOD, name: change(GOOD[name])})


@pytest.mark.parametrize(("door", "name"), [p for p in PAIRS if p[1] != "x"])
def test_an_integer_array_where_floats_belong_is_named(door, name):
    changed = {**GOOD, name: GOOD[name].astype(int)}
    refuses(TypeError, f"{re.escape(name)}: expected dtype .*float64, got int64", door, changed)


@pytest.mark.parametrize(("door", "name"), where("params.U", "params.W", "params.V"))
def test_a_missing_weight_is_named(door, name):
    message = f"{re.escape(name)}: expected a numpy.ndarray, got None"
    refuses(TypeError, message, door, {**GOOD, name: None})


@pytest.mark.parametrize(("door", "name"), where("x", "states", "targets"))
def test_a_missing_sequence_is_named(door, name):
    refuses(TypeError, f"{name}: expected a numpy.ndarray, got None", door, {**GOOD, name: None})


@pytest.mark.parametrize(("door", "name"), PAIRS)
def test_float32_among_float64_is_named(door, name):
    # the cache decides, or else the first weight: where that is the one, another one differs
    message = f"{re.escape(name)}: expected dtype float64, got float32"
    if name in ("params.U", "params.V"):
        message = rf"({message}|params\.[WVc]: expected dtype float32, got float64)"
    refuses(TypeError, message, door, {**GOOD, name: GOOD[name].astype("f4")})


@pytest.mark.parametrize("door", [model_forward, model_loss_and_grads])
def test_a_readout_of_another_dtype_without_bias_is_named(door):
    changed = {**GOOD, "params.V": GOOD["params.V"].astype("f4"), "params.c": None}
    refuses(TypeError, r"params\.V: expected .*float64, got float32", door, changed)


def resized(name, axis):
    return np.concatenate([GOOD[name], GOOD[name].take([0], axis)], axis)


@pytest.mark.parametrize(
    ("door", "name", "axis"),
    [(d, n, -1) for d, n in PAIRS if n not in ("params.U", "params.V", "targets")]
    + [(d, n, 0) for d, n in where("s0", "dstates", "dlast", "targets")]
    + [(d, n, 1) for d, n in where("dstates", "targets")]
    + [(d, n, 2) for d, n in where("targets")],
)
def test_a_size_that_disagrees_is_named_with_what_it_disagrees_with(door, name, axis):
    bad = resized(name, axis)
    message = rf"{re.escape(name)}: expected shape \(.*\) with .* from .*, got "
    refuses(ValueError, message + re.escape(str(bad.shape)), door, {**GOOD, name: bad})


@pytest.mark.parametrize("door", [rnn_forward, model_forward, model_loss_and_grads])
def test_an_input_size_other_than_that_of_the_weights_is_named(door):
    message = r"x: expected shape \(T, B, D\) with D = 5 from params\.U, got \(3, 2, 4\)"
    refuses(ValueError, message, door, {**GOOD, "params.U": resized("params.U", 1)})


@pytest.mark.parametrize("door", [logits, readout_forward])
def test_a_state_size_other_than_that_of_the_weights_is_named(door):
    message = r"states: expected shape \(T, B, H\) with H = 6 from params\.V, got \(3, 2, 5\)"
    refuses(ValueError, message, door, {**GOOD, "params.V": resized("params.V", 1)})


@pytest.mark.parametrize("door", [model_forward, model_loss_and_grads])
def test_a_model_whose_layers_do_not_fit_is_named(door):
    changed = {**GOOD, "params.V": resized("params.V", 1)}
    refuses(ValueError, r"params\.V: expected shape .*, got \(6, 6\)", door, changed)


KINDS = {"rnn": rnn.Params, "readout": readout.Params, "model": model.Params}


@pytest.mark.parametrize("door", ARRAYS)
def test_params_of_another_layer_or_type_are_named(door):
    own = door.__name__.split("_")[0].replace("logits", "readout")
    others = [make(GOOD) for k, make in zip(KINDS, (layer, head, whole), strict=True) if k != own]
    for bad in (*others, None, list(layer(GOOD)), tuple(head(GOOD))):
        message = rf"params: expected manual_bptt\.{own}\.Params, got \S+"
        refuses(TypeError, message, door, {**GOOD, "params": bad})


@pytest.mark.parametrize("door", [rnn_backward, readout_backward, model_backward])
def test_a_cache_of_another_layer_or_type_is_named(door):
    own = door.__name__.split("_")[0]
    caches = {"rnn": RNN_CACHE, "readout": READOUT_CACHE, "model": MODEL_CACHE}
    for bad in (*(c for k, c in caches.items() if k != own), None, tuple(caches[own])):
        message = rf"cache: expected manual_bptt\.{own}\.Cache, got \S+"
        refuses(TypeError, message, door, {**GOOD, "cache": bad})


INDEX_CACHE = rnn_forward({**GOOD, "x": np.full((T, B), D - 1)})[1]


def layer_of(input_size, hidden_size):
    return rnn.init(np.random.default_rng(0), input_size, hidden_size)


@pytest.mark.parametrize("cache", [RNN_CACHE, INDEX_CACHE], ids=["vectors", "indices"])
@pytest.mark.parametrize("sizes", [(D + 1, H), (D - 1, H), (D, H + 1)])
def test_a_layer_of_another_shape_than_its_cache_is_named(cache, sizes):
    message = r"(params\.[UW]|cache(\.\w+)?): expected .* got "
    refuses(ValueError, message, rnn.backward, layer_of(*sizes), cache, None)


@pytest.mark.parametrize("sizes", [(H, C + 1), (H, C - 1), (H + 1, C)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_readout_of_another_shape_than_its_cache_is_named(sizes, bias):
    params = readout.init(np.random.default_rng(0), *sizes, bias=bias)
    message = r"(params\.[Vc]|cache(\.\w+)?): expected .* got "
    refuses(ValueError, message, readout.backward, params, READOUT_CACHE)


@pytest.mark.parametrize("sizes", [(D + 1, H, C), (D, H + 1, C), (D, H, C + 1)])
def test_a_model_of_another_shape_than_its_cache_is_named(sizes):
    params = model.init(np.random.default_rng(0), *sizes)
    message = r"(params\.[UWVbc]|cache(\.\w+)*): expected .* got "
    refuses(ValueError, message, model.backward, params, MODEL_CACHE)


@pytest.mark.parametrize("dtype", ["i1", "i8", "u1", "u8"])
@pytest.mark.parametrize(
    ("door", "name", "low", "high"),
    [(d, "x", 0, D) for d, _ in where("x")] + [(d, "targets", -1, C) for d, _ in where("targets")],
)
def test_a_class_index_out_of_range_is_named(door, name, low, high, dtype):
    # for an unsigned type the entry below the range does not exist
    for entry in [high, np.iinfo(dtype).max, *([low - 1] if dtype[0] == "i" else [])]:
        bad = np.zeros((T, B), dtype)
        bad[1, 1] = entry
        message = (
            rf"{name}: expected class indices from {low} to {high - 1}, got {entry} at \(1, 1\)"
        )
        refuses(ValueError, message, door, {**GOOD, name: bad})


@pytest.mark.parametrize(("door", "name"), where("x", "targets"))
def test_class_indices_of_another_rank_are_a_wrong_shape(door, name):
    bad = np.zeros(T, int)
    refuses(ValueError, rf"{name}: expected shape \(T, B.*, got \(3,\)", door, {**GOOD, name: bad})


@pytest.mark.parametrize(("door", "name"), where("targets"))
def test_targets_that_are_no_probabilities_are_named(door, name):
    probabilities = np.full((T, B, C), 1 / C)
    shift = np.zeros(C)
    shift[:2] = -1, 1  # the sum stays 1 and an entry becomes negative
    lone = np.zeros((T, B, C))
    lone[1, 1, 0] = np.sqrt(np.finfo(float).eps)  # far above rounding, far below a real mistake
    for bad in (2 * probabilities, 0 * probabilities, probabilities + shift, probabilities + lone):
        message = r"targets: expected probabilities that sum to 1, got \[.*\] at \("
        refuses(ValueError, message, door, {**GOOD, name: bad})
    door({**GOOD, name: probabilities})


@pytest.mark.parametrize(("door", "_"), where("targets"))
@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones((T, B), int), TypeError, "expected dtype bool, got int64"),
        (np.ones((T, B)), TypeError, "expected dtype bool, got float64"),
        ([[True] * B] * T, TypeError, "expected a numpy.ndarray, got list"),
        (
            np.ma.masked_array(np.ones((T, B), bool)),
            TypeError,
            "expected a numpy.ndarray, got .*Mask",
        ),
        (np.ones(T, bool), ValueError, r"expected shape \(T, B\).*, got \(3,\)"),
        (np.ones((B, T), bool), ValueError, r"expected shape \(T, B\).*, got \(2, 3\)"),
        (np.ones((0, B), bool), ValueError, r"expected .*, got .*\(0, 2\)"),
    ],
)
def test_a_wrong_mask_is_named(door, _, mask, error, message):
    refuses(error, f"mask: {message}", door, {**GOOD, "mask": mask})


@pytest.mark.parametrize("door", [rnn_forward, model_forward, model_loss_and_grads])
@pytest.mark.parametrize(
    ("activation", "error", "came"),
    [
        ("gelu", ValueError, "'gelu'"),
        ("", ValueError, "''"),
        (None, TypeError, "None"),
        (np.tanh, TypeError, ".*ufunc"),
        (["tanh"], TypeError, "list"),
    ],
)
def test_an_unknown_activation_is_named(door, activation, error, came):
    message = f"activation: expected one of tanh, sigmoid, relu, got {came}"
    refuses(error, message, door, {**GOOD, "activation": activation})


INITS = [
    (rnn.init, ["input_size", "hidden_size"]),
    (readout.init, ["hidden_size", "output_size"]),
    (model.init, ["input_size", "hidden_size", "output_size"]),
]


@pytest.mark.parametrize(("init", "name"), [(i, name) for i, names in INITS for name in names])
@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, ValueError, "expected at least 1, got 0"),
        (-3, ValueError, "expected at least 1, got -3"),
        (True, TypeError, "expected an int, got bool"),
        (np.True_, TypeError, "expected an int, got numpy.bool"),
        (2.0, TypeError, "expected an int, got float"),
        ("2", TypeError, "expected an int, got str"),
        (None, TypeError, "expected an int, got None"),
    ],
)
def test_a_wrong_size_is_named(init, name, size, error, message):
    sizes = {n: 2 for i, names in INITS if i is init for n in names}
    rng = np.random.default_rng(0)
    refuses(error, f"{name}: {message}", init, rng, **{**sizes, name: size})


@pytest.mark.parametrize(("init", "names"), INITS)
@pytest.mark.parametrize("rng", [None, 0, np.random, np.random.RandomState(0)])
def test_an_rng_that_is_no_generator_is_named(init, names, rng):
    message = r"rng: expected a numpy\.random\.Generator, got \S+"
    refuses(TypeError, message, init, rng, **dict.fromkeys(names, 2))


@pytest.mark.parametrize(("init", "names"), INITS)
@pytest.mark.parametrize("dtype", [np.float16, int, complex, bool, object, ">f8", "no", 3, None])
def test_a_wrong_dtype_is_named(init, names, dtype):
    sizes = dict.fromkeys(names, 2)
    message = r"dtype: expected float32 or float64, got \S+"
    refuses(TypeError, message, init, np.random.default_rng(0), **sizes, dtype=dtype)


THETA = head(GOOD)
STEPPERS = {
    "sgd": lambda p, g, **named: training.sgd(p, g, **named),
    "momentum": lambda p, g, **named: training.momentum(
        p, g, training.momentum_start(THETA), **named
    ),
    "adam": lambda p, g, **named: training.adam(p, g, training.adam_start(THETA), **named),
    "clip_norm": lambda p, g, **named: training.clip_norm(p, g, **named),
}
RATE = {name: {"learning_rate": 0.1} for name in STEPPERS} | {"clip_norm": {"max_norm": 1.0}}
NUMBERS = [
    *[(name, argument) for name, named in RATE.items() for argument in named],
    ("momentum", "decay"),
    ("adam", "beta1"),
    ("adam", "beta2"),
    ("adam", "epsilon"),
]
NO_NUMBER = [True, "1", None, [1.0], 1j, np.ones(1), np.array(1.0)]


@pytest.mark.parametrize(("step", "name"), NUMBERS)
def test_a_wrong_number_is_named(step, name):
    too_large = [1.0] if name in ("decay", "beta1", "beta2") else []
    for bad in [np.nan, np.inf, -np.inf, -0.5, np.float32("nan"), *too_large]:
        named = {**RATE[step], name: bad}
        message = f"{name}: expected a finite number .*, got {bad}"
        refuses(ValueError, message, STEPPERS[step], THETA, THETA, **named)
    for bad in NO_NUMBER:
        named = {**RATE[step], name: bad}
        message = rf"{name}: expected a number, got \S+"
        refuses(TypeError, message, STEPPERS[step], THETA, THETA, **named)


def test_a_number_beyond_every_float_is_named():
    message = "learning_rate: expected a finite number .*, got "
    refuses(ValueError, message, training.sgd, THETA, THETA, 10**400)


@pytest.mark.parametrize("door", [readout_backward, model_backward])
def test_a_wrong_cotangent_of_the_loss_is_named(door):
    for bad in (np.nan, np.inf, -np.inf):
        message = f"dloss: expected a finite number, got {bad}"
        refuses(ValueError, message, door, {**GOOD, "dloss": bad})
    for bad in NO_NUMBER:
        refuses(TypeError, r"dloss: expected a number, got \S+", door, {**GOOD, "dloss": bad})


ONE = {
    **{k: v for k, v in WRONG.items() if k not in ("rank down", "float")},
    "None": (lambda a: None, TypeError, "expected a numpy.ndarray, got None"),
    "broadcast": (lambda a: a[..., :1], ValueError, r"expected shape \(.*\), got \("),
    "float32": (lambda a: a.astype("f4"), TypeError, "expected dtype float64, got float32"),
    "int": (lambda a: a.astype(int), TypeError, "expected dtype .*float64, got int64"),
}


@pytest.mark.parametrize("step", STEPPERS)
@pytest.mark.parametrize("name", THETA._fields)
@pytest.mark.parametrize("wrong", ONE)
def test_a_wrong_gradient_is_named(step, name, wrong):
    change, error, _ = ONE[wrong]
    grads = THETA._replace(**{name: change(getattr(THETA, name))})
    refuses(error, rf"grads\.{name}: expected .*, got ", STEPPERS[step], THETA, grads, **RATE[step])


@pytest.mark.parametrize("step", STEPPERS)
def test_gradients_of_another_layer_are_named(step):
    for bad in (layer(GOOD), None, {"V": GOOD["params.V"], "c": GOOD["params.c"]}):
        message = r"grads(\.V)?: expected .*, got \S+"
        refuses(TypeError, message, STEPPERS[step], THETA, bad, **RATE[step])


STARTS = {
    "momentum_start": lambda p, _: training.momentum_start(p),
    "adam_start": lambda p, _: training.adam_start(p),
    **{name: lambda p, g, n=name: STEPPERS[n](p, g, **RATE[n]) for name in STEPPERS},
}


@pytest.mark.parametrize("door", STARTS)
@pytest.mark.parametrize("bad", [None, [1.0], {"V": GOOD["params.V"]}, (GOOD["params.V"],)])
def test_params_that_are_no_namedtuple_are_named(door, bad):
    refuses(
        TypeError, r"params: expected a NamedTuple of arrays, got \S+", STARTS[door], bad, THETA
    )


@pytest.mark.parametrize("door", STARTS)
@pytest.mark.parametrize("wrong", ["list", "float", "masked", "float16", "int", "object", "nan"])
def test_a_wrong_parameter_is_named(door, wrong):
    change = (ONE | WRONG)[wrong][0]
    theta = THETA._replace(V=change(THETA.V))
    grads = THETA if wrong == "nan" else theta  # where they agree, only the parameter is wrong
    refuses((TypeError, ValueError), r"params\.V: expected .*, got \S+", STARTS[door], theta, grads)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        (),
        training.momentum_start(layer(GOOD)),
        training.adam_start(layer(GOOD)),
        training.Momentum({k: np.zeros(1) for k in THETA._fields}),
        training.Adam(0, *[{k: np.zeros(1) for k in THETA._fields}] * 2),
    ],
    ids=["None", "tuple", "momentum of rnn", "adam of rnn", "momentum shape", "adam shape"],
)
@pytest.mark.parametrize("step", [training.momentum, training.adam])
def test_an_optimiser_state_of_another_kind_or_shape_is_named(step, bad):
    refuses((TypeError, ValueError), r"state\S*: expected .*, got ", step, THETA, THETA, bad, 0.1)


@pytest.mark.parametrize("bad", [[1.0, 2.0], None, np.ma.masked_array([1.0]), np.array([np.nan])])
def test_log_softmax_has_a_door_as_every_public_function(bad):
    refuses((TypeError, ValueError), r"z: expected .*, got ", readout.log_softmax, bad)


def test_every_public_function_is_tried_here():
    here = inspect.getsource(inspect.getmodule(test_every_public_function_is_tried_here))
    for module in (rnn, readout, model, training):
        for name, function in vars(module).items():
            own = inspect.isfunction(function) and function.__module__ == module.__name__
            if own and not name.startswith("_"):
                assert f"{module.__name__.split('.')[1]}.{name}" in here
