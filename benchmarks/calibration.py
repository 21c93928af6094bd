"""How far correct backward passes stray, in σ: the distribution that the multiplier follows from.

    python benchmarks/calibration.py run --pair rnn --dtype float32 --cases 100000 --out part.json
    python benchmarks/calibration.py read part*.json
    python benchmarks/calibration.py keep part*.json > src/bptt_verify/page/calibration.json

Every case is drawn as `bptt verify` draws it and judged with the same σ. Of each case the largest
|error|/σ over all entries of all quantities is kept (not of those beside a kink, which raise no
alarm), and in one case of eight, for one random entry of each quantity, the width of its band, from
which the sensitivity follows. float32 and float64 are calibrated on the hand-written NumPy layers,
float16 and bfloat16 on the same formulas in PyTorch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bptt_verify.adapters import from_torch, to_torch
from bptt_verify.draw import Case, several
from bptt_verify.judge import Judge
from bptt_verify.oracle import Answer
from bptt_verify.pair import Pair
from bptt_verify.pairs import REGISTRY, rnn_pair
from bptt_verify.report import BINS, bin_of, versions
from bptt_verify.tolerance import multiplier
from manual_bptt._files import replacing

BIN = 0.05
"""Width of a bin of the histogram of log10(|error|/σ)."""
LOWEST = -4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.add_argument("--pair", choices=REGISTRY, default="rnn")
    run.add_argument("--dtype", default="float32")
    run.add_argument("--cases", type=int, default=100_000)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--out", type=Path, required=True)
    run.set_defaults(do=campaign)
    reading = commands.add_parser("read")
    reading.add_argument("parts", type=Path, nargs="+")
    reading.set_defaults(do=read)
    keeping = commands.add_parser("keep")
    keeping.add_argument("parts", type=Path, nargs="+")
    keeping.set_defaults(do=keep)
    arguments = parser.parse_args()
    arguments.do(arguments)


# --- the campaign


def campaign(arguments: argparse.Namespace) -> None:
    dtype = np.dtype(arguments.dtype)
    pair = REGISTRY[arguments.pair]
    if dtype.itemsize == 2:
        pair = in_torch()
    judge = Judge(pair, dtype)
    m = multiplier(dtype)
    worst: list[float] = []
    bands: dict[str, list[float]] = {name: [] for name in pair.quantities()}
    alarms: list[str] = []
    strays: list[tuple[float, str, str]] = []
    given_up = beside = 0
    rng = np.random.default_rng(arguments.seed)
    start = time.perf_counter()

    def look(cases: list[Case]) -> None:
        nonlocal given_up, beside
        for chosen, ceiling in judge.batches.together(cases):
            drawn = [judge.drawn(case) for case in chosen]
            answers = judge.oracle.answers(chosen, drawn, dtype, ceiling)
            ran = [
                judge.run(pair, *both, dtype, again=False)
                for both in zip(chosen, drawn, strict=True)
            ]
            sizes = [case.sizes for case in chosen]
            judged = judge.side_by_side(answers, ran, sizes, ceiling)
            for j, (case, found) in enumerate(zip(chosen, judged, strict=True)):
                if found is None:  # more than m σ, or beside a kink, or padded badly
                    found = judge.one(case)
                if found is None:
                    given_up += 1
                    continue
                if not all(c.ok for c in found.values()):
                    alarms.append(str(case))
                elif answers.undecided[j]:  # beside a kink: had it disagreed it would be given up
                    beside += 1
                    continue
                error, row = max((c.error, row) for row, c in found.items())
                worst.append(m * error)
                strays.append((m * error, row, str(case)))
                if len(worst) % 8 == 0:
                    look_at_bands(answers.of(j, judge.oracle.shapes, sizes[j]))
        strays.sort(reverse=True)
        del strays[20:]
        done = len(worst) + given_up + beside
        print(f"{done} cases, {time.perf_counter() - start:.0f} s", flush=True)

    def look_at_bands(answer: Answer) -> None:
        for name, expected in answer.quantities.items():
            at = rng.integers(expected.value.size)
            value = abs(expected.value.flat[at])
            if value > np.finfo(np.float64).tiny:
                bands[name].append(float(expected.sigma.flat[at] / value))

    for i, cases in enumerate(rounds(pair, arguments.cases, arguments.seed)):
        look(cases)
        if i % 4 == 0 or len(worst) + given_up + beside >= arguments.cases:
            save(arguments, worst, bands, alarms, strays, given_up, time.perf_counter() - start)


def rounds(pair: Pair, cases: int, seed: int) -> Iterator[list[Case]]:
    """The cases in portions."""
    drawn = several(pair, cases, seed)
    while portion := list(islice(drawn, 8192)):
        yield portion


def save(
    arguments: argparse.Namespace,
    worst: list[float],
    bands: dict[str, list[float]],
    alarms: list[str],
    strays: list[tuple[float, str, str]],
    given_up: int,
    seconds: float,
) -> None:
    edges = np.arange(LOWEST, 4 + BIN, BIN)
    logs = np.log10(np.maximum(worst, 10**LOWEST))
    m = multiplier(np.dtype(arguments.dtype))
    data = {
        "pair": arguments.pair,
        "dtype": arguments.dtype,
        "seed": arguments.seed,
        "cases": len(worst),
        "given_up": given_up,
        "alarms": alarms,
        "seconds": seconds,
        "histogram": np.histogram(np.minimum(logs, 3.99), edges)[0].tolist(),
        "spread": np.bincount([bin_of(x / m) for x in worst], minlength=BINS + 1).tolist(),
        "strays": strays,
        "highest": sorted(worst, reverse=True)[:1000],
        "bands": {
            k: np.quantile(v, np.linspace(0, 1, 1001)).tolist() for k, v in bands.items() if v
        },
        "versions": versions(),
    }
    with replacing(arguments.out) as temporary:
        temporary.write_text(json.dumps(data))


# --- what it says


def read(arguments: argparse.Namespace) -> None:
    parts = [json.loads(path.read_text()) for path in arguments.parts]
    kinds = dict.fromkeys((part["pair"], part["dtype"]) for part in parts)
    print("| pair | dtype | cases | median | 99.9 % | highest | m for 1e-6 | alarms |")
    print("|---|---|---|---|---|---|---|---|")
    total = alarms = 0
    needed: list[float] = []
    for pair, dtype in kinds:
        of = [p for p in parts if (p["pair"], p["dtype"]) == (pair, dtype)]
        cases = sum(p["cases"] for p in of)
        found = sum(len(p["alarms"]) for p in of)
        high = sorted((x for p in of for x in p["highest"]), reverse=True)
        histogram = np.sum([p["histogram"] for p in of], axis=0)
        estimate, error = extrapolated(high, cases, 1e-6)
        needed.append(estimate + error)
        print(
            f"| {pair} | {dtype} | {cases} | {quantile(histogram, 0.5):.2f} "
            f"| {quantile(histogram, 0.999):.2f} | {high[0]:.2f} "
            f"| {estimate:.1f} ± {error:.1f} | {found} |"
        )
        total, alarms = total + cases, alarms + found
    print(f"\n{total} cases, {alarms} false alarms, {sum(p['given_up'] for p in parts)} given up")
    print(f"so m is {math.floor(max(needed)) + 1}")
    print("\n| dtype | an entry of one case (median) | 99 % of entries, one case | 200 cases |")
    print("|---|---|---|---|")
    for dtype in dict.fromkeys(p["dtype"] for p in parts):
        bands = [b for p in parts if p["dtype"] == dtype for b in p["bands"].values()]
        m = multiplier(np.dtype(dtype))
        # in n cases at least one catches it with probability 0.99 if each does with 1 - 0.01^(1/n)
        once = 1 - 0.01 ** (1 / 200)
        rows = [m * max(b[round(q * 1000)] for b in bands) for q in (0.5, 0.99, once)]
        print(f"| {dtype} | " + " | ".join(f"{x:.1e}" for x in rows) + " |")


def keep(arguments: argparse.Namespace) -> None:
    """The distribution in each dtype, for the page of a report: see `Report.spread`."""
    kept: dict[str, dict[str, Any]] = {}
    for part in (json.loads(path.read_text()) for path in arguments.parts):
        old = kept.setdefault(part["dtype"], {"pair": part["pair"], "spread": [0] * (BINS + 1)})
        old["spread"] = [a + b for a, b in zip(old["spread"], part["spread"], strict=True)]
    lines = (f'  "{dtype}": {json.dumps(found)}' for dtype, found in kept.items())
    print("{\n" + ",\n".join(lines) + "\n}")


def quantile(histogram: np.ndarray[Any, Any], q: float) -> float:
    """Of |error|/σ, to the width of a bin."""
    at = int(np.searchsorted(np.cumsum(histogram), q * histogram.sum()))
    return float(10 ** (LOWEST + BIN * (at + 1)))


def extrapolated(high: list[float], cases: int, probability: float) -> tuple[float, float]:
    """Where the tail, a power law fitted to the highest, has the probability; its standard error.

    The fit is Hill's estimator on the k highest, whose exponent is off by one part in √k.
    """
    k = min(len(high) - 1, max(20, cases // 2000))
    if high[k] == 0:
        return 0.0, 0.0
    index = float(np.mean(np.log(np.array(high[:k]) / high[k])))
    steps = math.log(k / cases / probability)
    found = high[k] * math.exp(index * steps)
    return found, found * math.expm1(index * steps / math.sqrt(k))


# --- the recurrent layer by hand in PyTorch, which has the 16-bit dtypes


def in_torch() -> Pair:
    import torch

    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
    df = {
        "tanh": lambda s: 1 - s * s,
        "sigmoid": lambda s: s * (1 - s),
        "relu": lambda s: (s > 0).to(s.dtype),
    }

    def forward(i: Any, activation: str) -> Any:
        x, s, U, W, b = (to_torch(i[k]) for k in ("x", "s0", "U", "W", "b"))
        a, states = [], []
        for x_t in x:
            a.append(x_t @ U.T + s @ W.T + b)
            s = f[activation](a[-1])
            states.append(s)
        all_states = torch.stack(states)
        out = {"a": torch.stack(a), "s": all_states, "last": s}
        cache = x, to_torch(i["s0"]), U, W, all_states, df[activation]
        return {k: from_torch(v).copy() for k, v in out.items()}, cache

    def backward(cache: Any, d: Any) -> Any:
        x, s0, U, W, states, slope = cache
        ds, carried = to_torch(d["s"]), to_torch(d["last"])
        delta = torch.empty_like(states)
        for t in reversed(range(len(x))):
            delta[t] = (ds[t] + carried) * slope(states[t])
            carried = delta[t] @ W
        flat = delta.reshape(-1, delta.shape[-1])
        before = torch.cat([s0[None], states[:-1]]).reshape(flat.shape)
        g = {
            "U": flat.T @ x.reshape(len(flat), -1),
            "W": flat.T @ before,
            "b": flat.sum(0),
            "x": delta @ U,
            "s0": carried,
            "delta": delta,
            "delta_T": delta[-1],
        }
        return {k: from_torch(v) for k, v in g.items()}

    pair = rnn_pair()
    return replace(pair, name="rnn", forward=forward, backward=backward)


if __name__ == "__main__":
    main()
