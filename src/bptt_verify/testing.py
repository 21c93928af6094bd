"""Verifying inside tests, with pytest or without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import ParamSpec

from bptt_pytest import defaults
from bptt_verify.pair import Pair
from bptt_verify.render import text
from bptt_verify.report import overall
from bptt_verify.verify import verify

P = ParamSpec("P")


def assert_verified(
    pair: Pair,
    *,
    cases: int | None = None,
    seed: int | None = None,
    dtypes: Sequence[str] = ("float64", "float32"),
    case: str | None = None,
) -> None:
    """Assert that a pair passes `verify` in every one of the dtypes.

    Args:
        pair: what to verify.
        cases: random cases for each dtype; by default what pytest was told with `--bptt-cases`,
            else 200.
        seed: the same seed draws the same cases; by default that of `--bptt-seed`, else 0.
        dtypes: the dtypes under test.
        case: one case, as a failure prints it, in place of random ones. It has to be judged and to
            agree; what a single case is too blunt to tell (an inconclusive row) is no failure.

    Raises `AssertionError` with the report that `bptt verify` prints when something fails or
    cannot be told; `TypeError` or `ValueError` as `verify` does, and for no dtypes.
    """
    __tracebackhide__ = True
    if isinstance(dtypes, str) or not dtypes:
        raise ValueError(f"dtypes: expected a sequence of at least one dtype, got {dtypes!r}")
    cases = defaults[-1].cases if cases is None else cases
    seed = defaults[-1].seed if seed is None else seed
    reports = [verify(pair, cases, seed, dtype, case=case) for dtype in dtypes]
    verdict = overall(report.verdict for report in reports)
    blunt = case is not None and verdict == "inconclusive" and all(r.cases for r in reports)
    if verdict == "pass" or blunt:
        return
    says = "fail" if verdict == "fail" else "inconclusive, which is not a pass"
    raise AssertionError(f"{pair.name}: {says}\n{text(reports)}")


def verified(test: Callable[P, Pair | Iterable[Pair]]) -> Callable[P, None]:
    """Make a test of a function that returns a `Pair`, or several: each has to pass.

    Its arguments stay those of the function, so that fixtures and parameters work.
    Raises `TypeError` when called, if the function returns anything else.
    """

    @wraps(test)
    def verifies(*args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        returned = test(*args, **kwargs)
        pairs = list(returned) if isinstance(returned, Iterable) else [returned]
        if not pairs or not all(isinstance(pair, Pair) for pair in pairs):
            raise TypeError(f"{test.__name__}: expected a Pair or several, got {returned!r}")
        for pair in pairs:
            assert_verified(pair)

    return verifies
