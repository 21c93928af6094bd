"""Wrong backwards for what is made of cells: layers, directions, lengths, zoneout, truncation."""

from __future__ import annotations

from types import ModuleType

import manual_bptt.bidirectional
import manual_bptt.ragged
import manual_bptt.stack
import manual_bptt.truncated
import manual_bptt.zoneout
from bptt_verify.mutants.mutant import Builder, Mutant
from bptt_verify.pair import Pair
from bptt_verify.pairs import (
    CELLS,
    bidirectional_pair,
    chunked_pair,
    ragged_pair,
    stack_pair,
    windowed_pair,
    zoneout_pair,
)

# The lines that are right: of `manual_bptt.stack`,
BELOW = "below = found.x if mask is None else mask * found.x"
DY = "dy = below + dy if residual and at else below"
ENDS = 'ends = each_state(cell, f"dlast[{at}]", dlast[at])'
# `manual_bptt.bidirectional`,
HALVES = "one, two = dy[..., :N], ragged.reversed_within(dy[..., N:], lengths)"
DX = "first.x + ragged.reversed_within(second.x, lengths)"
# `manual_bptt.ragged`,
CARRIED = 'carried[n] = shapes.cotangents(f"dlast[{n}]", carried[n], "B N", s)[order]'
ENDS_NOW = "ends = [d[:alive] for d in carried]"
WEIGHTS = "total[name] = g if name not in total or g is None else total[name] + g"
# `manual_bptt.zoneout`,
NEW = "new = [((1 - k[t]) * d)[None] for k, d in zip(kept, ds, strict=True)]"
REACHED = "reached = [k[t] * d + c for k, d, c in zip(kept, ds, carried, strict=True)]"
# and `manual_bptt.truncated`
WINDOW = 'k = _door.size("window", window)'
CHUNK = 'k = _door.size("chunk", chunk)'
START = "grads[name] = g.reshape(T, B, -1)[first == 0].sum(axis=0)"
STEPS = "total[first[t] + j] += parts[j, t]"
LAST = "d[-1] += d_last"
CUT = "ends = none if behind is not None else last"
BEGIN = "begin = {name: getattr(pieces[0], name) for name in starts(cell)}"


def _stack(layer: ModuleType) -> Pair:
    return stack_pair(CELLS["lstm"], CELLS["gru"], layer=layer)


def _bidirectional(layer: ModuleType) -> Pair:
    return bidirectional_pair(CELLS["gru"], layer)


def _ragged(layer: ModuleType) -> Pair:
    return ragged_pair(CELLS["gru"], layer)


def _zoneout(layer: ModuleType) -> Pair:
    return zoneout_pair(CELLS["gru"], layer)


def _windowed(layer: ModuleType) -> Pair:
    return windowed_pair(CELLS["gru"], layer)


def _chunked(layer: ModuleType) -> Pair:
    return chunked_pair(CELLS["gru"], layer)


OF: dict[str, tuple[ModuleType, Builder]] = {
    "stack": (manual_bptt.stack, _stack),
    "bidirectional": (manual_bptt.bidirectional, _bidirectional),
    "ragged": (manual_bptt.ragged, _ragged),
    "zoneout": (manual_bptt.zoneout, _zoneout),
    "windowed": (manual_bptt.truncated, _windowed),
    "chunked": (manual_bptt.truncated, _chunked),
}


def _mutant(kind: str, name: str, what: str, right: str, wrong: str) -> Mutant:
    layer, build = OF[kind]
    return Mutant(
        name=f"{kind}-{name}",
        what=what,
        source="textbook",
        changes={right: wrong},
        layer=layer,
        build=build,
    )


