"""Who stands alone, when the gradient of the subject and that of the twin disagree.

Either may be wrong, so others are asked about the entry ∂L/∂θ, where L = Σ ⟨cotangent, output⟩:

- the definition of the derivative, (L(θ + h) - L(θ - h)) / 2h, of the twin's forward at 60 digits.
  With h = 1e-20 about 40 of them are right, and neither a derivation nor automatic differentiation
  nor XLA has a part in it.
- the subject's own forward in float64: by a complex step, Im L(θ + ih) / h, where the forward takes
  complex numbers and is analytic, by differences where not.

A voter that cannot tell abstains, and says why.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt_verify import raised, subject
from bptt_verify.compare import Wrong, telling_apart
from bptt_verify.draw import Case, Drawn
from bptt_verify.guard import OverTimeError
from bptt_verify.oracle import Answer, Oracle
from bptt_verify.precise import DIGITS, MP, AbstainError, Precise, numbers
from bptt_verify.shapes import Shape
from bptt_verify.surgery import sites
from bptt_verify.tolerance import multiplier, unit_roundoff

Array = NDArray[Any]
DOUBLE = np.dtype(np.float64)
EPS = float(np.finfo(DOUBLE).eps)

STEP = MP.mpf(10) ** -20
"""Of the differences at 60 digits."""

FLOAT_STEP = 2.0**-17
"""Of the differences in float64: about the cube root of its precision."""

COMPLEX_STEP = 1e-30

Around = Callable[[], AbstractContextManager[None]]
"""What one call of the subject's forward is made in."""

Who = Literal["subject", "twin", "forward", "undecided"]


class Vote(NamedTuple):
    """What one of them says the entry is."""

    voter: str
    value: float | None
    """None for an abstention."""
    uncertainty: float = 0.0
    why: str = ""
    """The reason to abstain."""


class Majority(NamedTuple):
    """All votes, and who stands alone: "forward" when the two compute different functions."""

    votes: tuple[Vote, ...]
    who: Who
    text: str
    """One or two sentences for a report."""


class Entry(NamedTuple):
    """One entry of one quantity in one case."""

    oracle: Oracle
    case: Case
    drawn: Drawn
    quantity: str
    at: tuple[int, ...]

    @property
    def source(self) -> str:
        """The input of the twin, or the tap, whose cotangent the quantity is."""
        pair, name = self.oracle.pair, self.quantity
        return name if name in pair.taps else name.removeprefix("d")

    def check(self) -> None:
        """Raise `ValueError` for a quantity or an index that the pair does not have."""
        pair, quantity, at = self.oracle.pair, self.quantity, self.at
        if quantity not in pair.quantities():
            raise ValueError(f"quantity: expected one of {pair.quantities()}, got {quantity!r}")
        shape = Shape(pair.shapes()[quantity]).sized(self.case.sizes)
        if len(at) != len(shape) or any(not 0 <= i < n for i, n in zip(at, shape, strict=True)):
            raise ValueError(f"at: expected the index of an entry of {shape}, got {at}")


def majority(
    oracle: Oracle,
    case: Case,
    drawn: Drawn,
    dtype: np.dtype[Any],
    quantity: str,
    at: tuple[int, ...],
) -> Majority:
    """Run the subject and ask all about one entry: `vote`.

    Raises `ValueError` as `vote` does, and for a subject that does not return the quantity.
    """
    entry = Entry(oracle, case, drawn, quantity, at)
    entry.check()
    ran = subject.run(oracle.pair, case, drawn, dtype)
    got = ran.arrays.get(quantity)
    if not isinstance(got, np.ndarray | np.generic):
        why = got.problem if isinstance(got, Wrong) else "; ".join(ran.problems.values())
        return vote(entry, dtype, why)
    return vote(entry, dtype, float(np.asarray(got)[at]))


def vote(
    entry: Entry,
    dtype: np.dtype[Any],
    got: float | str,
    *,
    around: Around | None = nullcontext,
) -> Majority:
    """Ask all about one entry in which the subject's value and the twin's disagree.

    Args:
        entry: where they disagree; in a small case, at 60 digits each operation takes microseconds.
        dtype: the dtype under test. The subject's value is computed in it, all others are not.
        got: the subject's value there, or why it has none.
        around: what each call of the subject's forward is made in (`Guard.alone`); None when it
            must not be run in this process.

    Raises `ValueError` for a quantity or an entry that the pair does not have, and for a twin that
    raises.
    """
    oracle, case, drawn, quantity, at = entry
    pair = oracle.pair
    entry.check()
    double = oracle.answer(case, drawn, DOUBLE)
    tested = double if dtype == DOUBLE else oracle.answer(case, drawn, dtype)
    value, sigma = double.quantities[quantity]
    exact = float(multiplier(DOUBLE) * sigma[at])
    noise = float(tested.quantities[quantity].sigma[at])

    if isinstance(got, str):
        mine = Vote("subject", None, why=got)
    else:
        mine = Vote("subject", got, _band(got, noise, dtype))
    votes: tuple[Vote, ...]
    if quantity in {**pair.outputs, **pair.probes}:
        twin = Vote("twin (float64)", float(value[at]), exact)
        votes = mine, twin, _vote(f"twin ({DIGITS} digits)", lambda: precise_value(entry))
    else:
        twin = Vote("twin (jax.vjp)", float(value[at]), exact)
        name = f"definition ({DIGITS} digits)"
        definition = _vote(name, lambda: derivative(entry, double))
        if around is None:
            own = Vote("subject's forward", None, why="it runs in a process of its own")
        else:
            own = _of_the_forward(entry, double, around)
        votes = mine, twin, definition, own
    who, reason = _who(*votes)
    if who == "twin" and _stops_gradients(entry):
        # truncation is meant so, and is no derivative of the function
        who, reason = "undecided", "the twin stops gradients, on purpose or not"
    return Majority(votes, who, _text(votes, who, reason))


