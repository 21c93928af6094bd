"""The same call in another form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bptt_verify.compare import Comparison
from bptt_verify.properties.trial import Array, Arrays, Found, Property, Trial, agree, exact


def _reversed(a: Array) -> Array:
    return np.flip(np.flip(a).copy())


def _read_only(a: Array) -> Array:
    a = a.view()
    a.flags.writeable = False
    return a


def _zero_stride(a: Array) -> Array:
    """Stride zero on every axis along which all entries are the same; read-only."""
    for i in range(a.ndim):
        first = a[(*(slice(None),) * i, slice(1))]
        if (a == first).all():
            a = np.broadcast_to(first, a.shape)
    return _read_only(a)


LAYOUTS: tuple[Callable[[Array], Array], ...] = (
    np.asfortranarray,
    _reversed,
    _zero_stride,
    _read_only,
)


def _strides(t: Trial) -> Found:
    rng, pair, base = t.rng(), t.pair, t.base

    def laid_out(arrays: Arrays) -> Arrays:
        return {
            name: LAYOUTS[rng.integers(len(LAYOUTS))](a) if a.ndim else a
            for name, a in arrays.items()
        }

    backward: Any = pair.backward
    strided = replace(
        pair,
        forward=lambda i, **options: pair.forward(laid_out(i), **options),
        backward=backward and (lambda cache, d: backward(cache, laid_out(d))),
    )
    got = replace(t, pair=strided).attempt(*t.base_point)
    if isinstance(got, str):
        yield "strided arrays", Comparison(np.inf, got)
        return
    for name, band in t.around(got, t.answer).items():
        yield name, agree(band, base[name])


def _absent(t: Trial) -> Found:
    rng, names = t.rng(), sorted(t.pair.optional)
    left_out = set(rng.choice(names, rng.integers(1, len(names) + 1), replace=False))
    inputs, cotangents = t.base_point
    zeros = {n: np.zeros_like(d) if n in left_out else d for n, d in cotangents.items()}
    wanted = t.run(inputs, zeros)

    backward: Any = t.pair.backward
    leaving_out = replace(
        t.pair,
        backward=lambda cache, d: backward(cache, {**d, **dict.fromkeys(left_out)}),
    )
    got = replace(t, pair=leaving_out).attempt(inputs, zeros)
    if isinstance(got, str):
        yield f"without {', '.join(sorted(left_out))}", Comparison(np.inf, got)
        return
    for name in t.gradients:
        yield name, agree(exact(got[name]), exact(wanted[name]))


PROPERTIES = (
    Property(
        "strides",
        "inputs and cotangents in another memory layout, or read-only, give the same",
        lambda pair: True,
        _strides,
    ),
    Property(
        "absent cotangent",
        "None for a cotangent that is optional gives exactly what zeros give",
        lambda pair: bool(pair.optional),
        _absent,
    ),
)
