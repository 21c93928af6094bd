"""A long sequence in bounded memory: time and memory of each schedule, and how often pieces run.

    python benchmarks/long.py [--steps 1000000] [--cell rnn] [--engine numpy] [--json FILE]

Float32, batch 1, input and state of 64, pieces of 128 steps; the loss is a sum over all states.
Each schedule runs in a process of its own, on one core. Memory is the highest of the process less
what it was before, with the input in place and everything run once on two pieces. All gradients are
compared to the last bit; above 10^5 steps not with those of a run that keeps everything, which is
left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from manual_bptt import checkpointed, lstm, rnn, schedules

SIZE, PIECE, STATES = 64, 128, 20
SCHEDULES = {
    "everything": schedules.everything,
    "uniform": schedules.uniform,
    f"binomial({STATES})": schedules.binomial(STATES),
}
MOST_FOR_EVERYTHING = 100_000


def expected(name: str, n: int) -> float:
    """How often a piece runs in the mean, by the formulas of `manual_bptt.schedules`."""
    if name == "everything":
        return 1.0
    if name == "uniform":
        k = int(np.ceil(np.sqrt(n)))
        return 1 + (-(-n // k) - 1) * k / n
    return 1 + schedules.runs(n, STATES) / n


def contestant(name: str, steps: int, which: str, engine: str) -> dict[str, Any]:
    cell: Any = {"rnn": rnn, "lstm": lstm}[which]
    rng = np.random.default_rng(0)
    params = cell.init(rng, SIZE, SIZE, dtype=np.float32)
    share = rng.standard_normal(SIZE).astype(np.float32) / np.float32(steps)
    x = rng.standard_normal((steps, 1, SIZE), dtype=np.float32)
    ran = 0

    def forward(*arguments: Any, **options: Any) -> Any:
        nonlocal ran
        ran += 1
        return cell.forward(*arguments, **options, engine=engine)

    def loss(_: int, states: Any) -> tuple[float, Any]:
        h = states if cell is rnn else states.h
        d = np.broadcast_to(share, h.shape)
        return float((h * d).sum()), d if cell is rnn else cell.States(d, None)

    counted: Any = SimpleNamespace(**{**vars(cell), "forward": forward})

    def run(x: Any) -> checkpointed.Result:
        return checkpointed.loss_and_grads(
            counted, params, x, loss, piece=PIECE, schedule=SCHEDULES[name]
        )

    run(x[: 2 * PIECE])
    before, ran = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    start = time.perf_counter()
    found = run(x)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    arrays = [a for a in (*found.params, *found.start) if a is not None]
    return {
        "schedule": name,
        "seconds": seconds,
        "MiB": (after - before) / 1024,
        "runs of a piece": ran / -(-steps // PIECE),
        "loss": found.loss,
        "gradients": hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--cell", choices=("rnn", "lstm"), default="rnn")
    parser.add_argument("--engine", choices=("numpy", "numba"), default="numpy")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contestant", choices=SCHEDULES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        found = contestant(given.contestant, given.steps, given.cell, given.engine)
        print(json.dumps(found))
        return
    n, results = -(-given.steps // PIECE), []
    print(f"{given.cell}, {given.engine}: {given.steps} steps in {n} pieces")
    for name in SCHEDULES:
        if name == "everything" and given.steps > MOST_FOR_EVERYTHING:
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--contestant", name]
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        ended = subprocess.run(
            command, env={**os.environ, **alone}, stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(ended.stdout)
        results.append(found)
        same = found["gradients"] == results[0]["gradients"]
        print(
            f"{name:14}{found['seconds']:9.2f} s {found['MiB']:8.1f} MiB;"
            f" a piece runs {found['runs of a piece']:.3f} times, by the formula"
            f" {expected(name, n):.3f}; gradients {'the same' if same else 'DIFFERENT'}"
        )
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    if len({found["gradients"] for found in results}) > 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
