"""`bptt train`: it learns, it resumes where it stopped, it stops where it is wrong."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bptt_verify.live import Live
from bptt_verify.network import RNN
from manual_bptt import charlm, network, readout, rnn, text
from planting import planted

BPTT = [sys.executable, "-m", "bptt_verify"]
SMALL = ["--hidden", 16, "--batch", 4, "--window", 8, "--sample", 20]
RIVER = "the river runs and runs, round the rock and down the run. " * 30


@pytest.fixture
def river(tmp_path):
    path = tmp_path / "river.txt"
    path.write_text(RIVER, encoding="utf-8")
    return path


def bptt(*arguments, cwd=None):
    return subprocess.run(
        [*BPTT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def small(**changes):
    split = text.split(RIVER)
    settings = charlm.Settings(hidden=16, batch=4, window=8, steps=40)._replace(**changes)
    return split, settings.fitted(split)


def last(split, settings, state=None):
    *_, step = charlm.train(split, settings, state or charlm.start(split, settings))
    return step.after


def test_it_learns_and_says_so(river, tmp_path):
    ended = bptt("train", river, *SMALL, "--steps", 300, "--json", tmp_path / "f.json")
    assert ended.returncode == 0, ended.stderr
    assert "bigrams" in ended.stdout
    split, settings = small(steps=300)
    net = settings.network
    before = charlm.bits(net, charlm.start(split, settings).params, split.held_out)
    after = charlm.bits(net, last(split, settings).params, split.held_out)
    assert after < text.bigram_bits(split) < text.unigram_bits(split) < before


def test_the_gradient_in_use_agrees_with_the_twin():
    split, settings = small(steps=30)
    live = Live(settings, RNN)
    for step in charlm.train(split, settings, charlm.start(split, settings)):
        if step.before.step % 10 == 0:
            assert {n: c.problem for n, c in live.compare(step).items() if not c.ok} == {}


def test_verify_every_stops_at_a_planted_mistake(river, tmp_path):
    wrong = planted(rnn, "carried = delta[t] @ W  # Wᵀ δ_t (B, H)", "carried = delta[t] @ W.T")
    split, settings = small(cell=wrong)
    step = next(iter(charlm.train(split, settings, charlm.start(split, settings))))
    found = Live(settings, RNN).compare(step)
    assert {n for n, c in found.items() if not c.ok} == {"dU", "dW", "db", "ds0", "delta"}

    # and from the command line, with the mistake in the installed module's place
    (tmp_path / "sitecustomize.py").write_text(
        "import manual_bptt.rnn as rnn, inspect\n"
        "source = inspect.getsource(rnn).replace('carried = delta[t] @ W', "
        "'carried = delta[t] @ W.T')\n"
        "exec(source, rnn.__dict__)\n"
    )
    ended = subprocess.run(
        [*BPTT, "train", river, *map(str, SMALL), "--steps", "20", "--verify-every", "5"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ended.returncode == 1, ended.stderr
    assert "the gradient disagrees with the twin" in ended.stdout
    assert "dW" in ended.stdout


def test_ctrl_c_saves_and_the_run_goes_on(river, tmp_path):
    running = subprocess.Popen(
        [*BPTT, "train", river, *map(str, SMALL), "--steps", "1000000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "to learn from" in running.stdout.readline()
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "go on with --resume bptt-train.npz" in err
    _, state = charlm.load(tmp_path / "bptt-train.npz", text.split(RIVER), [rnn])
    assert state.step > 0
    again = ["train", river, "--resume", "bptt-train.npz", "--steps", state.step + 3]
    assert bptt(*again, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("床前明月光,疑是地上霜。举头望明月,低头思故乡。" * 20, id="Chinese"),
        pytest.param("Привет, мир! 🌍 " * 40, id="Russian and emoji"),
        pytest.param("abcd" * 3, id="short"),
        pytest.param("aaaa", id="one character only"),
    ],
)
def test_text_of_any_script(tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    ended = bptt("train", path, *SMALL, "--steps", 5, "--verify-every", 2)
    assert ended.returncode == 0, ended.stderr
    assert "3 gradients agree" in ended.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected at least 4 characters, got 0"),
        (b"a", "expected at least 4 characters, got 1"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not UTF-8 text (byte 0)"),
        (b"text with a zero \x00 byte", "not a text: a NUL"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_no_text_is_one_line_and_exit_2(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    ended = bptt("train", path)
    assert ended.returncode == 2
    assert message in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr


def test_a_checkpoint_of_another_text_or_no_checkpoint_is_refused(river, tmp_path):
    split, settings = small()
    good = tmp_path / "good.npz"
    charlm.save(good, split, settings, charlm.start(split, settings))
    other = text.split("another text altogether " * 20)
    with pytest.raises(ValueError, match="was trained on another text"):
        charlm.load(good, other, [rnn])
    content = good.read_bytes()
    bad = tmp_path / "bad.npz"
    for wrong in (b"", b"not a zip", content[: len(content) // 2], river.read_bytes()):
        bad.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"bad.npz: (damaged or )?not a checkpoint"):
            charlm.load(bad, split, [rnn])
    np.savez(bad, x=np.zeros(3))
    with pytest.raises(ValueError, match="not a checkpoint"):
        charlm.load(bad, split, [rnn])
    np.savez(bad, x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a checkpoint"):
        charlm.load(bad, split, [rnn])
    ended = bptt("train", river, "--resume", bad)
    assert ended.returncode == 2
    assert "bad.npz" in ended.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--steps", "0"], "--steps: expected at least 1, got 0"),
        (["--hidden", "-1"], "--hidden: expected at least 1, got -1"),
        (["--learning-rate", "0"], "--learning-rate: expected more than 0"),
        (["--verify-every", "-1"], "--verify-every"),
        (["--resume", "nowhere.npz"], "nowhere.npz: No such file or directory"),
        (["--checkpoint", "no/where.npz", "--steps", "1"], "cannot write no/where.npz"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(river, tmp_path, option, message):
    ended = bptt("train", river, *option, cwd=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr.replace("\n", " ")


def test_a_loss_that_is_no_number_ends_the_run(river):
    options = ["--activation", "relu", "--learning-rate", "1e30", "--steps", 100]
    ended = bptt("train", river, *SMALL, *options)
    assert ended.returncode == 2
    assert "try a smaller --learning-rate" in ended.stderr.replace("\n", " ")


def test_counting_models_on_a_text_whose_counts_are_known():
    split = text.Split("ab", np.array([0, 1, 0, 1, 0, 1]), np.array([0, 1]))
    assert text.unigram_bits(split) == pytest.approx(1)
    # a is followed by b three times of three: (3 + 1/2) / (3 + 1)
    assert text.bigram_bits(split) == pytest.approx(-np.log2(3.5 / 4))


def test_the_sample_is_drawn_from_the_model():
    split, _ = small()
    size = len(split.characters)
    sure = network.Params(
        (rnn.Params(np.zeros((2, size), np.float32), np.zeros((2, 2), np.float32)),),
        readout.Params(
            np.zeros((size, 2), np.float32),
            np.where(np.arange(size) == 3, 100, 0).astype(np.float32),
        ),
    )
    rng = np.random.default_rng(0)
    assert charlm.sample(network.Network(rnn), sure, 0, 5, rng) == [3] * 5


def test_a_reader_that_leaves_early_takes_no_file_along(river, tmp_path):
    files = ["--checkpoint", "c.npz", "--json", "j.json"]
    running = subprocess.Popen(
        [*BPTT, "train", river, *map(str, SMALL), "--steps", "20", *files],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.stdout.readline()
    running.stdout.close()
    assert running.wait(timeout=60) == 74, running.stderr.read()
    running.stderr.close()
    assert {p.name for p in tmp_path.iterdir()} >= {"c.npz", "j.json"}
