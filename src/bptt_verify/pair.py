"""A subject and its twin: what `verify` holds against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bptt_verify.shapes import Shape, letters


@dataclass(frozen=True)
class Index:
    """An input of class indices in [0, size of the letter `below`); it has no gradient.

    `below` stands in the shape of some input, a table of that many rows say; or it is a number.
    With `missing`, some entries are -1.
    """

    shape: str
    below: str
    missing: bool = False


@dataclass(frozen=True)
class Mask:
    """An input of booleans; it has no gradient."""

    shape: str


@dataclass(frozen=True)
class Probability:
    """An input of floats >= 0 that sum to 1 over the last axis; it gets no gradient here."""

    shape: str


@dataclass(frozen=True)
class Odd:
    """Inputs whose joint change of sign changes the sign of every output.

    `options` are the values of options for which that holds, such as `{"activation": "tanh"}`.
    """

    inputs: Collection[str]
    options: Mapping[str, Any] = field(default_factory=dict)


Input = str | Index | Mask | Probability


@dataclass(frozen=True)
class Equation:
    """Where a quantity stands in a derivation: its number, the article's step, and its formula."""

    number: int
    step: int
    """0 in a derivation that has no such steps."""
    formula: str
    of: str = ""
    """Whose derivation it is: the name of a cell; empty for the article's."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A hand-written backward pass (the subject) and a JAX forward pass (the twin).

    Args:
        name: what the report calls it.
        inputs: shape by letter of every input that has a gradient, such as `{"x": "T B D"}`; or
            `Index`, `Mask`, `Probability` for inputs that have none.
        outputs: shape by letter of every output. Each gets a random cotangent.
        forward: the subject: `forward(inputs, **options) -> (outputs, cache)`, dicts of
            `numpy.ndarray` of the dtype under test.
        backward: the subject: `backward(cache, cotangents) -> gradients`, a dict with the keys of
            the inputs that have a gradient, and of any taps. None when there is nothing to derive.
        twin: `twin(inputs, **options) -> outputs`, the same forward in plain `jax.numpy` and
            `jax.lax`. No gradient formula.
        taps: shape by letter of intermediate cotangents that localise a fault, such as
            `{"delta": "T B H"}`. The twin adds `inputs["delta"]`, which is zero, to the value whose
            cotangent it is; the subject's `backward` returns it.
        probes: shape by letter of intermediate values; both forwards return them with the outputs,
            and they get no cotangent.
        options: for each keyword of `forward` and `twin`, the values to draw from.
        equations: for a quantity ("s", "dW", "delta") its place in the derivation.
        states: for each input that is a state before the first step, the output or probe that holds
            that state after each step, such as `{"s0": "s"}`; then steps can be looked at one by
            one.
        time, batch, hidden: the letters that count steps, sequences and hidden units; None when
            the pair has no such axis.
        untied: `twin` with weights of their own at every step: every float input without the
            letters of time and batch has a leading axis of time.
        odd: inputs whose joint change of sign changes the sign of every output.
        optional: outputs whose cotangent may be absent: `backward` then gets None for it.
        without: names of properties (`bptt_verify.properties`) that do not apply to this pair.
        origin: how a command names this pair; set by what loads it.

    Raises `ValueError` for a shape that cannot be read, for a name used twice, and for a letter
    that no input has.
    """

    name: str
    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]
    forward: Callable[..., Any]
    twin: Callable[..., Any]
    backward: Callable[..., Any] | None = None
    taps: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    equations: Mapping[str, Equation] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    time: str | None = "T"
    batch: str | None = "B"
    hidden: str | None = "H"
    untied: Callable[..., Any] | None = None
    odd: Odd | None = None
    optional: Collection[str] = ()
    without: Collection[str] = ()
    origin: str | None = None

    def __post_init__(self) -> None:
        def error(message: str) -> ValueError:
            return ValueError(f"pair {self.name!r}: {message}")

        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"pair: name: expected words, got {self.name!r}")
        for what, function in (("forward", self.forward), ("twin", self.twin)):
            if not callable(function):
                raise error(f"{what}: expected a function, got {type(function).__name__}")
        if self.backward is not None and not callable(self.backward):
            raise error(f"backward: expected a function, got {type(self.backward).__name__}")
        self._check_shapes(error)
        names = [*self.inputs, *self.taps]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise error(f"{', '.join(sorted(twice))}: an input and a tap have the same name")
        quantities = self.quantities()
        twice = {q for q in quantities if quantities.count(q) > 1}
        if twice:
            raise error(f"{', '.join(sorted(twice))}: two quantities would have this name")
        cotangents = {f"d{name}" for name in self.outputs} if self.backward else set()
        clash = cotangents & set(self.inputs)
        if clash:
            raise error(f"{', '.join(sorted(clash))}: also the name of an output's cotangent")
        unknown = set(self.equations) - set(quantities)
        if unknown:
            raise error(f"equations: no quantity {', '.join(sorted(unknown))} in {quantities}")
        out = [*self.outputs.values(), *self.probes.values(), *self.taps.values()]
        words = [*self.letters(), *self.options, *self.floats, *sorted(cotangents), "seed"]
        twice = {w for w in words if words.count(w) > 1}
        if twice:
            raise error(
                f"{', '.join(sorted(twice))}: two of letter, option, input, seed: rename one"
            )
        for option, values in self.options.items():
            if len({str(v) for v in values}) != len(values) or not values:
                raise error(
                    f"option {option!r}: expected values that print differently, got {values}"
                )
        for state, after in self.states.items():
            shapes = {**self.outputs, **self.probes}
            if state not in self.floats:
                raise error(f"states: expected inputs of floats as keys, got {state!r}")
            if after not in shapes or shapes[after].split() != [
                str(self.time),
                *self.floats[state].split(),
            ]:
                raise error(
                    f"states[{state!r}]: expected an output or probe of shape "
                    f"'{self.time} {self.floats[state]}', got {after!r}"
                )
        for what, given in (("optional", self.optional), ("without", self.without)):
            if isinstance(given, str):
                raise error(f"{what}: expected a collection of names, got {given!r}")
        unknown = set(self.optional) - (set(self.outputs) if self.backward else set())
        if unknown:
            raise error(f"optional: no output {', '.join(sorted(unknown))} with a cotangent")
        if self.odd is not None:
            unknown = set(self.odd.inputs) - set(self.floats)
            if unknown or isinstance(self.odd.inputs, str):
                raise error(f"odd: expected inputs of floats, got {self.odd.inputs!r}")
            for option, value in self.odd.options.items():
                if value not in self.options.get(option, ()):
                    raise error(f"odd: no option {option!r} with the value {value!r}")
        free = set(letters(map(Shape, out))) - set(self.letters())
        if free:
            raise error(f"letter {', '.join(sorted(free))}: no input has it, so it has no size")
        for name, spec in self.inputs.items():
            if isinstance(spec, Index) and set(Shape(spec.below).letters) - set(self.letters()):
                wanted = "a number, or a letter in the shape of an input"
                raise error(f"inputs[{name!r}]: below: expected {wanted}, got {spec.below!r}")

    def _check_shapes(self, error: Callable[[str], ValueError]) -> None:
        """Raise where a shape is none, before anything reads it."""
        without_gradient = (Index, Mask, Probability)
        for what in ("inputs", "outputs", "taps", "probes", "options", "states", "equations"):
            given = getattr(self, what)
            if not isinstance(given, Mapping):
                raise error(f"{what}: expected a dict, got {type(given).__name__}")
        for option, values in self.options.items():
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise error(f"options[{option!r}]: expected a list of values, got {values!r}")
        for name, spec in self.inputs.items():
            if isinstance(spec, Index) and not isinstance(spec.below, str):
                raise error(f"inputs[{name!r}]: below: expected a letter, got {spec.below!r}")
            if isinstance(spec, Probability) and not str(spec.shape).split():
                raise error(f"inputs[{name!r}]: expected an axis to sum to 1 over, got none")
        for what in ("inputs", "outputs", "taps", "probes"):
            for name, spec in getattr(self, what).items():
                bare = spec.shape if isinstance(spec, without_gradient) else spec
                if not isinstance(bare, str) or (bare is not spec and what != "inputs"):
                    wanted = "a shape in letters such as 'T B H'"
                    raise error(f"{what}[{name!r}]: expected {wanted}, got {spec!r}")

    @property
    def differentiable(self) -> dict[str, str]:
        """The inputs that have a gradient, with their shapes."""
        if self.backward is None:
            return {}
        return self.floats

    @property
    def floats(self) -> dict[str, str]:
        """The inputs of real numbers, with their shapes."""
        return {name: spec for name, spec in self.inputs.items() if isinstance(spec, str)}

    def quantities(self) -> list[str]:
        """What a report has a row for, causes before effects.

        Probes and outputs, then taps, then gradients ("d" + input).
        """
        gradients = [f"d{name}" for name in self.differentiable]
        return [*self.probes, *self.outputs, *self._taps, *gradients]

    def shapes(self) -> dict[str, str]:
        """The shape of each quantity, by letter."""
        gradients = {f"d{name}": text for name, text in self.differentiable.items()}
        return {**self.probes, **self.outputs, **self._taps, **gradients}

    @property
    def _taps(self) -> Mapping[str, str]:
        return {} if self.backward is None else self.taps

    def letters(self) -> list[str]:
        """The letters that need a size: those of the inputs."""
        specs = self.inputs.values()
        return letters(Shape(spec if isinstance(spec, str) else spec.shape) for spec in specs)
