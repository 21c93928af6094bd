"""The catalogue of mutants, and the kill matrix."""

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
from rich.console import Console

from bptt_verify import cli
from bptt_verify.mutants import CATALOGUE, kill, planted
from bptt_verify.peers import PEERS
from manual_bptt import rnn
from planting import caught_in

SOURCE = re.compile(
    r"[\w.-]+/[\w.-]+#\d+|textbook|victorzhou, rnn-from-scratch|a widely copied RNN gradient check"
)


@pytest.fixture
def bptt(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr("bptt_verify.mutants.matrix.CASES", 10)
    monkeypatch.setattr("bptt_verify.cli.mutants.console", Console(width=250))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["mutants", *arguments])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def caught(mutant):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wrong code may overflow
        # stops at the first disagreement, does not shrink; else ask as the command does
        return caught_in(mutant.pair(), "float64", 50) or kill(mutant.pair())


# each of the compiled layers takes some seconds to compile: here one of each layer, nightly all
COMPILED = {m.layer: m.name for m in CATALOGUE.values() if "compiled" in m.layer.__name__}
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
CHOSEN = [
    name
    for name, m in CATALOGUE.items()
    if NIGHTLY or m.layer not in COMPILED or name == COMPILED[m.layer]
]


@pytest.mark.parametrize("name", CHOSEN)
def test_every_mutant_is_caught_within_fifty_cases(name):
    assert caught(CATALOGUE[name])


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_change_applies_and_names_its_source(name):
    assert SOURCE.fullmatch(CATALOGUE[name].source)
    CATALOGUE[name].pair()  # raises where a piece of text does not stand exactly once


def test_the_catalogue_is_large_and_nothing_in_it_is_said_twice():
    assert len(CATALOGUE) >= 60
    changes = [(m.layer.__name__, *m.changes.items()) for m in CATALOGUE.values()]
    assert len(set(changes)) == len(changes)


@pytest.mark.parametrize("piece", ["carried", "not there"])
def test_a_piece_of_text_has_to_stand_there_once(piece):
    with pytest.raises(ValueError, match=f"manual_bptt.rnn: expected '{piece}' once, got"):
        planted(rnn, {piece: ""})


def test_the_reference_stays_clean_and_mutants_share_its_twin():
    a, b = (CATALOGUE[n].pair() for n in ("db-zero", "db-twice"))
    assert a.twin is b.twin is CATALOGUE["db-zero"].reference().twin
    assert kill(CATALOGUE["db-zero"].reference(), cases=3) is None


def test_what_verify_finds_is_the_row_the_dtype_and_the_case():
    found = kill(CATALOGUE["db-in-float64"].pair(), cases=3)
    assert found[:2] == ("db", "float32")
    assert found.case is None or 1 <= found.case <= 3


def test_one_mutant_is_a_line_and_exit_0(bptt, tmp_path):
    code, out, err = bptt("--only", "ds0-slot", "--json", "matrix.json")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if "ds0-slot" in line]
    assert "FluxML/Flux.jl#2185" in line
    assert "no mutant (rnn)" in out
    assert line.count(" x ") == 6
    assert "a gradcheck, b gradcheck fast," in out
    data = json.loads((tmp_path / "matrix.json").read_text(encoding="utf-8"))
    assert data["complete"]
    (mutant,) = data["mutants"]
    assert mutant["verify"]["row"] == "ds0"
    assert mutant["peers"]["gradcheck"] == "killed"
    assert mutant["peers"]["flashrnn"] == mutant["peers"]["haste"] == "survived"  # no ds0 there


def test_no_change_at_all_survives_everybody_and_exits_1(bptt, monkeypatch):
    nothing = replace(
        CATALOGUE["ds0-slot"], name="nothing", changes={"ds0 = carried": "ds0 = carried"}
    )
    monkeypatch.setitem(CATALOGUE, "nothing", nothing)
    quick = [peer for peer in PEERS if "check" not in peer.name]
    monkeypatch.setattr("bptt_verify.cli.mutants.PEERS", quick)
    monkeypatch.setattr("bptt_verify.mutants.matrix.PEERS", quick)
    code, out, _ = bptt("--only", "nothing")
    assert code == 1
    line = next(line for line in out.splitlines() if "nothing" in line)
    assert "FluxML/Flux.jl#2185" in line
    assert " x " not in line
    assert "SURVIVED bptt verify: nothing" in out


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    pair = CATALOGUE["db-zero"].reference()
    outcomes = {peer.name: peer.judge(pair, 0) for peer in PEERS if peer.needs}
    assert set(outcomes.values()) == {"not installed"}


def test_an_unknown_name_is_one_line_and_exit_2(bptt):
    code, _, err = bptt("--only", "ds0-slots")
    assert code == 2
    assert "--only: expected a mutant such as ds0-slot" in err


def test_what_a_mutant_raises_inside_another_checker_is_not_shown():
    ended = subprocess.run(
        ["bptt", "mutants", "--only", "dlast-in-place"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
