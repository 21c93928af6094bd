import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from bptt_verify import page
from bptt_verify.bench import contestants
from bptt_verify.bench.check import WrongGradientError, check, checked
from bptt_verify.bench.contestants import LARGE
from bptt_verify.bench.machine import machine, sentence
from bptt_verify.bench.measure import (
    best,
    disqualified,
    geometric_mean,
    measure,
    noise,
    ratio,
    share_of_peak,
    slope,
    spread,
    standing,
)
from bptt_verify.bench.process import ContestError, Process
from bptt_verify.bench.work import BLOCKS, Work
from bptt_verify.cli import main
from bptt_verify.cli.bench import show

# That the benchmark works; what it measures is for benchmarks, not for tests.

ROOT = Path(__file__).parents[2]
SMALL = (5, 2, 3, 4, 6)
NAMES = ("numpy", "jax in the scan, unroll 1", "torch.nn", "bare products", "a large product")


@pytest.fixture(autouse=True)
def precision_as_before():
    before = jax.config.jax_enable_x64
    yield  # a contestant sets it, in what is its own process elsewhere
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", BLOCKS)
def test_every_contestant_has_the_gradients_of_the_twin(cell, dtype):
    work = Work(cell, SMALL, dtype)
    found = {
        name: {k: np.array(v) for k, v in c.prepare(work)().items()}
        for name, c in contestants.CONTESTANTS.items()
        if c.side not in ("products", "peak", "bandwidth")
        and ("unroll" not in name or dtype == "float32")
    }
    worst, wrong = check(work, found)
    assert max(worst.values()) < 1
    assert not wrong


def test_pytorch_with_one_thread_has_one(monkeypatch):
    asked = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    for name in ("torch.nn", "torch.nn, one thread"):
        contestants.CONTESTANTS[name].prepare(Work("rnn", SMALL, "float32"))
    assert asked == [1]


def test_a_wrong_gradient_is_found_before_anything_is_timed():
    work = Work("gru", SMALL)
    found = contestants.CONTESTANTS["numpy"].prepare(work)()
    wrong = {**found, "W": found["W"] * np.float32(1.001)}
    for ours in ("numpy", "by hand in jax"):
        with pytest.raises(WrongGradientError, match=rf"{ours}, .*gru.*: dW: "):
            check(work, {ours: wrong})


def test_a_wrong_rival_is_said_and_not_timed(monkeypatch):
    torch = contestants.CONTESTANTS["torch.nn"]
    small = Work("rnn", SMALL)
    found = {name: contestants.CONTESTANTS[name].prepare(small)() for name in NAMES[:3]}
    found["torch.nn"]["W"] = 2 * np.array(found["torch.nn"]["W"])
    assert torch.side == "torch.nn"
    worst, wrong = check(
        small, {n: {k: np.array(v) for k, v in f.items()} for n, f in found.items()}
    )
    assert list(wrong) == ["torch.nn"]
    assert wrong["torch.nn"].startswith("dW: expected ")
    assert "torch.nn" not in worst
    assert worst["numpy"] < 1

    monkeypatch.setattr("bptt_verify.bench.measure.check", lambda *_: (worst, wrong))
    measured = measure(small, NAMES[:3], rounds=1, threads=1)
    assert list(measured["seconds"]) == ["numpy", NAMES[1]]
    (line,) = disqualified([measured])
    assert line.startswith("torch.nn is wrong and was not timed at rnn 5 2 3 4 6: dW: expected ")


def test_where_the_band_takes_too_much_memory_fewer_sequences_are_compared():
    assert checked(Work("rnn", SMALL)).sizes == SMALL
    T, B, *_ = checked(Work("lstm", (1000, 64, 64, 128, 64))).sizes
    assert (T, B) == (1000, 1)


def test_a_point_has_every_time_and_says_what_was_compared():
    point = measure(Work("rnn", SMALL), NAMES, rounds=3, threads=1)
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in point["seconds"].values())
    assert set(point["seconds"]) == set(point["prepare"]) == set(NAMES)
    assert set(point["band"]["worst"]) == set(NAMES[:-2])
    assert best(point, "autodiff") == NAMES[1]
    middle, low, high = ratio(point, "numpy", NAMES[1])
    assert low <= middle <= high
    json.dumps(point)


def test_a_contestant_that_fails_is_named(monkeypatch):
    work = Work("rnn", (5, 2, 3, 4, 0))
    with pytest.raises(ContestError, match=r"^numpy: ValueError: "):
        Process("numpy", work, work, 1)


