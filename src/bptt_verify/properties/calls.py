"""The same call in another form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bptt_verify.compare import Comparison
from bptt_verify.properties.trial import (
    Array,
    Arrays,
    Found,
    NothingSaid,
    Property,
    Trial,
    agree,
    exact,
)


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
    pair, base = t.pair, t.base
    backward: Any = pair.backward
    for layout in LAYOUTS:

        def laid_out(arrays: Arrays, layout: Callable[[Array], Array] = layout) -> Arrays:
            return {name: layout(a) if a.ndim else a for name, a in arrays.items()}

        strided = replace(
            pair,
            forward=lambda i, laid_out=laid_out, **options: pair.forward(laid_out(i), **options),
            backward=backward
            and (lambda cache, d, laid_out=laid_out: backward(cache, laid_out(d))),
        )
        got = replace(t, pair=strided).attempt(*t.base_point)
        if isinstance(got, str):
            yield "strided arrays", Comparison(np.inf, got)
            return
        for name, band in t.around(got, t.answer).items():
            yield name, agree(band, base[name])


def _again(t: Trial) -> Found:
    backward: Any = t.pair.backward

    def twice(cache: Any, d: Arrays) -> Any:
        backward(cache, {name: a.copy() for name, a in d.items()})
        return backward(cache, d)

    once = t.ran
    got = replace(t, pair=replace(t.pair, backward=twice)).attempt(*t.base_point)
    if isinstance(got, str):
        yield "the second time", Comparison(np.inf, got)
        return
    for name in t.gradients:
        yield name, agree(exact(got[name]), exact(once[name]))


def _stays(t: Trial) -> Found:
    kept: list[Arrays] = []
    backward: Any = t.pair.backward

    def keeping(cache: Any, d: Arrays) -> Any:
        kept.append(backward(cache, d))
        return kept[-1]

    wanted = replace(t, pair=replace(t.pair, backward=keeping)).run(*t.base_point)
    if not kept:  # it ran in another process
        raise NothingSaid
    other = t.fresh()
    t.run(other.inputs, other.cotangents)
    keys = {f"d{name}": name for name in t.pair.differentiable}
    for name in t.gradients:
        stayed = np.array(kept[-1][keys.get(name, name)])
        yield name, agree(exact(stayed), exact(wanted[name]))


def _absent(t: Trial) -> Found:
    names = frozenset(t.pair.optional)
    inputs, cotangents = t.base_point
    backward: Any = t.pair.backward
    alone = [frozenset({n}) for n in sorted(names)]
    # each by itself, each as the only one that is there, and all of them
    for left_out in dict.fromkeys([*alone, *(names - n for n in alone if names - n), names]):
        zeros = {n: np.zeros_like(d) if n in left_out else d for n, d in cotangents.items()}
        wanted = t.run(inputs, zeros)
        leaving_out = replace(
            t.pair,
            backward=lambda cache, d, absent=left_out: backward(
                cache, {**d, **dict.fromkeys(absent)}
            ),
        )
        got = replace(t, pair=leaving_out).attempt(inputs, zeros)
        without = f"without {', '.join(sorted(left_out))}"
        if isinstance(got, str):
            yield without, Comparison(np.inf, got)
            return
        for name in t.gradients:
            yield f"{name} {without}", agree(exact(got[name]), exact(wanted[name]))


PROPERTIES = (
    Property(
        "strides",
        "inputs and cotangents in another memory layout, or read-only, give the same",
        lambda pair: True,
        _strides,
    ),
    Property(
        "backward again",
        "backward may be called twice for one forward, and gives the same",
        lambda pair: pair.backward is not None,
        _again,
    ),
    Property(
        "results stay",
        "what backward returned is left alone by later calls",
        lambda pair: pair.backward is not None,
        _stays,
    ),
    Property(
        "absent cotangent",
        "None for a cotangent that is optional gives exactly what zeros give",
        lambda pair: bool(pair.optional),
        _absent,
    ),
)
