"""Interleaved rounds, and what is made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bptt_verify.bench.check import check, checked
from bptt_verify.bench.contestants import CONTESTANTS, LARGE, RIVALS
from bptt_verify.bench.process import Process
from bptt_verify.bench.work import Work

DRAWS = 2000
"""Of the bootstrap."""

NOISY = 0.05
"""A spread of the rounds above this is said."""


def measure(
    work: Work,
    names: Sequence[str],
    *,
    rounds: int,
    threads: int,
    seed: int = 0,
    said: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """One point of the grid: every contestant's seconds in each round, as JSON has it.

    Before anything is timed, the gradients of all are held against the twin. A rival outside of its
    band is not timed: "wrong" says so.

    Raises `WrongGradientError` for one of ours, and `ContestError` for a contestant that cannot do
    its work.
    """
    processes: list[Process] = []
    small = checked(work)
    try:
        for name in names:
            said(f"preparing {name}")
            processes.append(Process(name, work, small, threads))
        said("comparing gradients with the twin")
        worst, wrong = check(small, {p.name: p.first for p in processes if p.first})
        timed = [process for process in processes if process.name not in wrong]
        seconds: dict[str, list[float]] = {process.name: [] for process in timed}
        order = np.random.default_rng(seed)
        for k in range(rounds):
            said(f"round {k + 1} of {rounds}")
            for at in order.permutation(len(timed)):
                seconds[timed[at].name].append(timed[at].round())
    finally:
        for process in processes:
            process.close()
    return {
        "cell": work.cell,
        "dtype": work.dtype,
        "sizes": dict(zip("TBDHC", work.sizes, strict=True)),
        "operations": work.operations,
        "bytes": work.bytes,
        "threads": threads,
        "seconds": seconds,
        "prepare": {p.name: p.prepared for p in processes},
        "memory": {p.name: p.memory for p in processes},
        "band": {"sequences": small.sizes[1], "worst": worst},
        "wrong": wrong,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def pieces(names: Sequence[str], rounds: int) -> int:
    """How many pieces of work `measure` names, each as it begins."""
    return len(names) + 1 + rounds


def sizes(point: dict[str, Any]) -> str:
    """T B D H C in one word for each."""
    return " ".join(map(str, point["sizes"].values()))


def best(point: dict[str, Any], side: str) -> str | None:
    """The contestant of that side with the lowest median; None for none."""
    names = [n for n in point["seconds"] if CONTESTANTS[n].side == side]
    return min(names, key=lambda n: float(np.median(point["seconds"][n])), default=None)


def ratio(point: dict[str, Any], ours: str, theirs: str) -> tuple[float, float, float]:
    """How many times as long theirs takes: the median over rounds, and its 95 % interval.

    The interval is that of the bootstrap over rounds, in which both ran one after the other.
    """
    a, b = (np.array(point["seconds"][name]) for name in (ours, theirs))
    ratios = b / a
    drawn = np.random.default_rng(0).integers(0, len(ratios), (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def share_of_peak(point: dict[str, Any], name: str) -> float | None:
    """Operations a second, in those of a large matrix product in the same rounds."""
    large = best(point, "peak")
    if large is None:
        return None
    longer, _, _ = ratio(point, large, name)
    return float(point["operations"] / (2 * LARGE**3) / longer)


def slope(points: Sequence[dict[str, Any]], letter: str, of: Callable[[Any], float]) -> float:
    """The exponent with which `of` a point grows in a size: the slope on logarithmic axes."""
    sizes = [point["sizes"][letter] for point in points]
    return float(np.polyfit(np.log(sizes), np.log([of(point) for point in points]), 1)[0])


def means(points: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How many times as long the rivals take, over these points: of ours, and of each drop-in."""
    drop_ins = [name for name, c in CONTESTANTS.items() if c.side == "drop-in"]
    for name in (None, *drop_ins):
        for side in RIVALS:
            pairs = [(p, name or best(p, "ours"), best(p, side)) for p in points]
            found = [
                ratio(p, mine, theirs)[0]
                for p, mine, theirs in pairs
                if mine is not None and mine in p["seconds"] and theirs is not None
            ]
            if found:
                yield (
                    f"{side} / {name or 'ours'}: geometric mean {geometric_mean(found):.2f}, "
                    f"from {min(found):.2f} to {max(found):.2f}"
                )


def standing(points: Sequence[dict[str, Any]]) -> str:
    """At how many points ours is faster than the best of each rival, and at how many it is slower.

    Empty without a rival.
    """
    found = []
    for side in RIVALS:
        pairs = [(p, best(p, "ours"), best(p, side)) for p in points]
        ends = [ratio(p, ours, theirs)[1:] for p, ours, theirs in pairs if ours and theirs]
        if ends:
            faster, slower = sum(low > 1 for low, _ in ends), sum(high < 1 for _, high in ends)
            found.append(f"faster than {side} at {faster} of {len(ends)}, slower at {slower}")
    said = "; ".join(found)
    return said and f"by hand: {said} (where the interval leaves out 1)"


def disqualified(points: Sequence[dict[str, Any]]) -> list[str]:
    """Which rivals were not timed because a gradient was wrong, and where: a sentence for each."""
    return [
        f"{name} is wrong and was not timed at {point['cell']} {sizes(point)}: {why}"
        for point in points
        for name, why in point.get("wrong", {}).items()  # a run of before has it not
    ]


def noise(points: Sequence[dict[str, Any]]) -> str:
    """What is to be said of rounds that differ; empty where there are none."""
    found = spreads(points)
    noisy = sum(each > NOISY for each in found)
    if not noisy:
        return ""
    return (
        f"{noisy} of {len(found)} medians are of rounds that differ by more than {NOISY:.0%}: "
        "something else runs on this machine, or its clock changes; stop what runs, or take more "
        "rounds"
    )


def geometric_mean(values: Iterable[float]) -> float:
    """Of ratios."""
    return float(np.exp(np.mean(np.log(list(values)))))


def spreads(points: Sequence[dict[str, Any]]) -> list[float]:
    """Of the rounds of every contestant at every point."""
    return [spread(seconds) for point in points for seconds in point["seconds"].values()]


def spread(seconds: Sequence[float]) -> float:
    """Half the range of the middle half of the rounds, relative to the median."""
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return float((high - low) / 2 / middle)