def test_figures_are_what_they_are_called():
    assert geometric_mean([2, 8]) == pytest.approx(4)
    assert spread([1.0, 1.0, 1.0]) == 0
    point = {"seconds": {"a": [1.0, 2.0, 4.0], "b": [2.0, 6.0, 8.0]}}
    assert ratio(point, "a", "b") == (2.0, 2.0, 3.0)
    line = [{"sizes": {"T": n}, "took": 3 * n**2} for n in (1, 2, 4)]
    assert slope(line, "T", lambda point: point["took"]) == pytest.approx(2)
    half = {"operations": LARGE**3, "seconds": {"a large product": [1.0], "numpy": [1.0]}}
    assert share_of_peak(half, "numpy") == 0.5


def point(sizes, seconds):
    """A point of a table in which these are the times of these contestants."""
    return {
        **{"cell": "rnn", "dtype": "float32", "sizes": dict(zip("TBDHC", sizes, strict=True))},
        **{"operations": 1e9, "bytes": 1e6, "when": "2026-11-26T12:00:00Z", "seconds": seconds},
        **{"memory": {name: {"peak": 1234.5, "idle": 3.0} for name in seconds}, "wrong": {}},
    }


STEADY = {"numpy": [1.0, 1.0], "jax hoisted, unroll 1": [2.0, 2.0], "torch.nn": [0.5, 0.5]}


def test_a_rival_is_faster_or_slower_where_the_interval_leaves_out_one():
    unclear = {**STEADY, "torch.nn": [0.9, 1.1]}
    said = standing([point(SMALL, STEADY), point(SMALL, unclear)])
    assert said == (
        "by hand: faster than autodiff at 2 of 2, slower at 0; faster than torch.nn at 0 of 2, "
        "slower at 1 (where the interval leaves out 1)"
    )
    assert standing([point(SMALL, {"numpy": [1.0]})]) == ""


def test_rounds_that_differ_are_said_on_the_page_too():
    assert noise([point(SMALL, STEADY)]) == ""
    noisy = [{**point(SMALL, {**STEADY, "numpy": [1.0, 1.5]}), "wrong": {"torch.nn": "dV: off"}}]
    assert noise(noisy).startswith("1 of 3 medians are of rounds that differ by more than 5%")
    machine = {"cpu": "a CPU", "cores": 2, "threads": 2}
    data = {"command": "bench", "machine": machine, "versions": {"numba": "1.2"}, "points": noisy}
    html = page.render(data)
    assert noise(noisy) in html
    assert standing(noisy).removeprefix("by hand") in html
    assert "torch.nn is wrong and was not timed at rnn 5 2 3 4 6: dV: off" in html
    assert "numba 1.2" in html


def test_a_machine_says_what_it_is_as_far_as_it_does():
    here = sentence(machine(4, 2))
    assert ", 2 of 4 cores" in here
    if sys.platform == "linux":
        assert re.search(r", [\d.]+ GiB$", here)
    known = {"vectors": ["avx2", "fma"], "caches": ["L1 32K", "L2 1M"], "memory": 23.5}
    said = sentence({"cpu": "a CPU", "cores": 4, "threads": 2, **known})
    assert said == "a CPU, 2 of 4 cores, avx2, fma, L1 32K, L2 1M, 24 GiB"
    assert sentence({"cpu": "a CPU", "cores": 4, "threads": 2}) == "a CPU, 2 of 4 cores"


def test_no_interval_is_cut_in_a_narrow_window(monkeypatch, capsys):
    monkeypatch.setattr("bptt_verify.cli.bench.console._width", 80)
    seconds = {name: [0.123, 0.234] for name in (*STEADY, "bare products", "a large product")}
    show({"cpu": "", "cores": 2, "threads": 2}, [point((35, 20, 650, 650, 1000), seconds)])
    out = capsys.readouterr().out
    assert "…" not in out
    assert out.count("(1.00-1.00)") == 3
    assert "memory" in out
    assert max(map(len, out.split("\nby hand")[0].splitlines())) <= 80


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bptt_verify.cli.bench.QUICK", (SMALL,))
    monkeypatch.setattr(
        "bptt_verify.cli.bench.CONTESTANTS",
        {name: contestants.CONTESTANTS[name] for name in NAMES},
    )
    out = tmp_path / "bench.json"
    with pytest.raises(SystemExit) as end:
        main(["bench", "--quick", "--cell", "rnn", "--rounds", "2", "--json", str(out)])
    assert end.value.code == 0
    found = json.loads(out.read_text())
    assert set(found) == {"command", "machine", "points", "versions", "ended"}
    assert "5 2 3 4 6" in capsys.readouterr().out


