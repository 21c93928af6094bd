"""The other checkers, run as their users run them: the neighbours in the kill matrix.

Each takes a pair and a seed and says whether it accepts the pair's backward. All see the same kind
of problem, one for each combination of the pair's options (for the rnn, for each activation): a
small shape with all sizes different, T=5 B=2 D=3 H=4, and everything normal, the initial state and
the cotangents too, unless the peer's own rule says otherwise; recurrent matrices are divided by √H,
so that the carry neither explodes nor dies. gradcheck and check_grads get every output, and
differentiate with respect to every float input, the initial state among them. So a peer misses a
mistake for its rule, or for the one shape and scale at which it is asked: what is wrong only when
D = H is there for any of them to see, at such a shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np

from bptt_verify.draw import Array, Case, Drawn, realise
from bptt_verify.pair import Pair
from bptt_verify.shapes import Shape

Outcome = Literal["killed", "survived", "not installed", "does not apply"]
Dtype = Literal["float32", "float64"]

SIZES = {"T": 5, "B": 2, "D": 3, "H": 4}
"""A letter that is not here has size 3."""


class Peer(NamedTuple):
    """Another checker: `accepts(pair, seed)`; None when it has nothing to look at there."""

    name: str
    accepts: Callable[[Pair, int], bool | None]
    needs: str | None = None
    """The module it cannot run without."""

    def judge(self, pair: Pair, seed: int) -> Outcome:
        """What becomes of the pair's backward; one that raises is killed."""
        if self.needs is not None and find_spec(self.needs) is None:
            return "not installed"
        try:
            accepted = self.accepts(pair, seed)
        except Exception:  # whatever stops the user's test shows him the mistake
            return "killed"
        if accepted is None:
            return "does not apply"
        return "survived" if accepted else "killed"


# --- finite differences


def torch_gradcheck(pair: Pair, seed: int, *, fast_mode: bool = False) -> bool:
    """torch.autograd.gradcheck, its defaults: eps 1e-6, atol 1e-5, rtol 1e-3; float64."""
    return all(gradcheck_case(pair, *p, fast_mode) for p in problems(pair, seed, "float64"))


def gradcheck_case(pair: Pair, case: Case, drawn: Drawn, fast_mode: bool) -> bool:
    """The same for one case."""
    import torch

    names = list(pair.differentiable)

    class Subject(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, *values: Any) -> Any:
            given = {n: v.detach().numpy() for n, v in zip(names, values, strict=True)}
            outputs, ctx.kept = pair.forward({**drawn.inputs, **given}, **case.options)
            return tuple(torch.tensor(outputs[n]) for n in pair.outputs)

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            given = {n: c.numpy() for n, c in zip(pair.outputs, cotangents, strict=True)}
            found = backward(pair, ctx.kept, given)
            return tuple(torch.from_numpy(np.ascontiguousarray(found[n])) for n in names)

    leaves = [torch.tensor(drawn.inputs[n], requires_grad=True) for n in names]
    return torch.autograd.gradcheck(
        Subject.apply, leaves, fast_mode=fast_mode, raise_exception=False
    )


def torch_gradcheck_fast(pair: Pair, seed: int) -> bool:
    """The same with fast_mode=True: one random direction."""
    return torch_gradcheck(pair, seed, fast_mode=True)


def jax_check_grads(pair: Pair, seed: int, dtype: Dtype = "float64") -> bool:
    """jax.test_util.check_grads, order 1, reverse mode, its defaults: eps 1e-4, one direction.

    Tolerance 1e-5 in float64 and 2e-3 in float32.
    """
    return all(check_grads_case(pair, *p, dtype) for p in problems(pair, seed, dtype))


