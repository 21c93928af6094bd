"""Makes the run whose errors stand beside the equations: `python docs/_ext/measure.py`.

It is a run of `bptt verify` with the pairs that have a derivation and no others. What the pages say
of it is kept in docs/measured.json; another run is taken with `BPTT_RUN=run.json`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from bptt_verify.cli.console import console, write_json
from bptt_verify.pairs import ARTICLE, CELLS, REGISTRY
from bptt_verify.render import show
from bptt_verify.report import plain
from bptt_verify.workers import verify_side_by_side

CASES = 200
"""Of each pair in each dtype, as `bptt verify` has by itself."""

KEPT = {"report": ("pair", "dtype", "seed", "cases"), "row": ("name", "error", "cases", "verdict")}


def main(path: Path) -> int:
    """Write what the pages say of the run; 1 if anything does not pass."""
    pairs = [replace(REGISTRY[name], origin=name) for name in (*ARTICLE, *CELLS)]
    cores = os.cpu_count() or 1
    reports = verify_side_by_side(pairs, ["float32", "float64"], CASES, 0, cores)
    data = plain("verify", reports)
    data["reports"] = [
        {
            **{key: report[key] for key in KEPT["report"]},
            "rows": [
                {**{key: row[key] for key in KEPT["row"]}, "equation": row["equation"]}
                for row in report["rows"]
                if row["equation"]
            ],
        }
        for report in data["reports"]
    ]
    write_json(path, data)
    show(reports, console)
    return 0 if data["verdict"] == "pass" else 1


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1] / "measured.json"))