MUTANTS = (
    _mutant("stack", "mask-forgotten", "dropout is not on the way back", BELOW, "below = found.x"),
    _mutant(
        "stack",
        "mask-twice",
        "dropout is on the way back twice",
        BELOW,
        "below = found.x if mask is None else mask * mask * found.x",
    ),
    _mutant("stack", "residual-dropped", "nothing goes back round a layer", DY, "dy = below"),
    _mutant(
        "stack",
        "residual-masked",
        "what goes back round a layer is dropped out too",
        DY,
        "dy = below + (dy if mask is None else mask * dy) if residual and at else below",
    ),
    _mutant(
        "stack",
        "residual-alone",
        "+ is =: only what goes round a layer comes back",
        DY,
        "dy = dy if residual and at else below",
    ),
    _mutant(
        "stack",
        "last-dropped",
        "cotangents of last states are dropped",
        ENDS,
        'ends = each_state(cell, "dlast", None)',
    ),
    _mutant(
        "bidirectional",
        "halves-swapped",
        "each direction gets the other's cotangent",
        HALVES,
        HALVES.replace("one, two", "two, one"),
    ),
    _mutant(
        "bidirectional",
        "not-turned",
        "the cotangent of h← is not turned round",
        HALVES,
        "one, two = dy[..., :N], dy[..., N:]",
    ),
    _mutant(
        "bidirectional",
        "turned-with-padding",
        "the cotangent of h← is turned round with its padding",
        HALVES,
        "one, two = dy[..., :N], np.ascontiguousarray(dy[::-1, :, N:])",
    ),
    _mutant(
        "bidirectional",
        "dx-not-turned",
        "∂L/∂x of h← is not put back in order",
        DX,
        "first.x + second.x",
    ),
    _mutant(
        "bidirectional",
        "dx-of-one",
        "∂L/∂x of h→ alone",
        DX,
        "first.x",
    ),
    _mutant(
        "ragged",
        "last-unsorted",
        "cotangents of last states in the order of the batch",
        CARRIED,
        CARRIED.removesuffix("[order]") + ".copy()",
    ),
    _mutant(
        "ragged",
        "cut-at-ends",
        "nothing goes back beyond the end of a shorter sequence",
        ENDS_NOW,
        "ends = [np.zeros_like(d[:alive]) if last < T else d[:alive] for d in carried]",
    ),
    _mutant(
        "ragged",
        "weights-assigned",
        "= for +=: the weights of the first stretch alone",
        WEIGHTS,
        "total[name] = g",
    ),
    _mutant("zoneout", "new-whole", "∂s̃ is ∂s, without 1 - k", NEW, "new = [d[None] for d in ds]"),
    _mutant(
        "zoneout",
        "k-for-rest",
        "k where 1 - k is meant",
        NEW,
        NEW.replace("(1 - k[t])", "k[t]"),
    ),
    _mutant(
        "zoneout",
        "kept-path-dropped",
        "nothing goes back through what is kept",
        REACHED,
        "reached = carried",
    ),
    _mutant(
        "zoneout",
        "carry-dropped",
        "nothing goes back through the cell",
        REACHED,
        "reached = [k[t] * d for k, d in zip(kept, ds, strict=True)]",
    ),
    _mutant("windowed", "one-short", "the window is one step short", WINDOW, f"{WINDOW} - 1 or 1"),
    _mutant("windowed", "one-long", "the window is one step long", WINDOW, f"{WINDOW} + 1"),
    _mutant(
        "windowed",
        "start-constant",
        "s_0 is taken for a constant",
        START,
        "grads[name] = g.reshape(T, B, -1)[first < 0].sum(axis=0)",
    ),
    _mutant(
        "windowed",
        "start-of-all",
        "every window's start is taken for s_0",
        START,
        "grads[name] = g.reshape(T, B, -1).sum(axis=0)",
    ),
    _mutant(
        "windowed",
        "step-assigned",
        "= for +=: of all windows that a step is in, the one that ends there alone",
        STEPS,
        "total[first[t] + j] = parts[j, t]",
    ),
    _mutant(
        "windowed",
        "last-assigned",
        "= for +=: the last state's own cotangent is lost",
        LAST,
        "d[-1] = d_last",
    ),
    _mutant("chunked", "one-long", "the pieces are one step longer", CHUNK, f"{CHUNK} + 1"),
    _mutant(
        "chunked",
        "last-everywhere",
        "the last state's cotangent at every border",
        CUT,
        "ends = last",
    ),
    _mutant("chunked", "last-dropped", "the last state's cotangent is dropped", CUT, "ends = none"),
    _mutant(
        "chunked",
        "start-of-last",
        "∂L/∂s_0 from the last piece",
        BEGIN,
        BEGIN.replace("pieces[0]", "pieces[-1]"),
    ),
)
