import inspect
import subprocess
import sys

import pytest

from manual_bptt import model, rnn

FORBIDDEN = {"jax", "jaxlib", "jax_ref", "bptt_verify"}


def test_the_hand_written_side_imports_neither_jax_nor_the_twin_nor_the_verifier():
    script = (
        "import pkgutil, sys, manual_bptt\n"
        "for m in pkgutil.walk_packages(manual_bptt.__path__, 'manual_bptt.'):\n"
        # the one door, which only the engine of its name goes through
        "    if not m.name.startswith(('manual_bptt.jax', 'manual_bptt.by_jax')):\n"
        "        __import__(m.name)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {"manual_bptt", "numpy"} <= set(loaded)
    assert not FORBIDDEN & set(loaded)


@pytest.mark.parametrize(
    ("function", "positional", "by_name"),
    [
        (rnn.init, "rng input_size hidden_size", "dtype"),
        (rnn.forward, "params x s0 activation", ""),
        (rnn.backward, "params cache dstates dlast", ""),
        (model.init, "rng input_size hidden_size output_size", "dtype"),
        (model.loss_and_grads, "params x targets", "activation"),
    ],
)
def test_signatures_are_those_of_the_contract(function, positional, by_name):
    parameters = inspect.signature(function).parameters
    free = [k for k, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert free == positional.split()
    assert set(by_name.split()) <= parameters.keys()


@pytest.mark.parametrize(
    ("function", "name", "default"),
    [
        (rnn.forward, "s0", None),
        (rnn.forward, "activation", "tanh"),
        (rnn.backward, "dlast", None),
        (model.loss_and_grads, "activation", "tanh"),
    ],
)
def test_defaults_are_those_of_the_contract(function, name, default):
    assert inspect.signature(function).parameters[name].default == default


def test_fields_are_those_of_the_contract():
    assert rnn.Params._fields == ("U", "W", "b")
    assert set("UWb") | {"x", "s0", "delta"} <= set(rnn.Grads._fields)
    assert set("UWbVc") == set(model.Params._fields) <= set(model.Grads._fields)
