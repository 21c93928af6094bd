"""Adding up: the worst of each row over many cases."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from bptt_verify import subject
from bptt_verify.compare import Comparison, worse
from bptt_verify.draw import Case
from bptt_verify.judge import MOST_OVER_TIME, Failed, Rows, first_failed
from bptt_verify.pair import Pair
from bptt_verify.properties import PROPERTIES
from bptt_verify.report import BINS, Row, Verdict, bin_of

MOST_GIVEN_UP = 0.2
"""When more than this part of the cases had to be given up, nothing is said to pass."""


class Tally:
    """The worst of each row over the cases so far, and the first failure."""

    def __init__(self, pair: Pair, progress: Callable[[int], None] | None = None) -> None:
        self.pair = pair
        self.progress = progress
        self.judged = 0
        self.redrawn = 0
        self.largest: Case | None = None
        self._most = 0
        self.failed: Failed | None = None
        self.failed_at: int | None = None
        self._worst: dict[str, Comparison] = {}
        self._cases: dict[str, int] = {}
        self._quantities = set(pair.quantities())
        self._spread = [0] * (BINS + 1)

    @property
    def seen(self) -> int:
        """Cases so far, also those given up."""
        return self.judged + self.redrawn

    @property
    def over_time(self) -> bool:
        """Whether the subject passed its time limit so often that no more cases are run."""
        return self._cases.get(subject.TIME, 0) >= MOST_OVER_TIME

    def add(self, case: Case, found: Rows | None) -> None:
        """Count one case."""
        if found is None:
            self.redrawn += 1
        else:
            self.judged += 1
            worst = max((c.error for k, c in found.items() if k in self._quantities), default=0.0)
            self._spread[bin_of(worst)] += 1
            if (size := prod(case.sizes.values())) > self._most:
                self.largest, self._most = case, size
            self.record(case, found)
        if self.progress:
            self.progress(self.seen)

    def record(self, case: Case, found: Rows, at: int | None = None) -> None:
        """Keep the worst comparison of each row; it is sharp once any was, exact while all are.

        The case is the `at`-th, or the last one added.
        """
        for name, new in found.items():
            self._worst[name] = worse(self._worst.get(name, new), new)
            self._cases[name] = self._cases.get(name, 0) + 1
        failed = first_failed(case, found)
        if failed and self.failed is None:
            self.failed, self.failed_at = failed, at or self.seen
        elif failed and self.failed and self._tells_more(failed, self.failed):
            self.failed = failed

    @property
    def spread(self) -> tuple[int, ...]:
        """How far the cases strayed: see `Report.spread`."""
        return tuple(self._spread)

    def _tells_more(self, new: Failed, old: Failed) -> bool:
        """A quantity can be looked at closer, a property cannot."""
        quantities = self.pair.quantities()
        return new.row in quantities and old.row in PROPERTIES

    def rows(self, unread_taps: set[str]) -> tuple[Row, ...]:
        """A row for each quantity of the pair, then for each property."""
        names = list(dict.fromkeys([*self.pair.quantities(), *self._worst]))
        return tuple(self._row(name, name in unread_taps) for name in names)

    def _row(self, name: str, unread: bool) -> Row:
        found = self._worst.get(name)
        verdict: Verdict = "inconclusive"
        if found is None:
            note = f"the twin does not read inputs[{name!r}]" if unread else "never compared"
        else:
            verdict, note = judged(found)
        if name == subject.TIME and self.over_time:
            note += f"; nor in {self._cases[name]} cases, after which no more were run"
        if verdict == "pass" and self.redrawn > MOST_GIVEN_UP * self.seen:
            verdict = "inconclusive"
            note = f"{self.redrawn} of {self.seen} cases were given up"
        error = found.error if found else 0.0
        return Row(
            name, self.pair.equations.get(name), error, self._cases.get(name, 0), verdict, note
        )


def judged(worst: Comparison) -> tuple[Verdict, str]:
    """The verdict on a row of which this was the worst, and why it is no pass."""
    if not worst.ok:
        return "fail", worst.problem
    if worst.doubt:
        return "inconclusive", worst.doubt
    if not (worst.sharp or worst.exact):
        return "inconclusive", "every band was wider than 1 % of its entry"
    return "pass", ""
