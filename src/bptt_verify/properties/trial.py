"""One case, and what a property does with it: run the subject elsewhere, ask the oracle there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from numpy.typing import NDArray

from bptt_verify import draw, subject
from bptt_verify.compare import Comparison, Wrong, compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.noise import places
from bptt_verify.oracle import Answer, Expected, Oracle
from bptt_verify.pair import Index, Pair
from bptt_verify.rounding import Rounding, check_numbers
from bptt_verify.shapes import Shape
from bptt_verify.tolerance import multiplier

Array = NDArray[Any]
Arrays = dict[str, Array]
Result = TypeVar("Result")


class Request(NamedTuple):
    """Arrays at which a property wants to know what the oracle says."""

    points: list[tuple[Case, Drawn]]


Asking = Generator[Request, list[Answer], Result]
"""What asks the oracle: it yields a request, is sent the answers, and returns what came of them.

So the requests of many properties, in many cases, can be answered side by side.
"""
Found = Generator[Request | tuple[str, Comparison], list[Answer], None]
"""What a property yields besides: a quantity, and how it compares."""

FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Property:
    """Something that holds for every right backward pass of a kind."""

    name: str
    statement: str
    """What holds, on one line."""
    applies: Callable[[Pair], bool]
    check: Callable[[Trial], Found]
    """The quantities of one case; `NothingSaid` when the case says nothing about the property."""


class NothingSaid(Exception):  # noqa: N818 - no error
    """The case cannot show whether the property holds; what is wrong with it is judged elsewhere.

    It has one step only, say; or the subject raises, or the oracle knows no band.
    """


@dataclass(frozen=True, eq=False)
class Band:
    """Values in float64, and how far honest rounding may have moved each of them."""

    value: Array
    tolerance: Array

    def __add__(self, other: Band) -> Band:
        with np.errstate(over="ignore"):  # a wrong gradient may be of any size
            return Band(self.value + other.value, self.tolerance + other.tolerance)

    def __neg__(self) -> Band:
        return Band(-self.value, self.tolerance)

    def each(self, move: Callable[[Array], Array]) -> Band:
        """The same function, one that only moves or chooses entries, of both."""
        return Band(move(self.value), move(self.tolerance))


def exact(value: Array) -> Band:
    """Values that nothing may move."""
    return Band(np.asarray(value, np.float64), np.zeros(np.shape(value)))


def agree(got: Band, wanted: Band) -> Comparison:
    """Whether two values of the same thing are as near as both their bands say."""
    sigma = (got.tolerance + wanted.tolerance) / multiplier(FLOAT64)
    return compare(got.value, Expected(wanted.value, sigma), FLOAT64)


def worst(found: Iterable[tuple[str, Comparison]]) -> Comparison | None:
    """The worst of them, with the name of its quantity; None when there are none."""
    all_found = list(found)
    if not all_found:
        return None
    name, chosen = max(all_found, key=lambda item: item[1].error)
    return chosen._replace(
        problem=chosen.problem and f"{name}: {chosen.problem}",
        sharp=any(c.sharp for _, c in all_found),
        exact=all(c.exact for _, c in all_found),
        excusable=False,  # kinks have been looked at
    )


# --- axes by letter


def axis(shape: str, letter: str | None) -> int | None:
    """Where the letter stands in the shape; None when it does not."""
    found = [
        i for i, (_, at) in enumerate(Shape(shape).axes) if letter is not None and at == letter
    ]
    return found[0] if found else None


def take(array: Array, shape: str, letter: str, index: Array) -> Array:
    """These entries of every axis with the letter, in this order; of each block of "4H"."""
    for i, (times, at) in enumerate(Shape(shape).axes):
        if at == letter:
            size = array.shape[i] // times
            array = np.take(array, (size * np.arange(times)[:, None] + index).ravel(), i)
    return array


def take_all(
    arrays: Mapping[str, Array], shapes: Mapping[str, str], letter: str, index: Any
) -> Any:
    """`take` of all arrays; those without the letter stay as they are."""
    return {name: take(a, shapes[name], letter, index) for name, a in arrays.items()}


def input_shapes(pair: Pair) -> dict[str, str]:
    """The shapes of all inputs, those without a gradient too."""
    return {n: s if isinstance(s, str) else s.shape for n, s in pair.inputs.items()}


def counts(pair: Pair, letter: str | None) -> bool:
    """Whether the letter counts separate things: it is an axis by itself, once in any shape.

    Nor may class indices count them.
    """
    shapes = [*input_shapes(pair).values(), *pair.shapes().values()]
    axes = [[times for times, at in Shape(s).axes if at == letter] for s in shapes]
    used = any(axis(shape, letter) is not None for shape in input_shapes(pair).values())
    return used and all(times in ([], [1]) for times in axes) and not is_indexed(pair, letter)


def is_indexed(pair: Pair, letter: str | None) -> bool:
    """Whether some input holds indices into axes with the letter."""
    below = [Shape(s.below).letters for s in pair.inputs.values() if isinstance(s, Index)]
    return any(letter in letters for letters in below)


# --- the trial


@dataclass(frozen=True)
class Trial:
    """A pair in one case: `drawn` is the base point, from which properties move away."""

    pair: Pair
    case: Case
    drawn: Drawn
    dtype: np.dtype[Any]
    oracle: Oracle
    subject: subject.Run
    answer: Answer
    """The oracle at the base point."""

    def run(
        self, inputs: Arrays, cotangents: Arrays, sizes: Mapping[str, int] | None = None
    ) -> Arrays:
        """All quantities of the subject, run once on copies of these arrays.

        `sizes` are those that are not the case's. Raises `NothingSaid` for an `attempt` that fails.
        """
        ran = self.attempt(inputs, cotangents, sizes)
        if isinstance(ran, str):
            raise NothingSaid
        return ran

    def attempt(
        self, inputs: Arrays, cotangents: Arrays, sizes: Mapping[str, int] | None = None
    ) -> Arrays | str:
        """The same; or what is wrong.

        The subject raised, or returned what is not of the declared shape and the dtype under test,
        or gradients that are not finite.
        """
        case = self._at(sizes)
        ran = self.subject(self.pair, case, Drawn(inputs, cotangents), self.dtype, again=False)
        for row, problem in ran.problems.items():
            if row not in (subject.UNCHANGED, subject.AGAIN):
                return f"{row} {problem}"
        arrays = {}
        for name, letters in self.pair.shapes().items():
            got, shape = ran.arrays[name], Shape(letters).sized(case.sizes)
            if isinstance(got, Wrong):
                return f"{name}: {got.problem}"
            if not isinstance(got, np.ndarray | np.generic):
                return f"{name}: expected an array {shape}, got {type(got).__name__}"
            if got.shape != shape or got.dtype != self.dtype:
                return f"{name}: expected {self.dtype} {shape}, got {got.dtype} {got.shape}"
            if name not in self.forwards and not np.isfinite(got).all():
                return f"{name}: expected finite values"
            arrays[name] = np.asarray(got)
        return arrays

    def expected(self, inputs: Arrays, cotangents: Arrays) -> Asking[Answer]:
        """What the oracle says at these arrays."""
        (answer,) = yield Request([(self.case, Drawn(inputs, cotangents))])
        return answer

    def bands(
        self, inputs: Arrays, cotangents: Arrays, sizes: Mapping[str, int] | None = None
    ) -> Asking[dict[str, Band]]:
        """What the subject returns at these arrays, with the oracle's tolerance.

        Raises `NothingSaid` as `run` does, and where the oracle cannot tell.
        """
        (found,) = yield from self.bands_of([(inputs, cotangents)], sizes)
        return found

    def bands_of(
        self, points: Sequence[tuple[Arrays, Arrays]], sizes: Mapping[str, int] | None = None
    ) -> Asking[list[dict[str, Band]]]:
        """The same at several places."""
        answers = yield Request([(self._at(sizes), Drawn(*point)) for point in points])
        return [
            self.around(self.run(*point, sizes), answer)
            for point, answer in zip(points, answers, strict=True)
        ]

    def around(self, ran: Arrays, answer: Answer) -> dict[str, Band]:
        """These values of the subject with the tolerance of that answer."""
        if answer.undecided or answer.out_of_range:
            raise NothingSaid
        m = multiplier(self.dtype)
        return {
            name: Band(ran[name].astype(np.float64), m * answer.quantities[name].sigma)
            for name in [*self.forwards, *self.gradients]
        }

    @cached_property
    def ran(self) -> Arrays:
        """The subject at the base point."""
        return self.run(*self.base_point)

    @cached_property
    def base(self) -> dict[str, Band]:
        """Both together."""
        return self.around(self.ran, self.answer)

    @property
    def base_point(self) -> tuple[Arrays, Arrays]:
        """The inputs and cotangents of the case."""
        return self.drawn.inputs, self.drawn.cotangents

    @property
    def forwards(self) -> list[str]:
        """The outputs and probes."""
        return [*self.pair.outputs, *self.pair.probes]

    @property
    def gradients(self) -> list[str]:
        """The gradients, and the taps of which the twin has an opinion."""
        known = [*self.forwards, *self.oracle.unread_taps]
        return [q for q in self.pair.quantities() if q not in known]

    def rng(self) -> np.random.Generator:
        """The choices of a property: the same in every run of the case."""
        return np.random.default_rng([self.case.seed, 3])

    def fresh(self, sizes: Mapping[str, int] | None = None) -> Drawn:
        """Other arrays of the same kind."""
        other = replace(self._at(sizes), seed=(self.case.seed + 1) % 2**32)
        return draw.realise(self.pair, other, self.dtype)

    def several(self, letter: str | None) -> int:
        """The size of the letter; `NothingSaid` when it is 1."""
        size = self.case.sizes[str(letter)]
        if size == 1:
            raise NothingSaid
        return size

    def taken(self, letter: str, index: Any) -> tuple[Arrays, Arrays]:
        """Inputs and cotangents with these entries of the axes with the letter."""
        inputs = take_all(self.drawn.inputs, input_shapes(self.pair), letter, index)
        return inputs, take_all(self.drawn.cotangents, self.pair.outputs, letter, index)

    def evaluate(self, what: str, function: Callable[..., Any], *arguments: Any) -> list[Band]:
        """A function of the twin in float64, with what float64 itself needs; its leaves in order.

        Raises `ValueError` when it raises, `NothingSaid` when it comes near a kink or overflows.
        """
        with jax.enable_x64(True):
            try:
                closed = jax.make_jaxpr(function)(*arguments)
                check_numbers(closed.jaxpr)
            except Exception as raised:
                raise ValueError(
                    f"pair {self.pair.name!r}: {what}: raised {type(raised).__name__}: {raised} "
                    f"(case {self.case})"
                ) from raised
            rounding = Rounding(FLOAT64, places(self.rng()), self.oracle.margin)
            leaves = [np.asarray(a)[None] for a in jax.tree.leaves(arguments)]
            found = rounding.run(closed, leaves)
        if rounding.undecided[0] or rounding.peak[0] > np.finfo(FLOAT64).max:
            raise NothingSaid
        return [Band(value[0], multiplier(FLOAT64) * sigma[0]) for value, sigma in found]

    def _at(self, sizes: Mapping[str, int] | None) -> Case:
        return replace(self.case, sizes={**self.case.sizes, **(sizes or {})})


def in_float64(arrays: Mapping[str, Array]) -> Arrays:
    """What the twin gets: floats as float64."""
    return {n: a if a.dtype.kind in "iub" else a.astype(np.float64) for n, a in arrays.items()}


def without_taps(trial: Trial) -> Arrays:
    """The inputs of the twin in float64; taps are zero."""
    taps = {n: np.zeros(Shape(s).sized(trial.case.sizes)) for n, s in trial.pair.taps.items()}
    return {**in_float64(trial.drawn.inputs), **taps}