# --- the definition, at 60 digits


def derivative(entry: Entry, double: Answer | None = None) -> tuple[Any, Any]:
    """The derivative by its definition and its uncertainty, as mpmath's numbers.

    `double` is the oracle's answer in float64, where it is at hand. Raises `AbstainError` at a kink
    and for a primitive without a rule.
    """
    double = double or entry.oracle.answer(entry.case, entry.drawn, DOUBLE)
    offsets = [MP.zero, STEP, -STEP, STEP / 2, -STEP / 2]
    outputs = _forward(entry, offsets)
    loss: Any = 0
    for name, cotangent in entry.drawn.cotangents.items():
        terms = numbers(np.asarray(cotangent, DOUBLE)[None]) * outputs[name]
        loss = loss + terms.reshape(len(offsets), -1).sum(axis=1)
    noise = _condition(double, entry.drawn) * MP.mpf(10) ** -DIGITS
    return _slope(list(loss), STEP, noise)


def precise_value(entry: Entry) -> tuple[Any, Any]:
    """An entry of the twin's forward as an mpmath number, and an uncertainty of 0.

    Raises `AbstainError` for a primitive without a rule.
    """
    return _forward(entry)[entry.quantity][(0, *entry.at)], MP.zero


def _forward(entry: Entry, offsets: Sequence[Any] = ()) -> dict[str, Array]:
    """The twin's outputs and probes, (offsets, ...), with each offset added to the entry's source.

    Without offsets, (1, ...) at the point itself.
    """
    oracle, case = entry.oracle, entry.case
    inputs = oracle.inputs(case, entry.drawn)
    closed = oracle.forward_jaxpr(case, entry.drawn)
    precise = Precise(len(offsets) or 1)
    points = {name: precise.spread(inputs[name]) for name in sorted(inputs)}
    if offsets:
        points[entry.source] = moved = points[entry.source].copy()
        index: Any = (slice(None), *entry.at)
        moved[index] += np.array(offsets)
    names = sorted({**oracle.pair.outputs, **oracle.pair.probes})
    return dict(zip(names, precise.run(closed, list(points.values())), strict=True))


# --- differences


def _slope(L: Sequence[Any], h: Any, noise: Any) -> tuple[Any, Any]:
    """dL/dθ and its uncertainty, from L at θ, θ + h, θ - h, θ + h/2 and θ - h/2.

    Central differences, by Richardson extrapolated to h = 0. Raises `AbstainError` at a kink: where
    L is smooth, the gap between the one-sided differences halves with the step.
    """
    right, left = [(L[i] - L[0]) / step for i, step in ((1, h), (2, -h))]
    near_right, near_left = [(L[i] - L[0]) / step for i, step in ((3, h / 2), (4, -h / 2))]
    coarse, fine, noise = (right + left) / 2, (near_right + near_left) / 2, 4 * noise / h
    if not all(-math.inf < x < math.inf for x in (coarse, fine)):
        raise AbstainError("its differences are not finite")
    gap, near_gap = abs(right - left), abs(near_right - near_left)
    if near_gap > 3 * gap / 4 and near_gap > noise:
        sides = f"{float(near_left):.5g} and {float(near_right):.5g}"
        raise AbstainError(f"its one-sided differences are {sides}, as at a kink")
    return (4 * fine - coarse) / 3, abs(fine - coarse) + noise


def _condition(double: Answer, drawn: Drawn) -> float:
    """How far rounding may move L, in units of the precision it is computed with."""
    size = 0.0
    for name, cotangent in drawn.cotangents.items():
        value, sigma = double.quantities[name]
        with np.errstate(over="ignore"):
            moved = np.abs(value) + multiplier(DOUBLE) * sigma / EPS
        counts = cotangent != 0  # zero times infinity would be NaN
        size += float((np.abs(np.asarray(cotangent, DOUBLE)) * moved)[counts].sum())
    return size


# --- the voters


