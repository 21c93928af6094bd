"""Running the subject: a hand-written forward and backward that may do anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verify.draw import Case, Drawn
from bptt_verify.pair import Pair

UNCHANGED = "inputs unchanged"
AGAIN = "a second call the same"


class Ran(NamedTuple):
    """What came back, by quantity; and what went wrong, by the row that says so."""

    arrays: dict[str, Any]
    problems: dict[str, str]


def run(pair: Pair, case: Case, drawn: Drawn) -> Ran:
    """Run forward and backward on copies; see that these are left alone and a rerun is the same."""
    first = _once(pair, case, drawn)
    if set(first.problems) & {"forward", "backward"}:
        return first
    second = _once(pair, case, drawn)
    differ = [
        name for name, a in first.arrays.items() if not _identical(a, second.arrays.get(name))
    ]
    if differ:
        return Ran(first.arrays, {**first.problems, AGAIN: f"differs in {', '.join(differ)}"})
    return first


def _once(pair: Pair, case: Case, drawn: Drawn) -> Ran:
    arrays: dict[str, Any] = {}
    inputs = {k: v.copy() for k, v in drawn.inputs.items()}
    cotangents = {k: v.copy() for k, v in drawn.cotangents.items()}
    try:
        returned = pair.forward(dict(inputs), **case.options)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"expected (outputs, cache), got {type(returned).__name__}")
        outputs, cache = returned
        arrays |= _named("outputs", outputs, {*pair.outputs, *pair.probes})
    except (Exception, SystemExit) as error:
        return Ran(arrays, {"forward": _say(error)})
    if pair.backward is not None:
        try:
            found = _named(
                "gradients",
                pair.backward(cache, dict(cotangents)),
                {*pair.differentiable, *pair.taps},
                ignored=set(pair.inputs),
            )
        except (Exception, SystemExit) as error:
            return Ran(arrays, {"backward": _say(error)})
        arrays |= {f"d{k}": found[k] for k in pair.differentiable}
        arrays |= {k: found[k] for k in pair.taps}
    changed = [k for k, v in inputs.items() if v.tobytes() != drawn.inputs[k].tobytes()]
    changed += [
        f"the cotangent of {k}"
        for k, v in cotangents.items()
        if v.tobytes() != drawn.cotangents[k].tobytes()
    ]
    changed += [
        f"the output {k}"
        for k, v in outputs.items()
        if k in arrays and not _identical(v, arrays[k])
    ]
    return Ran(arrays, {UNCHANGED: f"modified {', '.join(changed)}"} if changed else {})


def _identical(a: object, b: object) -> bool:
    """The same bits, where both are arrays of one kind."""
    if not (isinstance(a, np.ndarray | np.generic) and isinstance(b, np.ndarray | np.generic)):
        return type(a) is type(b)
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
    # copied: a view of something that is changed later would change what is compared
    return {name: _copy(returned[name]) for name in wanted}


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _say(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"raised {type(error).__name__}: {text}"