def test_what_was_measured_before_a_failure_is_kept(tmp_path, monkeypatch, capsys):
    fine = {**point(SMALL, STEADY), "wrong": {"torch.nn": "dV: expected 1, got 2"}}

    def measured(work, *_, **__):
        if work.sizes != SMALL:
            raise ContestError("numpy: ended at its work")
        return fine

    monkeypatch.setattr("bptt_verify.cli.bench.measure", measured)
    monkeypatch.setattr("bptt_verify.cli.bench.QUICK", (SMALL, (9, 2, 3, 4, 6), SMALL))
    out = tmp_path / "bench.json"
    with pytest.raises(SystemExit) as end:
        main(["bench", "--quick", "--cell", "rnn", "--json", str(out)])
    assert end.value.code == 1
    data = json.loads(out.read_text())
    assert data["points"] == [fine]
    said = capsys.readouterr().out
    assert data["ended"] == "ended early, at rnn 9 2 3 4 6: numpy: ended at its work"
    assert data["ended"] in said
    assert data["ended"] in page.render(data)
    assert "torch.nn is wrong and was not timed at rnn 5 2 3 4 6: dV: expected 1, got 2" in said
    assert "5 2 3 4 6" in said


def test_what_was_measured_before_ctrl_c_is_kept(tmp_path, monkeypatch, capsys):
    def measured(work, *_, **__):
        if work.sizes != SMALL:
            raise KeyboardInterrupt
        return point(SMALL, STEADY)

    monkeypatch.setattr("bptt_verify.cli.bench.measure", measured)
    monkeypatch.setattr("bptt_verify.cli.bench.QUICK", (SMALL, (9, 2, 3, 4, 6)))
    out = tmp_path / "bench.json"
    with pytest.raises(SystemExit) as end:
        main(["bench", "--quick", "--cell", "rnn", "--json", str(out)])
    assert end.value.code == 130
    data = json.loads(out.read_text())
    assert [p["sizes"] for p in data["points"]] == [point(SMALL, STEADY)["sizes"]]
    assert data["ended"] == "interrupted, at rnn 9 2 3 4 6"
    assert data["ended"] in capsys.readouterr().out
    gru = {**data, "points": [*data["points"], {**point(SMALL, STEADY), "cell": "gru"}]}
    out.write_text(json.dumps(gru))
    rnn, gru = page_of_results(out).split("## gru")
    assert data["ended"] in gru
    assert data["ended"] not in rnn


def test_the_command_says_how_times_grow(monkeypatch, capsys):
    few = {"T": (SMALL, (9, 2, 3, 4, 6)), "B": ((5, 1, 3, 4, 6), SMALL, (5, 4, 3, 4, 6))}
    monkeypatch.setattr("bptt_verify.cli.bench.GROWTH", few)
    monkeypatch.setattr(
        "bptt_verify.cli.bench.CONTESTANTS",
        {name: contestants.CONTESTANTS[name] for name in ("numpy", "bare products")},
    )
    with pytest.raises(SystemExit) as end:
        main(["bench", "--growth", "--cell", "gru", "--rounds", "1"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "growth: time is some number" in out
    assert "9 2 3 4 6" in out
    rows = [line.strip("│ \n").split("│") for line in out.splitlines() if " B " in line]
    assert [cell.strip() for cell in rows[-1][:4]] == ["gru", "B", "1", "4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cell", "transformer"], "--cell: expected one of rnn, lstm, gru, got transformer"),
        (["--quick", "--growth"], "--quick: expected without --growth, got both"),
        (["--rounds", "0"], "--rounds: expected at least 1, got 0"),
        (["--seed", "-1"], "--seed: expected at least 0, got -1"),
    ],
)
def test_a_wrong_argument_is_named(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", *words])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def page_of_results(*files):
    made = [sys.executable, ROOT / "benchmarks" / "results.py", *files]
    return subprocess.run(made, capture_output=True, encoding="utf-8", check=True).stdout


def test_the_page_of_results_is_made_of_the_runs_that_are_kept():
    said = page_of_results()
    assert said == (ROOT / "docs" / "results.md").read_text("utf-8")
    assert said.count("## ") >= 3
