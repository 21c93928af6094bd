"""What hidden units and signs may be exchanged for."""

from __future__ import annotations

from functools import partial

from bptt_verify.pair import Odd, Pair
from bptt_verify.properties.trial import (
    Found,
    NothingSaid,
    Property,
    Trial,
    agree,
    axis,
    input_shapes,
    is_indexed,
    take,
)


def _has_units(pair: Pair) -> bool:
    shapes = input_shapes(pair).values()
    used = any(axis(shape, pair.hidden) is not None for shape in shapes)
    return used and not is_indexed(pair, pair.hidden)


def _hidden_permutation(t: Trial) -> Found:
    hidden, shapes = str(t.pair.hidden), t.pair.shapes()
    order = t.rng().permutation(t.several(hidden))
    got = yield from t.bands(*t.taken(hidden, order))
    for name in got:
        moved = partial(take, shape=shapes[name], letter=hidden, index=order)
        yield name, agree(got[name], t.base[name].each(moved))


def _sign_flip(t: Trial) -> Found:
    odd = t.pair.odd or Odd(())
    if any(t.case.options[option] != value for option, value in odd.options.items()):
        raise NothingSaid
    flipped = {name: -a if name in odd.inputs else a for name, a in t.drawn.inputs.items()}
    got = yield from t.bands(flipped, t.drawn.cotangents)
    for name in t.pair.outputs:
        yield name, agree(got[name], -t.base[name])
    # y(Fθ) = -y(θ) with F the change of sign, so F ∇L(Fθ) = -∇L(θ)
    for name in t.pair.differentiable:
        band = t.base[f"d{name}"]
        yield f"d{name}", agree(got[f"d{name}"], band if name in odd.inputs else -band)


PROPERTIES = (
    Property(
        "hidden permutation",
        "hidden units in another order give the same in that order",
        _has_units,
        _hidden_permutation,
    ),
    Property(
        "tanh sign flip",
        "the inputs declared odd with their sign changed change the sign of every output",
        lambda pair: pair.odd is not None,
        _sign_flip,
    ),
)
