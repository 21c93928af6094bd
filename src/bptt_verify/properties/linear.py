"""A backward pass is linear in the cotangents, and the adjoint of the forward derivative."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verify.pair import Pair
from bptt_verify.properties.trial import (
    Band,
    Found,
    NothingSaid,
    Property,
    Trial,
    agree,
    exact,
    in_float64,
    without_taps,
)
from bptt_verify.tolerance import multiplier


def _has_gradients(pair: Pair) -> bool:
    return pair.backward is not None


def _additive(t: Trial) -> Found:
    rng, cotangents = t.rng(), t.drawn.cotangents
    # whole entries, so that the two parts add up exactly
    one = {
        n: np.where(rng.random(d.shape) < 0.5, d, np.zeros_like(d)) for n, d in cotangents.items()
    }
    other = {n: d - one[n] for n, d in cotangents.items()}
    parts = yield from t.bands_of([(t.drawn.inputs, part) for part in (one, other)])
    for name in t.gradients:
        yield name, agree(t.base[name], parts[0][name] + parts[1][name])


def _zero_to_zero(t: Trial) -> Found:
    nothing = {n: np.zeros_like(d) for n, d in t.drawn.cotangents.items()}
    got = t.run(t.drawn.inputs, nothing)
    for name in t.gradients:
        yield name, agree(exact(got[name]), exact(np.zeros_like(got[name])))


def _powers_of_two(t: Trial) -> Found:
    factor = float(2.0 ** t.rng().choice([-3, -1, 1, 3]))
    with np.errstate(all="ignore"):
        scaled = {n: d * factor for n, d in t.drawn.cotangents.items()}
        if any((scaled[n] / factor != d).any() for n, d in t.drawn.cotangents.items()):
            raise NothingSaid  # a cotangent left the range
    before, after = t.answer, (yield from t.expected(t.drawn.inputs, scaled))
    if before.out_of_range or after.out_of_range:
        raise NothingSaid
    got = t.run(t.drawn.inputs, scaled)
    for name in t.gradients:
        # The same noise on scaled values gives a scaled σ, unless values became so small on the
        # way that their rounding is absolute: there the subject need not scale exactly either.
        # A σ larger than the value would hide that, and one that is itself subnormal.
        (value, sigma), sigma_after = before.quantities[name], after.quantities[name].sigma
        scales = (sigma_after == factor * sigma) & (multiplier(t.dtype) * sigma <= np.abs(value))
        scales &= (sigma == 0) | (np.minimum(sigma, sigma_after) >= np.finfo(np.float64).tiny)
        if scales.any():
            with np.errstate(over="ignore"):  # a wrong gradient may be of any size
                wanted = factor * t.ran[name].astype(np.float64)
            yield name, agree(exact(np.where(scales, got[name], wanted)), exact(wanted))


def _adjoint(t: Trial) -> Found:
    pair, base = t.pair, t.base
    inputs = without_taps(t)
    real = {name: inputs.pop(name) for name in pair.differentiable}
    # of a size that makes every input count the same; and products with powers of two are exact
    rng = t.rng()
    direction = {
        name: np.ldexp(rng.choice([-1.0, 1.0], a.shape), -_exponent(t, name))
        for name, a in real.items()
    }

    def change(real: Any, direction: Any, cotangents: Any) -> Any:
        def forward(real: Any) -> Any:
            everything = pair.twin({**inputs, **real}, **t.case.options)
            return {name: everything[name] for name in pair.outputs}

        _, changes = jax.jvp(forward, (real,), (direction,))
        return sum(jnp.vdot(d, changes[name]) for name, d in cotangents.items())

    cotangents = in_float64(t.drawn.cotangents)
    (wanted,) = t.evaluate("jax.jvp of the twin", change, real, direction, cotangents)
    with np.errstate(over="ignore"):
        products = [(base[f"d{name}"].value * v).ravel() for name, v in direction.items()]
        slack = [(base[f"d{name}"].tolerance * np.abs(v)).sum() for name, v in direction.items()]
    got = Band(np.array(_sum(np.concatenate(products))), np.array(sum(slack)))
    yield "⟨gradient, v⟩", agree(got, wanted)


def _exponent(t: Trial, name: str) -> int:
    """The exponent of the largest entry of a gradient, within half the range: J v needs room."""
    largest = np.abs(t.answer.quantities[f"d{name}"].value).max()
    return max(int(np.frexp(largest)[1]), np.finfo(np.float64).minexp // 2)


def _sum(terms: Any) -> float:
    return math.fsum(terms) if np.isfinite(terms).all() else math.nan


PROPERTIES = (
    Property(
        "linear: additive",
        "the gradients of two parts of the cotangents add up to the gradients of the whole",
        _has_gradients,
        _additive,
    ),
    Property(
        "linear: zero to zero",
        "zero cotangents give gradients of exactly zero",
        _has_gradients,
        _zero_to_zero,
    ),
    Property(
        "linear: powers of two",
        "cotangents times a power of two give the gradients times it, bit for bit",
        _has_gradients,
        _powers_of_two,
    ),
    Property(
        "adjoint of jax.jvp",
        "⟨cotangent, J v⟩ = ⟨gradient, v⟩, where J v is the twin's forward derivative",
        _has_gradients,
        _adjoint,
    ),
)
