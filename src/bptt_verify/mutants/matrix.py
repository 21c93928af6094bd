"""The kill matrix: every mutant against the verifier and against its peers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax

from bptt_verify.mutants.mutant import Kill, Mutant, kill
from bptt_verify.pair import Pair
from bptt_verify.peers import PEERS, Outcome

CASES = 50
"""Random cases that the verifier may spend on a mutant, for each dtype."""

SEEDS = 20


class Start(NamedTuple):
    """A pair without any mutant: what each checker says when nothing is wrong."""

    pair: str
    alarm: Kill | None
    """A false alarm of the verifier."""
    seeds: dict[str, int | None]
    """For each peer the seed of its problem; None when it accepted none of so many."""
    false_alarms: dict[str, int]
    """For each peer, how many problems it had to be given before it accepted one."""


class Line(NamedTuple):
    """One mutant: what killed it, if anything did."""

    mutant: Mutant
    kill: Kill | None
    peers: dict[str, Outcome]


def start(pair: Pair, seed: int) -> Start:
    """Run everybody on the right pair.

    A peer whose tolerance fails honest code would be credited with every mutant. Its users would
    take another seed until their test passes, and so does this.
    """
    seeds: dict[str, int | None] = {}
    alarms: dict[str, int] = {}
    for peer in PEERS:
        tried = (seed + 1000 * k for k in range(SEEDS))
        refused = list[int]()
        seeds[peer.name] = None
        for candidate in tried:
            if peer.judge(pair, candidate) != "killed":
                seeds[peer.name] = candidate
                break
            refused.append(candidate)
        alarms[peer.name] = len(refused)
    return Start(pair.name, kill(pair, CASES, seed), seeds, alarms)


def lines(mutants: Iterable[Mutant], starts: dict[str, Start], seed: int) -> Iterator[Line]:
    """Run everybody on each mutant, on a fresh copy of it each."""
    for count, mutant in enumerate(mutants, 1):
        seeds = starts[mutant.reference().name].seeds
        outcomes: dict[str, Outcome] = {}
        for peer in PEERS:
            given = seeds[peer.name]
            outcomes[peer.name] = (
                "does not apply" if given is None else peer.judge(mutant.pair(), given)
            )
        yield Line(mutant, kill(mutant.pair(), CASES, seed), outcomes)
        if count % 20 == 0:
            # each mutant leaves compiled programs of its own behind
            jax.clear_caches()  # type: ignore[no-untyped-call]