def check_grads_case(pair: Pair, case: Case, drawn: Drawn, dtype: Dtype) -> bool:
    """The same for one case; raises when it objects."""
    names = list(pair.differentiable)
    struct: Any = jax.ShapeDtypeStruct
    outputs = {n: struct(c.shape, dtype) for n, c in drawn.cotangents.items()}
    inputs = {n: struct(drawn.inputs[n].shape, dtype) for n in names}

    def run(values: Any) -> tuple[dict[str, Array], Any]:
        given = {n: np.asarray(v) for n, v in values.items()}
        found, cache = pair.forward({**drawn.inputs, **given}, **case.options)
        return {n: found[n] for n in pair.outputs}, cache

    def pull(values: Any, cotangents: Any) -> dict[str, Array]:
        given = {n: np.asarray(c) for n, c in cotangents.items()}
        found = backward(pair, run(values)[1], given)
        return {n: found[n] for n in names}

    @jax.custom_vjp
    def subject(values: Any) -> Any:
        return jax.pure_callback(lambda v: run(v)[0], outputs, values)

    def bwd(values: Any, cotangents: Any) -> Any:
        return (jax.pure_callback(pull, inputs, values, cotangents),)

    subject.defvjp(lambda values: (subject(values), values), bwd)
    check: Any = jax.test_util.check_grads  # raises when it objects
    with jax.enable_x64(dtype == "float64"):
        check(subject, ({n: jnp.asarray(drawn.inputs[n]) for n in names},), 1, modes=("rev",))
    return True


def jax_check_grads_float32(pair: Pair, seed: int) -> bool:
    """The same in float32, JAX's default."""
    return jax_check_grads(pair, seed, "float32")


# --- a second implementation: the twin's gradients stand for it


def torch_assert_close(pair: Pair, seed: int) -> bool:
    """float32 against the jitted twin in float32, by torch.testing.assert_close as it comes.

    rtol 1.3e-6, atol 1e-5.
    """
    import torch

    for case, drawn in problems(pair, seed, "float32"):
        wanted = twin_gradients(pair, case, drawn, "float32")
        for name, got in subject_gradients(pair, case, drawn).items():
            torch.testing.assert_close(
                torch.from_numpy(np.ascontiguousarray(got)), torch.tensor(wanted[name])
            )
    return True


def fla(pair: Pair, seed: int) -> bool:
    """fla-org/flash-linear-attention, fla/utils.py, assert_close: RMS error / RMS below 0.005.

    As in its tests/ops/test_hgrn.py: a normal initial state, cotangents for the states and for the
    last one. Its laxer setting for CI is not used.
    """
    for case, drawn in problems(pair, seed, "float32"):
        wanted = twin_gradients(pair, case, drawn)
        for name, got in subject_gradients(pair, case, drawn).items():
            error = got - wanted[name]
            if np.abs(error).max() <= 1e-6:
                continue
            if not _rms(error) / (_rms(wanted[name]) + 1e-8) < 0.005:
                return False
    return True


def flashrnn(pair: Pair, seed: int) -> bool:
    """NX-AI/flashrnn, flashrnn/tests/utils.py and test_elman.py: allclose, atol 0.1 and rtol 0.2.

    The initial state is zero and its gradient is set to 0 before the comparison; the loss is of the
    states, with normal cotangents, without the last one besides. Most of its cases have one or
    three steps; here it gets five.
    """
    for case, drawn in problems(pair, seed, "float32", zero_states=True):
        drawn = _loss_of_sequences(pair, drawn)
        wanted = twin_gradients(pair, case, drawn)
        for name, got in subject_gradients(pair, case, drawn).items():
            if name not in pair.states and not np.allclose(got, wanted[name], rtol=0.2, atol=0.1):
                return False
    return True


def haste(pair: Pair, seed: int) -> bool | None:
    """lmnt-com/haste, validation/pytorch.py: the largest difference of dx, cotangent all ones.

    No initial state is given. It prints the difference and asserts nothing; here more than 1e-3 is
    taken for a failure.
    """
    sequences = [n for n, shape in pair.differentiable.items() if pair.time in shape.split()]
    if not sequences:
        return None
    for case, drawn in problems(pair, seed, "float32", zero_states=True):
        drawn = _loss_of_sequences(pair, drawn, ones=True)
        wanted = twin_gradients(pair, case, drawn)
        found = subject_gradients(pair, case, drawn)
        if not all(np.abs(found[n] - wanted[n]).max() <= 1e-3 for n in sequences):
            return False
    return True


