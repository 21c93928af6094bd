"""What is made of cells, beside its twin: lengths, layers, directions, zoneout, truncation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

import jax_ref.bidirectional
import jax_ref.ragged
import jax_ref.stack
import jax_ref.truncated
import jax_ref.zoneout
import manual_bptt.bidirectional
import manual_bptt.ragged
import manual_bptt.stack
import manual_bptt.truncated
import manual_bptt.zoneout
from bptt_verify.pair import Index, Mask, Pair
from bptt_verify.pairs.cells import Cell

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A cell where it stands in something larger: its names there carry a mark, "U_1".

    Args:
        cell: the cell.
        mark: what is put behind every name.
        below: the letter of the size of its input.
    """

    cell: Cell
    mark: str = ""
    below: str = "D"

    def named(self, names: Sequence[str]) -> list[str]:
        """The names here of what the cell calls so."""
        return [name + self.mark for name in names]

    @property
    def starts(self) -> list[str]:
        """The names of the states before the first step."""
        return self.named([f"{state}0" for state in self.cell.states])

    @property
    def inputs(self) -> dict[str, str]:
        """Starts and weights, with their shapes."""
        weights = {k: s.replace("D", self.below) for k, s in self.cell.weights.items()}
        named = dict(zip(self.named(list(weights)), weights.values(), strict=True))
        shapes = self.cell.states.values()
        return {**{k: f"B {s}" for k, s in zip(self.starts, shapes, strict=True)}, **named}

    @property
    def taps(self) -> dict[str, str]:
        """Their shapes."""
        return {f"{k}{self.mark}": f"T B {s}" for k, s in self.cell.taps.items()}

    @property
    def last(self) -> dict[str, str]:
        """The last states, with their shapes."""
        return {f"{k}_last{self.mark}": f"B {s}" for k, s in self.cell.states.items()}

    def params(self, i: Arrays) -> Any:
        """The weights by hand."""
        return self.cell.by_hand.Params(**{k: i[k + self.mark] for k in self.cell.weights})

    def twin_params(self, i: Arrays) -> Any:
        """The weights for the twin."""
        fields = self.cell.by_hand.Params._fields
        return SimpleNamespace(**{k: i.get(k + self.mark) for k in fields})

    def start(self, i: Arrays) -> tuple[Any, ...]:
        """The states before the first step."""
        return tuple(i[k] for k in self.starts)

    def tapped(self, i: Arrays) -> Arrays:
        """The taps as the twin takes them."""
        return {k: i[k + self.mark] for k in self.cell.taps}

    def gradients(self, grads: Any) -> Arrays:
        """Those of starts, weights and taps, by their names here."""
        names = [*self.cell.weights, *(f"{k}0" for k in self.cell.states), *self.cell.taps]
        return {k + self.mark: getattr(grads, k) for k in names}


def ragged_pair(cell: Cell, layer: ModuleType = manual_bptt.ragged) -> Pair:
    """The cell on sequences of lengths from 1 to T, whose padding is NaN for the subject."""
    part = Part(cell)

    def outputs(states: Any, last: Any) -> Arrays:
        return dict(zip([*cell.states, *part.last], [*states, *last], strict=True))

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        lengths = i["lengths"] + 1
        x, params = _padded(i["x"], lengths), part.params(i)
        states, last, kept = layer.forward(
            cell.by_hand, params, x, lengths, *part.start(i), **given
        )
        return outputs(states, last), (params, kept)

    def backward(kept: Any, d: Arrays) -> Arrays:
        each, last = [d[k] for k in cell.states], [d[k] for k in part.last]
        grads = layer.backward(cell.by_hand, *kept, each, last)
        return {"x": grads.x, **part.gradients(grads)}

    def twin(i: Arrays, **given: Any) -> Arrays:
        more = {**given, **part.tapped(i)}
        return outputs(
            *jax_ref.ragged.forward(
                cell.twin, part.twin_params(i), i["x"], i["lengths"] + 1, *part.start(i), **more
            )
        )

    lengths = {"lengths": Index("B", below="T")}
    shown = {*cell.states, *cell.taps}
    return _pair(part, "ragged", forward, backward, twin, more=lengths, shown=shown)


