"""Verifications in several processes: shares of the cases of one pair, or several pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from typing import Any

from bptt_verify.children import deaf, pool
from bptt_verify.load import load
from bptt_verify.pair import Pair
from bptt_verify.pairs import BY_NAME
from bptt_verify.properties import PROPERTIES
from bptt_verify.report import Report, Row, overall
from bptt_verify.tally import MOST_GIVEN_UP
from bptt_verify.verify import verify, verify_each

STREAM = 2**32
"""The seeds of two shares differ by this: no share draws what another one draws."""


def verify_in_processes(
    pair: Pair,
    cases: int,
    seed: int,
    dtype: str,
    workers: int,
    *,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Report:
    """`verify`, its cases divided among so many processes; a failure is looked at in this one.

    Args:
        pair: one that can be loaded again: built in, or from a file.
        cases: how many in all.
        seed: the same seed and number of workers draw the same cases.
        dtype: the dtype under test.
        workers: how many processes.
        progress: called with the number of cases done so far.
        options: of `verify`.

    Raises as `verify` does.
    """
    shares = [cases // workers + (i < cases % workers) for i in range(workers)]
    shares = [share for share in shares if share]
    seeds = [seed + i * STREAM for i in range(len(shares))]
    found: dict[int, Report] = {}
    with pool(len(shares)) as team:
        with deaf():
            futures = {
                team.submit(_share, str(pair.origin), share, s, dtype, options): i
                for i, (share, s) in enumerate(zip(shares, seeds, strict=True))
            }
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            if progress:
                progress(sum(report.cases + report.redrawn for report in found.values()))
    reports = [found[i] for i in range(len(shares))]
    report = merged(reports, seed)
    failed = next((i for i, one in enumerate(reports) if one.first_failure), None)
    if failed is not None and options.get("explain", True):
        # once more in this process; the failure stands, also if it does not come again
        again = verify(pair, shares[failed], seeds[failed], dtype, **options)
        report = replace(report, first_failure=again.first_failure or report.first_failure)
    return report


def verify_side_by_side(
    pairs: Sequence[Pair],
    dtypes: Sequence[str],
    cases: int,
    seed: int,
    processes: int,
    *,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> list[Report]:
    """`verify` of every pair in every dtype, several at once: the same reports in the same order.

    Args:
        pairs: some that can be loaded again: built in, or from a file.
        dtypes: the dtypes under test.
        cases: how many for each pair and dtype.
        seed: as for `verify`.
        processes: how many at once.
        progress: called with the number of reports there are so far.
        options: of `verify`.

    Raises as `verify` does.
    """
    with pool(processes) as team:
        with deaf():
            # from the last one: what is made of cells takes longest
            futures = [
                team.submit(_whole, str(pair.origin), cases, seed, dtypes, options)
                for pair in reversed(pairs)
            ]
        for done, _ in enumerate(as_completed(futures), 1):
            if progress:
                progress(done * len(dtypes))
    return [report for future in reversed(futures) for report in future.result()]


def _share(origin: str, cases: int, seed: int, dtype: str, options: dict[str, Any]) -> Report:
    """What one process does of one pair."""
    (report,) = _whole(origin, cases, seed, [dtype], {**options, "explain": False})
    return report


def _whole(
    origin: str, cases: int, seed: int, dtypes: Sequence[str], options: dict[str, Any]
) -> list[Report]:
    """One pair in these dtypes."""
    if origin in BY_NAME:
        pair = replace(BY_NAME[origin], origin=origin)
    else:
        (pair,) = load(origin)
    return verify_each(pair, dtypes, cases, seed, **options)


def merged(reports: Sequence[Report], seed: int) -> Report:
    """One report of several on the same pair and dtype: the worst of each row."""
    first = reports[0]
    judged = sum(report.cases for report in reports)
    redrawn = sum(report.redrawn for report in reports)
    too_many = redrawn > MOST_GIVEN_UP * (judged + redrawn)
    rows: dict[str, Row] = {}
    for report in reports:
        for row in report.rows:
            old = rows.get(row.name, replace(row, cases=0))
            verdict = overall([old.verdict, row.verdict])
            # what one share could not tell, another could; but a property that the twin lacks in
            # one case is in doubt in all
            sharper = row.name not in PROPERTIES and not too_many
            if sharper and verdict == "inconclusive" and "pass" in (old.verdict, row.verdict):
                verdict = "pass"
            worst = row if row.error > old.error else old
            rows[row.name] = replace(
                worst,
                cases=old.cases + row.cases,
                verdict=verdict,
                note="" if verdict == "pass" else worst.note or old.note or row.note,
            )
    failing = next((report for report in reports if report.first_failure), first)
    return replace(
        first,
        seed=seed,
        cases=judged,
        redrawn=redrawn,
        seconds=max(report.seconds for report in reports),
        rows=tuple(rows.values()),
        silent=tuple(name for name in first.silent if name not in rows),
        failed_at=failing.failed_at,
        first_failure=failing.first_failure,
        spread=tuple(map(sum, zip(*(report.spread for report in reports), strict=True))),
    )