PEERS = (
    Peer("gradcheck", torch_gradcheck, "torch"),
    Peer("gradcheck fast", torch_gradcheck_fast, "torch"),
    Peer("check_grads f64", jax_check_grads),
    Peer("check_grads f32", jax_check_grads_float32),
    Peer("assert_close", torch_assert_close, "torch"),
    Peer("fla", fla),
    Peer("flashrnn", flashrnn),
    Peer("haste", haste),
)


# --- what they share


def problems(
    pair: Pair, seed: int, dtype: Dtype, *, zero_states: bool = False
) -> Iterator[tuple[Case, Drawn]]:
    """One normal problem of the usual size for each combination of the pair's options."""
    sizes = {letter: SIZES.get(letter, 3) for letter in pair.letters()}
    fills = dict.fromkeys([*pair.floats, *(f"d{n}" for n in pair.outputs)], "normal:0")
    if zero_states:
        fills |= dict.fromkeys(pair.states, "zeros")
    for i, values in enumerate(itertools.product(*pair.options.values())):
        case = Case(sizes, dict(zip(pair.options, values, strict=True)), fills, seed + i)
        yield case, realise(pair, case, np.dtype(dtype))


def subject_gradients(pair: Pair, case: Case, drawn: Drawn) -> dict[str, Array]:
    """The subject's gradients."""
    inputs = {k: v.copy() for k, v in drawn.inputs.items()}
    _, cache = pair.forward(inputs, **case.options)
    found = backward(pair, cache, {k: v.copy() for k, v in drawn.cotangents.items()})
    return {n: found[n] for n in pair.differentiable}


def twin_gradients(
    pair: Pair, case: Case, drawn: Drawn, dtype: Dtype = "float64"
) -> dict[str, Array]:
    """The twin's gradients, compiled by XLA; those in float64 are exact for a float32 subject."""

    def cast(arrays: dict[str, Array]) -> dict[str, Array]:
        return {k: v if v.dtype.kind in "iub" else v.astype(dtype) for k, v in arrays.items()}

    taps = {k: np.zeros(Shape(s).sized(case.sizes), dtype) for k, s in pair.taps.items()}
    everything = cast(drawn.inputs)
    real = {n: everything.pop(n) for n in pair.differentiable}
    with jax.enable_x64(dtype == "float64"):
        pull = _pullback(pair.twin, tuple(pair.outputs), tuple(case.options.items()))
        found = pull(real, everything | taps, cast(drawn.cotangents))
        return {n: np.asarray(g) for n, g in found.items()}


@lru_cache(maxsize=64)
def _pullback(twin: Any, outputs: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    """Compiled once for a twin, however many subjects are held against it."""

    def gradients(real: Any, other: Any, cotangents: Any) -> Any:
        def forward(real: Any) -> Any:
            found = twin({**other, **real}, **dict(options))
            return {n: found[n] for n in outputs}

        return jax.vjp(forward, real)[1](cotangents)[0]

    return jax.jit(gradients)


def backward(pair: Pair, cache: Any, cotangents: dict[str, Array]) -> dict[str, Array]:
    """The subject's backward; the pair has to have one."""
    assert pair.backward is not None, f"{pair.name} has no backward"
    return dict(pair.backward(cache, cotangents))


def _loss_of_sequences(pair: Pair, drawn: Drawn, *, ones: bool = False) -> Drawn:
    """Cotangents for outputs that run over time only, all ones if so asked."""
    kept = {
        n: (np.ones_like(c) if ones else c)
        if pair.time in pair.outputs[n].split()
        else np.zeros_like(c)
        for n, c in drawn.cotangents.items()
    }
    return replace(drawn, cotangents=kept)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
