"""What the twin says: values, gradients by `jax.vjp`, and the rounding scale σ of each entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from numpy.typing import NDArray

from bptt_verify import raised
from bptt_verify.draw import Case, Drawn
from bptt_verify.noise import EVERY, FIRST, places
from bptt_verify.padding import cropped, padded
from bptt_verify.pair import Pair
from bptt_verify.rounding import Rounding, check_numbers, decides
from bptt_verify.shapes import Shape
from bptt_verify.tolerance import largest

Array = NDArray[Any]


KEPT = 1024
"""Traces kept for the next case of the same shape."""


Twin = Callable[[dict[str, Any]], dict[str, Any]]


class Expected(NamedTuple):
    """One quantity: its value in float64 and the spread that honest rounding gives it."""

    value: Array
    sigma: Array


class Answer(NamedTuple):
    """All quantities of one case, and whether the case can be judged at all."""

    quantities: dict[str, Expected]
    undecided: bool
    """The forward pass came within rounding of a kink: either branch is honest."""
    out_of_range: bool
    """A value on the way is larger than the dtype under test can hold."""


class Answers(NamedTuple):
    """Those of several cases, padded to one shape; the first axis of everything counts them."""

    quantities: dict[str, Expected]
    undecided: NDArray[np.bool_]
    out_of_range: NDArray[np.bool_]

    def of(self, k: int, shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> Answer:
        """The answer of the k-th case, which has these sizes."""
        return Answer(
            {
                name: Expected(*(cropped(a[k], shapes[name], sizes) for a in both))
                for name, both in self.quantities.items()
            },
            bool(self.undecided[k]),
            bool(self.out_of_range[k]),
        )


class Oracle:
    """The twin of one pair, traced once for each shape.

    Args:
        pair: the pair.
        margin: how many σ a comparison has to clear to count as decided.
    """

    def __init__(self, pair: Pair, margin: float) -> None:
        self.pair = pair
        self.margin = margin
        self.shapes = {name: Shape(text) for name, text in pair.shapes().items()}
        self._traced: dict[str, ClosedJaxpr] = {}
        self.neutral: set[str] | None = None
        """The letters whose padding changes nothing, once `bptt_verify.batch` has tried it."""
        self.unread_taps = set(pair.taps)
        """Taps that the twin does not add to anything, so that it has no opinion on them."""

    def answer(
        self,
        case: Case,
        drawn: Drawn,
        dtype: np.dtype[Any],
        *,
        twin: Twin | None = None,
    ) -> Answer:
        """The twin's quantities for the case, σ for the dtype under test.

        Raises `ValueError` when the twin raises or returns something else than the pair declares.
        """
        answers = self.answers([case], [drawn], dtype, case.sizes, twin=twin)
        return answers.of(0, self.shapes, case.sizes)

    def short(self, drawn: Drawn) -> bool:
        """Whether all floats that come in have few digits, so that there may be exact ties."""
        inputs = (np.asarray(drawn.inputs[name], np.float64) for name in self.pair.floats)
        return all(map(_of_few_digits, inputs))

    def forward_jaxpr(self, case: Case, drawn: Drawn) -> ClosedJaxpr:
        """The twin alone, of `{**inputs, **taps}` in the order of their names, outputs likewise."""
        with jax.enable_x64(True):
            closed: ClosedJaxpr = jax.make_jaxpr(lambda inputs: self._twin(inputs, case))(
                self.inputs(case, drawn)
            )
        return closed

    def inputs(self, case: Case, drawn: Drawn) -> dict[str, Array]:
        """What the twin gets: inputs in float64, and zeros for the taps."""
        real, other, taps, _ = _first(self._arguments([case], [drawn], case.sizes))
        return {**real, **other, **taps}

    def answers(
        self,
        cases: Sequence[Case],
        drawn: Sequence[Drawn],
        dtype: np.dtype[Any],
        ceiling: Mapping[str, int],
        *,
        twin: Twin | None = None,
        extra: Mapping[str, Array] | None = None,
        thrifty: bool = False,
    ) -> Answers:
        """The same for several cases side by side, each padded with zeros to the ceiling sizes.

        With `twin`, a changed copy answers in its place; besides its inputs it is given the entry
        of each case in `extra`. Thrifty: by a few samples, and σ is what it is at least once ten
        more are drawn, so that what passes so passes whatever these say.

        The options of all are those of the first. A size may be below the ceiling only in letters
        whose padding changes nothing (`bptt_verify.padding`).

        Raises `MixedError` when the cases take different branches of the twin.
        """
        arguments = self._arguments(cases, drawn, ceiling)
        arguments[1].update(extra or {})
        shape = replace(cases[0], sizes=ceiling)
        with jax.enable_x64(True):
            if twin is None:
                closed = self._trace(shape, arguments)
            else:
                closed = jax.make_jaxpr(self._program(shape, twin))(*_first(arguments))
            noisy = partial(
                Rounding,
                dtype,
                places(np.random.default_rng([cases[0].seed, 2])),
                self.margin,
                cases=len(cases),
                samples=FIRST if thrifty else EVERY,
            )
            leaves = jax.tree.leaves(arguments)
            undecided = np.zeros(len(cases), np.bool_)
            short = all(_of_few_digits(a) for a in arguments[0].values())
            if short and decides(closed.jaxpr):
                # first what is a tie in every honest program, then σ on that side of it
                exactly = noisy(short=True)
                exactly.run(closed, leaves)
                undecided |= exactly.undecided
            rounding = noisy(follow=short)
            found = rounding.run(closed, leaves)
            undecided |= rounding.undecided
        part = math.sqrt(len(FIRST) / len(EVERY)) if thrifty else 1.0
        quantities = {
            name: Expected(value, sigma * part)
            for name, (value, sigma) in zip(self._names(), found, strict=True)
        }
        beyond = rounding.peak > largest(dtype)
        for value, sigma in quantities.values():
            if value.dtype.kind == "f":  # honest rounding may lead there
                beyond |= rounding.any_entry(
                    (np.abs(value) + self.margin * sigma > largest(dtype)) & np.isfinite(value)
                )
        return Answers(quantities, undecided, beyond)

    def run_by_xla(self, case: Case, drawn: Drawn) -> dict[str, Array]:
        """The same quantities in float64, compiled and run by XLA."""
        with jax.enable_x64(True):
            arguments = _first(self._arguments([case], [drawn], case.sizes))
            results = jax.jit(self._program(case))(*arguments)
            values = [np.asarray(r) for r in jax.tree.leaves(results)]
        return dict(zip(self._names(), values, strict=True))

    def _names(self) -> list[str]:
        """The quantities in the order in which the program returns them."""
        pair = self.pair
        forward = [*sorted(pair.outputs), *sorted(pair.probes)]
        if pair.backward is None:
            return forward
        return [*forward, *(f"d{n}" for n in sorted(pair.differentiable)), *sorted(pair.taps)]

    def _arguments(
        self, cases: Sequence[Case], drawn: Sequence[Drawn], ceiling: Mapping[str, int]
    ) -> tuple[dict[str, Array], ...]:
        """Floats as float64, and zeros for the taps; the first axis counts the cases."""
        pair = self.pair

        def stacked(text: str, arrays: Sequence[Array]) -> Array:
            return padded(arrays, Shape(text), [case.sizes for case in cases], ceiling)

        inputs = {
            name: stacked(
                spec if isinstance(spec, str) else spec.shape, [d.inputs[name] for d in drawn]
            )
            for name, spec in pair.inputs.items()
        }
        real = {k: inputs[k] for k in pair.floats}
        other = {k: v for k, v in inputs.items() if k not in real}
        taps = {k: np.zeros((len(cases), *Shape(s).sized(ceiling))) for k, s in pair.taps.items()}
        cotangents = {
            k: stacked(pair.outputs[k], [d.cotangents[k] for d in drawn])
            for k in drawn[0].cotangents
        }
        return real, other, taps, cotangents

    def _trace(self, case: Case, arguments: tuple[dict[str, Array], ...]) -> ClosedJaxpr:
        key = f"{dict(case.sizes)} {dict(case.options)}"
        if key not in self._traced:
            if len(self._traced) >= KEPT:
                del self._traced[next(iter(self._traced))]
            program = self._program(case)
            arguments = _first(arguments)
            closed = jax.make_jaxpr(program)(*arguments)
            try:
                check_numbers(closed.jaxpr)
            except ValueError as error:
                raise ValueError(f"pair {self.pair.name!r}: twin: {error}") from error
            self._traced[key] = closed
            if self.unread_taps:  # a tap may be read for some sizes only
                self._find_unread_taps(case, arguments)
        return self._traced[key]

    def _program(self, case: Case, twin: Twin | None = None) -> Any:
        pair = self.pair
        run = twin or (lambda inputs: self._twin(inputs, case))

        def program(
            real: dict[str, Any], other: dict[str, Any], taps: dict[str, Any], cotangents: Any
        ) -> tuple[Any, ...]:
            def forward(real: dict[str, Any], taps: dict[str, Any]) -> tuple[Any, Any]:
                everything = run({**real, **other, **taps})
                outputs = {name: everything[name] for name in pair.outputs}
                return outputs, {name: everything[name] for name in pair.probes}

            if pair.backward is None:
                return forward(real, taps)
            outputs, vjp, probes = jax.vjp(forward, real, taps, has_aux=True)
            return outputs, probes, *vjp(cotangents)

        return program

    def _twin(self, inputs: dict[str, Any], case: Case) -> dict[str, Any]:
        """What the twin returns, held against what the pair declares."""

        def error(message: str) -> ValueError:
            return ValueError(f"pair {self.pair.name!r}: twin: {message} (case {case})")

        try:
            arrays = {name: jnp.asarray(value) for name, value in inputs.items()}
            returned = self.pair.twin(arrays, **case.options)
        except (Exception, SystemExit) as problem:
            raise error(f"raised {raised.in_words(problem)}") from problem
        shapes = {**self.pair.outputs, **self.pair.probes}
        names = sorted(returned) if isinstance(returned, dict) else type(returned).__name__
        if names != sorted(shapes):
            raise error(f"expected a dict of {sorted(shapes)}, got {names}")
        for name, text in shapes.items():
            wanted, got = Shape(text).sized(case.sizes), jnp.shape(returned[name])
            if got != wanted:
                raise error(f"{name}: expected shape {wanted} ({text}), got {got}")
            if (kind := jnp.result_type(returned[name])) != jnp.float64:
                raise error(f"{name}: expected float64, as the inputs are, got {kind}")
        return returned

    def _find_unread_taps(self, case: Case, arguments: tuple[dict[str, Array], ...]) -> None:
        real, other, taps, _ = arguments
        closed = jax.make_jaxpr(lambda taps: self._twin({**real, **other, **taps}, case))(taps)
        used = {a for eqn in closed.jaxpr.eqns for a in eqn.invars if not hasattr(a, "val")}
        used |= {a for a in closed.jaxpr.outvars if not hasattr(a, "val")}
        tapped = zip(sorted(taps), closed.jaxpr.invars, strict=True)
        self.unread_taps -= {name for name, var in tapped if var in used}


def _first(arguments: tuple[dict[str, Array], ...]) -> tuple[dict[str, Array], ...]:
    """The arguments of the first case."""
    return tuple({name: a[0] for name, a in group.items()} for group in arguments)


def _of_few_digits(a: Array) -> bool:
    return bool((a * 16 == np.rint(a * 16)).all())
