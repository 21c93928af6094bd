"""One wrong backward: how it is made, and how the verifier kills it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import CodeType, ModuleType
from typing import NamedTuple

from bptt_verify.pair import Pair
from bptt_verify.verify import verify

Builder = Callable[[ModuleType], Pair]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A wrong backward.

    Args:
        name: short, for the command line.
        what: what is wrong.
        source: where that really happened, "owner/repo#number"; or "textbook".
        changes: what each piece of the module's text becomes; a piece stands there exactly once.
        layer: the module of the layer under test.
        build: makes the pair of such a layer, right or wrong.
        module: the module that is changed, when the layer only imports it.
    """

    name: str
    what: str
    source: str
    changes: Mapping[str, str]
    layer: ModuleType
    build: Builder
    module: ModuleType | None = None

    def pair(self) -> Pair:
        """The wrong layer beside its twin: a fresh copy, so that no state is left of earlier runs.

        Raises `ValueError` when a piece of text does not stand in the module exactly once.
        """
        if self.module is None:
            wrong = planted(self.layer, self.changes)
        else:
            wrong = planted(self.layer, {})
            name = self.module.__name__.rpartition(".")[2]
            setattr(wrong, name, planted(self.module, self.changes))
        pair = self.build(wrong)
        return replace(self.reference(), forward=pair.forward, backward=pair.backward)

    def reference(self) -> Pair:
        """The right layer beside its twin, one object for all mutants of it."""
        return _built(self.build, self.layer)


class Kill(NamedTuple):
    """How the verifier killed a mutant."""

    row: str
    """The quantity or property that disagreed first."""
    dtype: str
    case: int | None
    """Which case it was, from 1; None where the report does not say."""


def kill(pair: Pair, cases: int = 50, seed: int = 0) -> Kill | None:
    """What `verify` finds in at most so many cases in float64, else as many in float32."""
    for dtype in ("float64", "float32"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # wrong code may overflow
            report = verify(pair, cases, seed, dtype, explain=False)
        if report.first_failure is not None:
            return Kill(report.first_failure.row, dtype, report.failed_at)
    return None


def planted(module: ModuleType, changes: Mapping[str, str]) -> ModuleType:
    """A copy of the module with pieces of its text replaced.

    Raises `ValueError` when a piece does not stand there exactly once.
    """
    source = inspect.getsource(module)
    for right, wrong in changes.items():
        if source.count(right) != 1:
            raise ValueError(
                f"{module.__name__}: expected {right!r} once, got {source.count(right)} times"
            )
        source = source.replace(right, wrong)
    return copied(module, compile(source, f"<{module.__name__}>", "exec"))


def copied(module: ModuleType, code: CodeType) -> ModuleType:
    """A module of its own that runs the code in the module's stead."""
    copy = ModuleType(f"{module.__name__}_planted")
    exec(code, copy.__dict__)
    return copy


@cache
def _built(build: Builder, layer: ModuleType) -> Pair:
    return build(layer)
