"""The scripts of examples/ reach what they require, and say so when they do not."""

import functools
import importlib.util
import inspect
import itertools
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(request):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(request.param, ROOT / f"examples/{request.param}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shortened(train):
    """The training with its last argument, how often, 1."""
    *_, often = inspect.signature(train).parameters
    return functools.partial(train, **{often: 1})


@pytest.mark.parametrize("script", ["digits.py"], indirect=True)
def test_the_digits_are_told_apart(script, capsys):
    assert script.main() == 0
    assert "of 359 held-out digits, required 96%" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["copying.py"], indirect=True)
def test_the_lstm_keeps_what_was_marked(script):
    x, targets = script.batch(np.random.default_rng(0), 50)
    marked = x[..., -1].argmax(axis=0)  # (B,), the step
    assert x[marked, np.arange(50), targets[-1]].all()
    params = script.trained(script.LSTM, hidden=32, rate=1e-2)
    assert script.accuracy(script.LSTM, params) >= script.REQUIRED


@pytest.mark.parametrize("script", ["digits.py", "copying.py"], indirect=True)
def test_what_was_not_learned_ends_in_exit_code_1(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "trained", shortened(script.trained))
    assert script.main() == 1
    assert "required" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["copying.py"], indirect=True)
def test_both_networks_have_about_as_many_weights(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "trained", shortened(script.trained))
    script.main()
    words = capsys.readouterr().out.split()
    lstm, rnn = (int(n) for n, what in itertools.pairwise(words) if what == "weights:")
    step = 2 * 67 + 1 + script.SYMBOLS + 1 + 1 + script.SYMBOLS  # one more unit of the rnn
    assert abs(lstm - rnn) <= step / 2