def zoneout_pair(cell: Cell, layer: ModuleType = manual_bptt.zoneout) -> Pair:
    """The cell with zoneout of every state; where the masks are true, a unit stays."""
    part = Part(cell)
    masks = {f"keep_{k}": Mask(f"T B {s}") for k, s in cell.states.items()}

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        params, dtype = part.params(i), i["x"].dtype
        kept = [i[k].astype(dtype) for k in masks]
        states, cache = layer.forward(cell.by_hand, params, i["x"], kept, part.start(i), **given)
        return _steps_and_last(part, states), (params, cache)

    def backward(kept: Any, d: Arrays) -> Arrays:
        each, last = [d[k] for k in cell.states], [d[k] for k in part.last]
        grads = layer.backward(cell.by_hand, *kept, each, last)
        return {"x": grads.x, **part.gradients(grads)}

    def twin(i: Arrays, **given: Any) -> Arrays:
        kept = [i[k].astype(i["x"].dtype) for k in masks]
        states = jax_ref.zoneout.forward(
            cell.twin, part.twin_params(i), i["x"], kept, part.start(i), given, part.tapped(i)
        )
        return _steps_and_last(part, states)

    return _pair(part, "zoneout", forward, backward, twin, more=masks, shown=cell.taps)


def windowed_pair(cell: Cell, layer: ModuleType = manual_bptt.truncated) -> Pair:
    """The cell with its gradient through windows of k steps."""
    return _truncated(
        cell,
        "windowed",
        "window",
        layer.windowed,
        layer.windowed_backward,
        jax_ref.truncated.windowed,
    )


def chunked_pair(cell: Cell, layer: ModuleType = manual_bptt.truncated) -> Pair:
    """The cell with its gradient cut at the border of pieces of k steps."""
    return _truncated(
        cell, "chunked", "chunk", layer.chunked, layer.chunked_backward, jax_ref.truncated.chunked
    )


def _truncated(cell: Cell, name: str, size: str, by_hand: Any, back: Any, in_jax: Any) -> Pair:
    part = Part(cell)

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        params, k = part.params(i), given.pop(size)
        states, cache = by_hand(cell.by_hand, params, i["x"], k, *part.start(i), **given)
        return _steps_and_last(part, states), (params, cache)

    def backward(kept: Any, d: Arrays) -> Arrays:
        each, last = [d[k] for k in cell.states], [d[k] for k in part.last]
        grads = back(cell.by_hand, *kept, each, last)
        return {"x": grads.x, **part.gradients(grads)}

    def twin(i: Arrays, **given: Any) -> Arrays:
        params, k = part.twin_params(i), given.pop(size)
        states = in_jax(cell.twin, params, i["x"], k, part.start(i), given, part.tapped(i))
        return _steps_and_last(part, states)

    # how far a step reaches depends on where it stands
    return _pair(
        part,
        name,
        forward,
        backward,
        twin,
        options={size: (1, 2, 3, 5)},
        without={"split and join"},
        shown=cell.states,
    )


def stack_pair(*cells: Cell, layer: ModuleType = manual_bptt.stack) -> Pair:
    """Layers of H units each, with or without residual connections; dropout of one half.

    Where a mask is true, an entry is kept, and doubled. Options of the cells are their defaults.
    """
    parts = [Part(_of_any_start(c), f"_{n + 1}", "H" if n else "D") for n, c in enumerate(cells)]
    masks = {f"keep{part.mark}": Mask("T B H") for part in parts[1:]}
    ends = [name for part in parts for name in part.last]

    def outputs(y: Any, states: Any) -> Arrays:
        last = [s[-1] for layer_states in states for s in layer_states]
        return {"y": y, **dict(zip(ends, last, strict=True))}

    def forward(i: Arrays, *, residual: bool) -> tuple[Arrays, Any]:
        layers = [layer.Layer(part.cell.by_hand, part.params(i)) for part in parts]
        y, states, cache = layer.forward(
            layers,
            i["x"],
            [part.start(i) for part in parts],
            masks=[2 * i[name].astype(i["x"].dtype) for name in masks],
            residual=residual,
        )
        return outputs(y, states), (layers, cache)

    def backward(kept: Any, d: Arrays) -> Arrays:
        last = [[d[name] for name in part.last] for part in parts]
        grads = layer.backward(*kept, d["y"], last)
        found = {"x": grads.x}
        for part, g in zip(parts, grads.layers, strict=True):
            found |= part.gradients(g)
        return found

    def twin(i: Arrays, *, residual: bool) -> Arrays:
        return outputs(
            *jax_ref.stack.forward(
                [part.cell.twin for part in parts],
                [part.twin_params(i) for part in parts],
                i["x"],
                [part.start(i) for part in parts],
                [part.tapped(i) for part in parts],
                masks=[2 * i[name].astype(i["x"].dtype) for name in masks],
                residual=residual,
            )
        )

    return Pair(
        name="-".join(c.name for c in cells) + "-stack",
        inputs={"x": "T B D", **_merged(part.inputs for part in parts), **masks},
        outputs={"y": "T B H", **_merged(part.last for part in parts)},
        taps=_merged(part.taps for part in reversed(parts)),
        options={"residual": (False, True)},
        forward=forward,
        backward=backward,
        twin=twin,
        optional={"y", *ends},
    )


