"""`bptt train --cell`: any cell, stacked too, and the rnn of as many weights beside it."""

import itertools
import json
import signal
from dataclasses import replace

import numpy as np
import pytest

from bptt_verify import cli
from bptt_verify.network import TRAINED, network_pair
from bptt_verify.pairs import CELLS
from manual_bptt import charlm, gru, lstm, network, rnn, slstm, text
from manual_bptt._tree import leaves
from planting import caught_in, planted

RIVER = "the river runs and runs, round the rock and down the run. " * 30
SPLIT = text.split(RIVER)
MODULES = [cell.by_hand for cell in TRAINED.values()]
SIZES = {"hidden": 8, "batch": 4, "window": 8}
SMALL = [word for name, n in SIZES.items() for word in (f"--{name}", n)] + ["--sample", 20]
STACKED = ["--layers", 2, "--residual"]


@pytest.fixture
def bptt(monkeypatch, capsys, tmp_path):
    """Run `bptt train` on the river in a folder of its own: exit code, output, complaints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "river.txt").write_text(RIVER, encoding="utf-8")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", "river.txt", *map(str, arguments)])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def small(cell, **changes):
    rate = charlm.usual_rate(cell)
    settings = charlm.Settings(cell=cell, learning_rate=rate, **SIZES, steps=40)
    return settings._replace(**changes).fitted(SPLIT)


def stacked(cell):
    return small(cell, layers=2, residual=True)


def steps(settings, state=None):
    return charlm.train(SPLIT, settings, state or charlm.start(SPLIT, settings))


def same(a, b):
    """The same arrays at the same places."""
    left, right = dict(leaves(a)), dict(leaves(b))
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TRAINED)
def test_a_stack_of_any_cell_trains_and_agrees_with_its_twin(name, bptt, tmp_path):
    checked = ["--steps", 9, "--verify-every", 4, "--no-rival", "--json", "f.json"]
    code, out, err = bptt("--cell", name, *SMALL, *STACKED, *checked)
    assert code == 0, err
    assert f"2 layers of {name} H=8" in " ".join(out.split())  # whatever the width
    assert "3 gradients agree with the twin" in out
    figures = read(tmp_path / "f.json")
    assert (figures["cell"], figures["layers"], figures["rival"]) == (name, 2, None)


def test_every_cell_with_a_module_of_its_own_can_be_trained():
    assert set(MODULES) == {rnn, *(cell.by_hand for cell in CELLS.values())}


def test_the_pair_of_a_stack_passes_in_random_cases():
    pair = network_pair(CELLS["gru"], 2, residual=True)
    assert caught_in(pair, "float32", cases=10) is None


def test_a_mistake_in_a_cell_ends_the_run(bptt, monkeypatch):
    wrong = planted(lstm, "d_f[...] = dc_t * before_c[t]", "d_f[...] = dc_t * all_c[t]")
    monkeypatch.setitem(TRAINED, "lstm", replace(TRAINED["lstm"], by_hand=wrong))
    code, out, _ = bptt("--cell", "lstm", *SMALL, *STACKED, "--steps", 6, "--verify-every", 5)
    assert code == 1
    assert "step 0: the gradient disagrees with the twin" in out
    # what the readout says is right; the mistake is in both layers
    assert "dV" not in out
    assert {"delta_1", "delta_2"} <= set(out.split())


def test_it_learns():
    settings = small(gru, hidden=16, steps=300)
    *_, step = steps(settings)
    bits = charlm.bits(settings.network, step.after.params, SPLIT.held_out)
    assert bits < text.bigram_bits(SPLIT)


@pytest.mark.parametrize("cell", [rnn, lstm, slstm])
def test_all_states_are_carried_and_start_over_with_the_text(cell):
    settings = stacked(cell)._replace(steps=60)
    windows = (len(text.streams(SPLIT.train, settings.batch)) - 1) // settings.window
    assert windows < 60
    for now, following in itertools.pairwise(steps(settings)):
        if following.before.step % windows == 0:
            assert not any(a.any() for _, a in leaves(following.before.states))
        else:
            same(following.before.states, now.after.states)
            np.testing.assert_array_equal(following.x[0], now.targets[-1])
            _, cache = network.forward(
                settings.network, now.before.params, now.x, now.targets, now.before.states
            )
            last = tuple(tuple(a[-1] for a in layer) for layer in cache.states)
            same(now.after.states, last)


@pytest.mark.parametrize("settings", [small(rnn), stacked(lstm), stacked(slstm)])
def test_a_resumed_run_is_bitwise_the_run_that_never_stopped(settings, tmp_path):
    whole = list(steps(settings))
    charlm.save(tmp_path / "c.npz", SPLIT, settings, whole[16].after)
    again, state = charlm.load(tmp_path / "c.npz", SPLIT, MODULES)
    assert (again, state.step) == (settings, 17)
    *_, resumed = steps(again, state)
    same(whole[-1].after.params, resumed.after.params)
    same(whole[-1].after.states, resumed.after.states)
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_the_rival_is_that_of_the_whole_run_also_after_a_resume(bptt, tmp_path):
    settings = small(lstm)
    code, out, err = bptt("--cell", "lstm", *SMALL, "--steps", 40, "--json", "whole.json")
    assert code == 0, err
    charlm.save(tmp_path / "c.npz", SPLIT, settings, list(steps(settings))[16].after)
    code, _, err = bptt("--resume", "c.npz", "--json", "resumed.json")
    assert code == 0, err
    whole, resumed = read(tmp_path / "whole.json"), read(tmp_path / "resumed.json")
    for figures in (whole, resumed):
        assert (figures["cell"], figures["rival"]["cell"]) == ("lstm", "rnn")
        assert f"{figures['weights']:,} weights" in out
        assert f"{figures['rival']['weights']:,} weights" in out
        for found in (figures, figures["rival"]):
            del found["seconds"], found["characters_per_second"]
    assert whole == resumed


@pytest.mark.parametrize("options", [[], ["--learning-rate", "0.005"]])
def test_the_defaults_are_those_of_the_cell(bptt, tmp_path, options):
    few = ["--batch", 2, "--window", 4, "--steps", 1, "--sample", 0, "--json", "f.json", *options]
    assert bptt("--cell", "gru", *few)[0] == 0
    found = read(tmp_path / "f.json")
    assert bptt(*few)[0] == 0
    plain = read(tmp_path / "f.json")
    assert (plain["cell"], plain["hidden"], plain["rival"]) == ("rnn", 256, None)
    wanted = small(gru)
    assert found["hidden"] == charlm.sized(wanted, len(SPLIT.characters), plain["weights"]).hidden
    rates = (found["learning_rate"], found["rival"]["learning_rate"], plain["learning_rate"])
    usual = (charlm.usual_rate(gru), charlm.usual_rate(rnn), charlm.usual_rate(rnn))
    assert rates == ((0.005,) * 3 if options else usual)
    size = charlm.sized(small(rnn), len(SPLIT.characters), found["weights"]).hidden
    assert found["rival"]["hidden"] == size


@pytest.mark.parametrize("name", TRAINED)
def test_no_other_size_comes_nearer_to_so_many_weights(name):
    C = len(SPLIT.characters)
    plain = charlm.Settings()
    for weights in (1, 700, network.count(charlm.start(SPLIT, plain).params)):
        settings = charlm.sized(plain._replace(cell=TRAINED[name].by_hand, layers=2), C, weights)
        sizes = range(max(1, settings.hidden - 1), settings.hidden + 2)
        off = {
            n: abs(network.count(charlm.start(SPLIT, settings._replace(hidden=n)).params) - weights)
            for n in sizes
        }
        assert min(off.values()) == off[settings.hidden]


def test_ctrl_c_while_the_rival_trains_keeps_the_figures_of_the_first(bptt, tmp_path, monkeypatch):
    train = charlm.train

    def interrupted(split, settings, state):
        for step in train(split, settings, state):
            if settings.cell is rnn and step.before.step == 3:
                signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(charlm, "train", interrupted)
    files = ["--checkpoint", "c.npz", "--json", "f.json"]
    code, out, err = bptt("--cell", "gru", *SMALL, "--steps", 20, *files)
    assert code == 130
    assert "stopped at step 4 of the rnn" in err
    assert "gru, " in out
    assert "rnn, " not in out
    figures = read(tmp_path / "f.json")
    assert (figures["steps"], figures["rival"]) == (20, None)
    assert charlm.load(tmp_path / "c.npz", SPLIT, MODULES)[1].step == 20


def test_a_rival_that_diverges_leaves_the_figures_of_the_first(bptt, tmp_path, monkeypatch):
    train = charlm.train

    def diverging(split, settings, state):
        if settings.cell is rnn:
            raise charlm.DivergedError("the loss is nan at step 0")
        return train(split, settings, state)

    monkeypatch.setattr(charlm, "train", diverging)
    code, _, err = bptt("--cell", "gru", *SMALL, "--steps", 5, "--json", "f.json")
    assert code == 0
    assert "no figures: the loss is nan at step 0" in err
    assert read(tmp_path / "f.json")["rival"] is None


def test_a_state_out_of_range_ends_the_run(bptt):
    fast = ["--learning-rate", "1e38", "--steps", 20]
    for cell in (["--cell", "mingru"], ["--cell", "rnn", "--activation", "relu"]):
        code, _, err = bptt(*cell, *SMALL, *STACKED, *fast)
        assert code == 2
        assert "try a smaller --learning-rate" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--cell", "elman"],
            "--cell: expected one of rnn, lstm, lstm-norm, gru, gru-before, mingru, minlstm, slstm",
        ),
        (["--layers", "0"], "--layers: expected at least 1, got 0"),
        (["--cell", "gru", "--activation", "relu"], "--activation: expected --cell rnn, got gru"),
        (["--residual"], "--residual: expected --layers of at least 2, got 1"),
        (["--resume", "c.npz", "--cell", "gru"], "--cell: a resumed run keeps what it was started"),
        (["--resume", "c.npz", "--residual"], "--residual: a resumed run keeps what it was"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(bptt, options, message):
    code, _, err = bptt(*options, "--steps", 1)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", np.int64(1), "expected a checkpoint of format 2, got 1"),
        ("format", np.int64(3), "expected a checkpoint of format 2, got 3"),
        ("setting.cell", np.array("their.cell"), "got their.cell"),
        ("states.0.1", None, "not a checkpoint: no 'states.0.1'"),
        ("params.layers.0.W", np.zeros((3, 3), "f4"), "params.layers.0.W: expected (32, 8) of"),
        ("adam.v.readout.V", np.zeros(3), "adam.v.readout.V: expected"),
        ("setting.layers", np.int64(10**9), "its settings are not those of its arrays"),
        ("setting.hidden", np.int64(10**9), "its settings are not those of its arrays"),
        ("step", np.int64(-5), "damaged: a step below 0"),
        (
            "params.readout.c",
            np.full(len(SPLIT.characters), np.nan, "f4"),
            "or numbers that are not finite",
        ),
    ],
)
def test_a_checkpoint_with_other_contents_is_refused(bptt, tmp_path, name, value, message):
    path = tmp_path / "c.npz"
    charlm.save(path, SPLIT, small(lstm), charlm.start(SPLIT, small(lstm)))
    with np.load(path) as file:
        arrays = dict(file)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, **arrays)
    code, _, err = bptt("--resume", path)
    assert code == 2
    assert message in err
