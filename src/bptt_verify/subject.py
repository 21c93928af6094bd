"""Running the subject: a hand-written forward and backward that may do anything."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np

from bptt_verify import raised
from bptt_verify.compare import Wrong, mismatch
from bptt_verify.draw import Case, Drawn
from bptt_verify.guard import Guard, Interrupted, OverTimeError
from bptt_verify.pair import Pair
from bptt_verify.shapes import parsed

UNCHANGED = "inputs unchanged"
AGAIN = "a second call the same"
STATE = "global state unchanged"
TIME = "time limit"
ALIVE = "stays alive"


class Ran(NamedTuple):
    """What came back, by quantity; and what went wrong, by the row that says so."""

    arrays: dict[str, Any]
    """Arrays as declared, each a copy; for anything else a `Wrong` that says what it is."""
    problems: dict[str, str]
    again: bool = True
    """Whether a second call had to give the same."""


class Run(Protocol):
    """How the subject is run: here, or under a guard, or in a process of its own."""

    def __call__(
        self, pair: Pair, case: Case, drawn: Drawn, dtype: np.dtype[Any], *, again: bool = True
    ) -> Ran:
        """Run forward and backward, and unless told otherwise once more."""


def run(
    pair: Pair,
    case: Case,
    drawn: Drawn,
    dtype: np.dtype[Any],
    guard: Guard | None = None,
    *,
    again: bool = True,
) -> Ran:
    """Run forward and backward on copies; see that these are left alone and a rerun is the same.

    With a guard, whatever the subject does ends here. Without one it may run for ever, and a
    KeyboardInterrupt is taken for the user's.
    """
    with guard.case() if guard else nullcontext():
        ran = (_twice if again else _once)(pair, case, drawn, dtype, guard)
    # of what the second call changed: the first may have imported a module that does
    if again and guard and guard.changed:
        ran.problems[STATE] = f"changed {', '.join(guard.changed)}"
    return ran._replace(again=again)


def _twice(pair: Pair, case: Case, drawn: Drawn, dtype: np.dtype[Any], guard: Guard | None) -> Ran:
    first = _once(pair, case, drawn, dtype, guard)
    if set(first.problems) & {"forward", "backward", TIME}:
        return first
    second = _once(pair, case, drawn, dtype, guard)
    problems = {**second.problems, **first.problems}
    for row in set(problems) & {"forward", "backward"}:
        problems = {**first.problems, AGAIN: f"{row} {problems[row]}"}
    differ = [name for name, a in first.arrays.items() if not _same(a, second.arrays.get(name))]
    if differ and AGAIN not in problems and TIME not in problems:
        problems[AGAIN] = f"differs in {', '.join(differ)}"
    return Ran(first.arrays, problems)


def _once(pair: Pair, case: Case, drawn: Drawn, dtype: np.dtype[Any], guard: Guard | None) -> Ran:
    ran = Ran({}, {})
    try:
        with guard.call() if guard else nullcontext():
            ran = _call(pair, case, drawn, dtype, guard)
    except OverTimeError:
        pass
    if guard and guard.over:
        return Ran({}, {TIME: f"{guard.over} did not end within {guard.limit:g} s"})
    return ran


def _call(pair: Pair, case: Case, drawn: Drawn, dtype: np.dtype[Any], guard: Guard | None) -> Ran:
    def begin(phase: str) -> str:
        if guard:
            guard.phase = phase
        return phase

    inputs = {k: v.copy() for k, v in drawn.inputs.items()}
    cotangents = {k: v.copy() for k, v in drawn.cotangents.items()}
    shapes = {k: parsed(s).sized(case.sizes) for k, s in {**pair.outputs, **pair.probes}.items()}
    arrays: dict[str, Any] = {}
    row = begin("forward")
    try:
        returned = pair.forward(dict(inputs), **case.options)
        if guard:
            guard.end_child()
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"expected (outputs, cache), got {type(returned).__name__}")
        outputs = _named("outputs", returned[0], set(shapes))
        arrays |= {k: _copy(v, shapes[k], dtype) for k, v in outputs.items()}
        if pair.backward is not None:
            row = begin("backward")
            taps = {k: parsed(s).sized(case.sizes) for k, s in pair.taps.items()}
            found = _named(
                "gradients",
                pair.backward(returned[1], dict(cotangents)),
                {*pair.differentiable, *taps},
                ignored=set(pair.inputs),
            )
            arrays |= {
                f"d{k}": _copy(found[k], drawn.inputs[k].shape, dtype) for k in pair.differentiable
            }
            arrays |= {k: _copy(found[k], shape, dtype) for k, shape in taps.items()}
        changed = [
            *(k for k, v in inputs.items() if not _same(v, drawn.inputs[k])),
            *(
                f"the cotangent of {k}"
                for k, v in cotangents.items()
                if not _same(v, drawn.cotangents[k])
            ),
            *(
                f"the output {k}"
                for k, v in outputs.items()
                if not _same(_copy(v, shapes[k], dtype), arrays[k])
            ),
        ]
    except BaseException as error:
        if guard:
            guard.end_child(error)
        if isinstance(error, Interrupted if guard else KeyboardInterrupt):
            raise
        return Ran(arrays, {row: f"raised {raised.in_words(error)}"})
    return Ran(arrays, {UNCHANGED: f"modified {', '.join(changed)}"} if changed else {})


def _same(a: Any, b: Any) -> bool:
    """The same bits, or wrong in the same way."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return type(a) is type(b) and bool(a == b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _named(
    what: str, returned: object, wanted: set[str], *, ignored: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(returned, Mapping):
        raise TypeError(f"{what}: expected a dict, got {type(returned).__name__}")
    missing, extra = wanted - set(returned), set(returned) - wanted - (ignored or set())
    if missing or extra:
        raise KeyError(
            f"{what}: "
            + "; ".join(
                f"{word} {', '.join(sorted(map(str, names)))}"
                for word, names in (("missing", missing), ("unexpected", extra))
                if names
            )
        )
    return {name: returned[name] for name in wanted}


def _copy(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """A copy, since what a view shows may change later; of nothing that has the wrong size."""
    problem = mismatch(value, shape, dtype)
    return Wrong(problem) if problem else np.array(value)
