"""Running the subject: a hand-written forward and backward that may do anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bptt_verify.draw import Case, Drawn
from bptt_verify.pair import Pair

UNCHANGED = "inputs unchanged"


class Ran(NamedTuple):
    """What came back, by quantity; and what went wrong, by the row that says so."""

    arrays: dict[str, Any]
    problems: dict[str, str]


def run(pair: Pair, case: Case, drawn: Drawn) -> Ran:
    """Run forward and backward once, on copies, and see whether the copies were left alone."""
    arrays: dict[str, Any] = {}
    inputs = {k: v.copy() for k, v in drawn.inputs.items()}
    cotangents = {k: v.copy() for k, v in drawn.cotangents.items()}
    try:
        returned = pair.forward(inputs, **case.options)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise TypeError(f"expected (outputs, cache), got {type(returned).__name__}")
        outputs, cache = returned
        arrays |= _named("outputs", outputs, {*pair.outputs, *pair.probes})
    except Exception as error:
        return Ran(arrays, {"forward": _say(error)})
    if pair.backward is not None:
        try:
            found = _named(
                "gradients",
                pair.backward(cache, cotangents),
                {*pair.differentiable, *pair.taps},
                ignored=set(pair.inputs),
            )
        except Exception as error:
            return Ran(arrays, {"backward": _say(error)})
        arrays |= {f"d{k}": found[k] for k in pair.differentiable}
        arrays |= {k: found[k] for k in pair.taps}
    changed = [k for k, v in inputs.items() if v.tobytes() != drawn.inputs[k].tobytes()]
    changed += [
        f"the cotangent of {k}"
        for k, v in cotangents.items()
        if v.tobytes() != drawn.cotangents[k].tobytes()
    ]
    return Ran(arrays, {UNCHANGED: f"modified {', '.join(changed)}"} if changed else {})


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


def _say(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"raised {type(error).__name__}: {text}"