def _vote(voter: str, ask: Callable[[], tuple[Any, Any]]) -> Vote:
    try:
        value, uncertainty = ask()
    except AbstainError as reason:
        return Vote(voter, None, why=str(reason))
    return Vote(voter, float(value), float(uncertainty))


def _band(value: float, sigma: float, dtype: np.dtype[Any]) -> float:
    """The tolerance for a value that is rounded once at least.

    σ is that of the twin's gradient, which a stop_gradient in the twin makes too small.
    """
    return multiplier(dtype) * max(sigma, unit_roundoff(dtype) * abs(value))


def _of_the_forward(entry: Entry, double: Answer, around: Around) -> Vote:
    """A complex step where differences confirm it, differences elsewhere."""
    pair, drawn = entry.oracle.pair, entry.drawn

    def loss(offset: float | complex) -> Any:
        kind = np.dtype(type(offset))
        inputs = {
            k: v.astype(kind if k in pair.floats else v.dtype if v.dtype.kind in "iub" else DOUBLE)
            for k, v in drawn.inputs.items()
        }
        inputs[entry.source][entry.at] += offset
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                with around():
                    outputs = pair.forward(inputs, **entry.case.options)[0]
                terms = [np.sum(d * outputs[k]) for k, d in cotangents.items()]
                return sum(terms[1:], terms[0]).item()
            except (Exception, SystemExit, OverTimeError) as error:
                raise AbstainError(f"raised {raised.in_words(error)}") from error

    def by_differences() -> tuple[float, float]:
        if entry.quantity in pair.taps:
            raise AbstainError("no input of it is the tap")
        h = FLOAT_STEP
        noise = _condition(double, drawn) * EPS
        return _slope([loss(offset) for offset in (0.0, h, -h, h / 2, -h / 2)], h, noise)

    cotangents = {k: np.asarray(v, DOUBLE) for k, v in drawn.cotangents.items()}
    differences = _vote("subject's forward, differences", by_differences)
    if differences.value is None:
        return differences._replace(voter="subject's forward")
    try:
        step = float(np.imag(loss(COMPLEX_STEP * 1j))) / COMPLEX_STEP
    except AbstainError:
        return differences
    if not abs(step - differences.value) <= differences.uncertainty:
        return differences  # not analytic: it takes a magnitude, a real part, a choice
    sigma = float(double.quantities[entry.quantity].sigma[entry.at])
    return Vote("subject's forward, complex step", step, _band(step, sigma, DOUBLE))


def _stops_gradients(entry: Entry) -> bool:
    closed = entry.oracle.forward_jaxpr(entry.case, entry.drawn)
    return any(eqn.primitive.name == "stop_gradient" for _, eqn in sites(closed.jaxpr))


# --- the count


def _agree(a: Vote, b: Vote) -> bool:
    """Within the wider uncertainty of the two; abstentions, infinity and NaN never do."""
    if a.value is None or b.value is None or not math.isfinite(a.value - b.value):
        return False
    return abs(a.value - b.value) <= max(a.uncertainty, b.uncertainty)


def _who(mine: Vote, twin: Vote, definition: Vote, own: Vote | None = None) -> tuple[Who, str]:
    """Who stands alone; if nobody can be said to, why."""

    def sides_with(vote: Vote | None) -> str:
        if vote is None or vote.value is None:
            return "nobody, it abstains"
        with_mine, with_twin = _agree(vote, mine), _agree(vote, twin)
        if with_mine and with_twin:
            return "both"
        return "subject" if with_mine else "twin" if with_twin else "neither"

    if _agree(mine, twin):
        return "undecided", "subject and twin agree here"
    match sides_with(definition), sides_with(own):
        case "twin", "subject":
            return "forward", ""
        case ("twin", _) | ("nobody, it abstains", "twin"):
            return "subject", ""
        case "subject", other if other != "twin":
            return "twin", ""
    return "undecided", f"the definition sides with {sides_with(definition)}"


def _text(votes: tuple[Vote, ...], who: Who, reason: str) -> str:
    mine, *others = votes
    said = [vote for vote in others if vote.value is not None]
    silent = [vote for vote in votes if vote.value is None]
    values = [vote.value for vote in (mine, said[0]) if vote.value is not None]
    digits = telling_apart(values[0], values[-1], 5)
    headline = {
        "subject": "the subject stands alone",
        "twin": "the twin stands alone",
        "forward": "subject and twin compute different functions, and each gradient fits its own",
        "undecided": f"undecided, {reason}",
    }[who]
    text = f"{headline}: " + ", ".join(f"{v.voter} {v.value:.{digits}g}" for v in said)
    if mine.value is not None:
        text += f"; subject {mine.value:.{digits}g}"
    text += "".join(f"; {vote.voter} abstains: {vote.why}" for vote in silent)
    if any("as at a kink" in vote.why for vote in silent):
        text += (
            "; at a kink or a tie the slope is a convention: write the twin with yours "
            "(jax.nn.relu has 0 there, jnp.maximum a half), or leave them out with "
            "without={'ties'}"
        )
    return text