def bidirectional_pair(cell: Cell, layer: ModuleType = manual_bptt.bidirectional) -> Pair:
    """The cell in both directions, on sequences of lengths from 1 to T with NaN as padding."""
    parts = Part(_of_any_start(cell), "_f"), Part(cell, "_b")
    ends = [name for part in parts for name in part.last]
    N = next(iter(cell.states.values()))

    def outputs(y: Any, last: Any) -> Arrays:
        return {"y": y, **dict(zip(ends, [*last[0], *last[1]], strict=True))}

    def forward(i: Arrays, **given: Any) -> tuple[Arrays, Any]:
        lengths = i["lengths"] + 1
        params = tuple(part.params(i) for part in parts)
        starts = tuple(part.start(i) for part in parts)
        x = _padded(i["x"], lengths)
        y, last, cache = layer.forward(cell.by_hand, params, x, lengths, starts, **given)
        return outputs(y, last), (params, cache)

    def backward(kept: Any, d: Arrays) -> Arrays:
        last = tuple([d[name] for name in part.last] for part in parts)
        grads = layer.backward(cell.by_hand, *kept, d["y"], last)
        found = {"x": grads.x}
        for part, g in zip(parts, grads.directions, strict=True):
            found |= part.gradients(g)
        return found

    def twin(i: Arrays, **given: Any) -> Arrays:
        return outputs(
            *jax_ref.bidirectional.forward(
                cell.twin,
                tuple(part.twin_params(i) for part in parts),
                i["x"],
                i["lengths"] + 1,
                tuple(part.start(i) for part in parts),
                tuple({**given, **part.tapped(i)} for part in parts),
            )
        )

    return Pair(
        name=f"{cell.name}-bidirectional",
        inputs={
            "x": "T B D",
            **_merged(part.inputs for part in parts),
            "lengths": Index("B", below="T"),
        },
        outputs={"y": f"T B 2{N}", **_merged(part.last for part in parts)},
        taps=_merged(part.taps for part in parts),
        options=cell.options,
        forward=forward,
        backward=backward,
        twin=twin,
        optional={"y", *ends},
        without={"causality"},  # the outputs look ahead
    )


def _pair(
    part: Part,
    name: str,
    forward: Any,
    backward: Any,
    twin: Any,
    *,
    more: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    without: set[str] | None = None,
    shown: Collection[str],
) -> Pair:
    """One cell that something is done with: all states and all last states come out.

    `shown` are the quantities for which the equations of the cell still hold as they are.
    """
    cell, one = part.cell, _of_any_start(part.cell).pair()
    each = {k: f"T B {s}" for k, s in cell.states.items()}
    return Pair(
        name=f"{cell.name}-{name}",
        inputs={"x": "T B D", **part.inputs, **(more or {})},
        outputs={**each, **part.last},
        taps=part.taps,
        options={**cell.options, **(options or {})},
        forward=forward,
        backward=backward,
        twin=twin,
        optional={*each, *part.last},
        equations={k: e for k, e in one.equations.items() if k in shown},
        without=without or (),
    )


def _of_any_start(cell: Cell) -> Cell:
    """The cell; `ValueError` if it has a start that has to be above 0, which is not drawn here."""
    if cell.positive:
        wanted = "one that takes any start"
        raise ValueError(f"cell: expected {wanted}, got {cell.name!r} with {cell.positive}")
    return cell


def _steps_and_last(part: Part, states: Any) -> Arrays:
    each = dict(zip(part.cell.states, states, strict=True))
    return {**each, **dict(zip(part.last, (s[-1] for s in states), strict=True))}


def _padded(x: Any, lengths: Any) -> Any:
    """What stands beyond a sequence's length is NaN."""
    x = x.copy()
    x[np.arange(len(x))[:, None] >= lengths] = np.nan
    return x


def _merged(parts: Any) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}
