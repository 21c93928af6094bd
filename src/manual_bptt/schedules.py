"""Which states to keep on the way forward, so that the way back needs little memory.

A sequence is n pieces. To go back through a piece its states are needed, and whoever did not keep
them has to run it again from a state that was kept. A schedule says in which order: its actions,
taken one after another, go back through every piece once, from the last to the first. At the
beginning the state before piece 0 is kept.

    everything         n pieces kept whole                           no piece runs twice
    uniform            every k-th state, and k pieces, k = ⌈√n⌉      every piece once more
    binomial(s)        at most s states, and one piece               as little as s states allow

Binomial is the schedule of Griewank and Walther ("Revolve", ACM TOMS 26, 2000, algorithm 799): with
s states, pieces that run r times more suffice for

    (1)  β(s, r) = (s + r)! / (s! r!)  pieces

and n pieces, β(s, r - 1) < n ≤ β(s, r), run as often as no other schedule can do better:

    (2)  t(n, s) = r n - β(s + 1, r - 1)  times before they run to go back through them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import comb, isqrt
from typing import NamedTuple

from manual_bptt import _door


class Advance(NamedTuple):
    """Run pieces from the kept state before piece `first`; keep the state before `behind`."""

    first: int
    behind: int


class Reverse(NamedTuple):
    """Run pieces `first` … `behind` - 1 whole and go back through them; forget the state before."""

    first: int
    behind: int


Actions = Iterator[Advance | Reverse]
Schedule = Callable[[int], Actions]
"""Its actions for so many pieces."""


def everything(n: int) -> Actions:
    """Keep all pieces whole: the most memory, no work twice."""
    yield Reverse(0, _door.size("n", n))


def uniform(n: int) -> Actions:
    """Keep every k-th state, k = ⌈√n⌉: some √n states and √n pieces, and each piece runs twice."""
    k = isqrt(_door.size("n", n) - 1) + 1
    borders = range(0, n, k)
    for first, behind in pairwise(borders):
        yield Advance(first, behind)
    for first in reversed(borders):
        yield Reverse(first, min(first + k, n))


def binomial(states: int) -> Schedule:
    """Keep at most so many states, the one before piece 0 among them; run as little as they allow.

    Besides them there is the state of the piece that is gone back through.
    """
    s = _door.size("states", states)
    return lambda n: _binomial(0, _door.size("n", n), s)


def _binomial(first: int, behind: int, s: int) -> Actions:
    n = behind - first
    if n == 1:
        yield Reverse(first, behind)
    elif s == 1:
        for piece in reversed(range(first + 1, behind)):
            yield Advance(first, piece)
            yield Reverse(piece, piece + 1)
        yield Reverse(first, first + 1)
    else:
        # any middle with no more repetitions on either side is as good: the lowest is taken
        r = _repetitions(n, s)
        middle = first + max(1, _beta(s, r - 2), n - _beta(s - 1, r))
        yield Advance(first, middle)
        yield from _binomial(middle, behind, s - 1)
        yield from _binomial(first, middle, s)


def _beta(s: int, r: int) -> int:
    """(1) β(s, r) = (s + r)! / (s! r!), 0 for r < 0."""
    return comb(s + r, s) if r >= 0 else 0


def _repetitions(n: int, s: int) -> int:
    """The r with β(s, r - 1) < n ≤ β(s, r)."""
    r = 0
    while _beta(s, r) < n:
        r += 1
    return r


def runs(n: int, states: int) -> int:
    """(2) How often pieces run, in the binomial schedule, before they run to go back through them.

    Args:
        n: pieces, at least 1.
        states: s, at least 1.

    Raises `TypeError` or `ValueError` for anything else.
    """
    n, s = _door.size("n", n), _door.size("states", states)
    r = _repetitions(n, s)
    return r * n - _beta(s + 1, r - 1)
