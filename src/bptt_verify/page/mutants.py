"""The page of `bptt mutants`: the kill matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEMPLATE = "mutants.html"

MARKS = {
    "killed": ("✗", "killed"),
    "survived": ("·", "survived"),
    "not installed": ("–", "absent"),
    "does not apply": ("", "absent"),
}


def context(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the template is filled with."""
    mutants = data["mutants"]
    peers = [name for name in data["killed"] if name != "bptt verify"]
    return {
        "complete": data["complete"],
        "cases": data["cases"],
        "seed": data["seed"],
        "peers": peers,
        "counts": [
            {
                "name": name,
                "killed": killed,
                "asked": sum(_asked(m, name) for m in mutants),
                "part": killed / len(mutants) if mutants else 0,
            }
            for name, killed in data["killed"].items()
        ],
        "starts": data["no_mutant"],
        "pairs": {
            pair: [_row(m, peers) for m in mutants if m["pair"] == pair]
            for pair in dict.fromkeys(m["pair"] for m in mutants)
        },
        "survivors": [m["name"] for m in mutants if m["verify"] is None],
        "total": len(mutants),
    }


def _asked(mutant: Mapping[str, Any], name: str) -> bool:
    return name == "bptt verify" or mutant["peers"][name] in ("killed", "survived")


def _row(mutant: Mapping[str, Any], peers: list[str]) -> dict[str, Any]:
    kill = mutant["verify"]
    return {
        "name": mutant["name"],
        "what": mutant["what"],
        "source": mutant["source"],
        "kill": kill and f"{kill['row']}, case {kill['case']}, {kill['dtype']}",
        "marks": [MARKS[mutant["peers"][peer]] for peer in peers],
    }
