"""How many cases a second: `bptt verify` beside gradcheck and check_grads, on the same cases.

    python benchmarks/verify.py [--rounds 3] [--json FILE]

The recurrent layer in float64, shapes up to 8, every case with a random shape of its own. Each
contestant runs in a fresh process on one core, rounds are interleaved, medians are quoted. Cold is
from the start of the process, imports included; steady is a run of 32768 cases less one of 8192,
which leaves out what a run costs once. The peers answer another question, with a guessed tolerance:
their time is what is compared, not their power. gradcheck needs PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

COLD, SHORT, LONG = 2000, 8192, 32768
OURS = "bptt verify"
STEADILY, COLDLY = "ms a case, steady", f"s from a cold start to {COLD} cases"
PEER_CASES = {"gradcheck": 60, "gradcheck, fast mode": 200, "check_grads": 8}


def ours() -> dict[str, float]:
    from bptt_verify import verify
    from bptt_verify.pairs import REGISTRY

    ends = []
    for seed, cases in enumerate((COLD, SHORT, LONG)):
        assert verify(REGISTRY["rnn"], cases, seed, "float64").ok
        ends.append(time.time())
    cold, short, long = ends
    # what a run costs once cancels
    steady = ((long - short) - (short - cold)) / (LONG - SHORT)
    return {STEADILY: 1e3 * steady, "ended": cold}


def peer(name: str) -> dict[str, float]:
    import numpy as np

    from bptt_verify import peers
    from bptt_verify.draw import realise, several
    from bptt_verify.pairs import REGISTRY

    warnings.simplefilter("ignore")
    pair, dtype = REGISTRY["rnn"], np.dtype("float64")
    cases = several(pair, PEER_CASES[name] + 1, 0)
    start = 0.0
    for i, case in enumerate(cases):
        if i == 1:  # the first one warms up
            start = time.perf_counter()
        drawn = realise(pair, case, dtype)
        try:
            if name == "check_grads":
                peers.check_grads_case(pair, case, drawn, "float64")
            else:
                peers.gradcheck_case(pair, case, drawn, "fast" in name)
        except Exception:  # it objects: its verdict on such scales is not in question here
            pass
    return {STEADILY: 1e3 * (time.perf_counter() - start) / PEER_CASES[name]}


def measure(name: str) -> dict[str, float]:
    """One contestant in a fresh process on one core."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    start = time.time()
    ended = subprocess.run(
        [sys.executable, __file__, "--contestant", name],
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    if "ended" in found:
        found[COLDLY] = found.pop("ended") - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contestant")
    arguments = parser.parse_args()
    if arguments.contestant:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        name = arguments.contestant
        print(json.dumps(ours() if name == OURS else peer(name)))
        return
    names = [OURS, *PEER_CASES]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            rounds[name].append(measure(name))
    table = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for name, found in rounds.items()
    }
    base = table[OURS][STEADILY]
    for name, row in table.items():
        ms = row[STEADILY]
        cold = f"; {row[COLDLY]:.1f} {COLDLY}" if COLDLY in row else ""
        print(f"{name:22} {ms:9.2f} ms a case = {1e3 / ms:7.1f} a second; x {ms / base:.1f}{cold}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rounds": rounds, "median": table}, indent=2))


if __name__ == "__main__":
    main()
