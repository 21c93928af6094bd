"""Parameters and gradients of other libraries' recurrent layers, in our layout and back.

A layout is a table: for each array of theirs, which blocks of ours lie in it, in which order. Where
two of their blocks go to one of ours they add up, as two biases do. That is a linear map A of their
parameters to ours, θ = A φ, and everything follows from it:

    parameters in      θ = A φ
    parameters out     φ = B θ, all in the first of several arrays and zeros in the others: A B = 1
    gradients out      ∂L/∂φ = Aᵀ ∂L/∂θ: both biases have the gradient of their sum
    gradients in       ∂L/∂θ = Bᵀ ∂L/∂φ

Arrays are NumPy's, by name; nothing is imported from the library, and nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manual_bptt import gru, gru_before, lstm

Array = NDArray[Any]
Params = lstm.Params | gru.Params | gru_before.Params
Place = tuple[str, str]
"""A field of ours, and the letter of a block in it; the letter is empty for all of the field."""


@dataclass(frozen=True)
class Theirs:
    """One array of theirs.

    `blocks` names what lies in it along its axis of gates, "U.i U.f U.g U.o"; `transposed` says
    that this axis is the last one and not the first, `rows` that it is folded into so many rows.
    """

    blocks: str
    transposed: bool = False
    rows: int = 1

    @property
    def places(self) -> list[Place]:
        """The blocks, one after the other."""
        return [(field, letter) for field, _, letter in (b.partition(".") for b in self.split)]

    @property
    def split(self) -> list[str]:
        """The words of `blocks`."""
        return self.blocks.split()


@dataclass(frozen=True)
class Layout:
    """How one library stores one cell.

    Args:
        cell: the name of our cell.
        kind: its `Params`.
        blocks: for each field of ours the letters of its blocks, in our order; empty for a whole.
        theirs: their arrays by name.
    """

    cell: str
    kind: type[Any]
    blocks: Mapping[str, str]
    theirs: Mapping[str, Theirs]

    def params(self, theirs: Mapping[str, Array]) -> Any:
        """Our parameters: θ = A φ.

        Raises `ValueError` for a name that is missing or unknown and for a shape that does not fit.
        """
        return self._gathered(theirs, first_only=False)

    def export(self, params: Any) -> dict[str, Array]:
        """Their parameters: φ = B θ.

        Raises `TypeError` for parameters of another cell, `ValueError` for what they cannot hold.
        """
        return self._spread(params, first_only=True)

    def grads(self, theirs: Mapping[str, Array]) -> Any:
        """Our gradients, as `Params`: ∂L/∂θ = Bᵀ ∂L/∂φ. Raises as `params` does."""
        return self._gathered(theirs, first_only=True)

    def export_grads(self, grads: Any) -> dict[str, Array]:
        """Their gradients: ∂L/∂φ = Aᵀ ∂L/∂θ, of our `Grads`, or of `Params`. Raises as `export`."""
        fields = {k: getattr(grads, k, None) for k in self.kind._fields}
        return self._spread(self.kind(**fields), first_only=False)

    def _present(self, names: Mapping[str, Any] | set[str]) -> Iterator[tuple[str, Theirs]]:
        """Their arrays whose every field is there: without bias, those for biases are not."""
        for name, array in self.theirs.items():
            if all(field in names for field, _ in array.places):
                yield name, array

    def _gathered(self, theirs: Mapping[str, Array], *, first_only: bool) -> Any:
        unknown = set(theirs) - set(self.theirs)
        if unknown:
            raise ValueError(
                f"{self.cell}: expected {', '.join(self.theirs)}, got {', '.join(sorted(unknown))}"
            )
        parts: dict[Place, Array] = {}
        for name, array in self.theirs.items():
            if name not in theirs:
                continue
            for place, block in zip(array.places, _blocks(name, theirs[name], array), strict=True):
                if place not in parts:
                    parts[place] = block.copy()
                elif not first_only:
                    if parts[place].shape != block.shape:
                        raise ValueError(
                            f"{name}: expected blocks {parts[place].shape}, got {block.shape}"
                        )
                    parts[place] += block
        fields: dict[str, Array | None] = {}
        for field, letters in self.blocks.items():
            wanted = [(field, letter) for letter in letters] or [(field, "")]
            found = [parts[place] for place in wanted if place in parts]
            if not found:
                fields[field] = None
                continue
            if len(found) < len(wanted):
                missing = [n for n, a in self.theirs.items() if {*wanted} & {*a.places}]
                raise ValueError(f"{self.cell}: expected all of {', '.join(missing)}")
            fields[field] = np.concatenate(found) if letters else found[0]
        lacking = [k for k in ("U", "W") if fields.get(k) is None]
        if lacking:
            names = [n for n, a in self.theirs.items() if a.places[0][0] in lacking]
            raise ValueError(f"{self.cell}: missing {', '.join(names)}")
        return self.kind(**fields)

    def _spread(self, params: Any, *, first_only: bool) -> dict[str, Array]:
        if not isinstance(params, self.kind):
            raise TypeError(
                f"params: expected {self.kind.__module__}.{self.kind.__name__}, "
                f"got {type(params).__name__}"
            )
        parts: dict[Place, Array] = {}
        for field, value in params._asdict().items():
            letters = self.blocks.get(field)
            if value is None or (letters is None and not first_only):
                continue  # what they do not have needs no gradient
            if letters is None:
                raise ValueError(f"{self.cell}: this layout has no place for {field}")
            split = np.split(value, len(letters)) if letters else [value]
            parts.update(zip([(field, x) for x in letters or [""]], split, strict=True))
        there = {field for field, _ in parts}
        taken = set[Place]()
        found = {}
        for name, array in self._present(there):
            blocks = []
            for place in array.places:
                again = first_only and place in taken
                blocks.append(np.zeros_like(parts[place]) if again else parts[place])
                taken.add(place)
            whole = np.concatenate(blocks)
            whole = whole.T if array.transposed else whole
            found[name] = np.ascontiguousarray(
                whole.reshape(array.rows, -1) if array.rows > 1 else whole
            )
        return found


def _blocks(name: str, value: Array, array: Theirs) -> list[Array]:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise TypeError(f"{name}: expected an array of floats, got {type(value).__name__}")
    if array.rows > 1:
        if value.shape[:-1] != (array.rows,):
            raise ValueError(f"{name}: expected shape ({array.rows}, ·), got {value.shape}")
        value = value.reshape(-1)
    value = value.T if array.transposed else value
    if value.ndim < 1 or value.shape[0] % len(array.split) or not value.size:
        raise ValueError(
            f"{name}: expected {len(array.split)} blocks ({array.blocks}), got shape {value.shape}"
        )
    return np.split(value, len(array.split))


# --- our cells

_LSTM = {"U": "ifgo", "W": "ifgo", "b": "ifgo"}
_GRU = {"U": "rzn", "W": "rzn", "b": "rzn"}


def _lstm(theirs: Mapping[str, Theirs], **more: str) -> Layout:
    return Layout("lstm", lstm.Params, {**_LSTM, **more}, theirs)


def _gru(theirs: Mapping[str, Theirs]) -> Layout:
    return Layout("gru", gru.Params, {**_GRU, "b_n": ""}, theirs)


def _gru_before(theirs: Mapping[str, Theirs]) -> Layout:
    return Layout("gru-before", gru_before.Params, _GRU, theirs)


def _of(field: str, order: str) -> str:
    """The blocks of a field in some order: "U.i U.f …"."""
    return " ".join(f"{field}.{letter}" for letter in order)


# --- PyTorch: torch.nn.LSTM, GRU and their cells


def pytorch(cell: str, suffix: str = "_l0") -> Layout:
    """PyTorch's `torch.nn.LSTM` (with `proj_size` too) and `torch.nn.GRU`: gates i f g o, r z n.

    `suffix` is that of the layer and direction, "_l1_reverse", and empty for `LSTMCell`, `GRUCell`.
    """
    order = {"lstm": "ifgo", "gru": "rzn"}
    gates = order[_known("PyTorch", cell, order)]
    hidden_bias = _of("b", "rz") + " b_n" if cell == "gru" else _of("b", gates)
    theirs = {
        "weight_ih": Theirs(_of("U", gates)),
        "weight_hh": Theirs(_of("W", gates)),
        "bias_ih": Theirs(_of("b", gates)),
        "bias_hh": Theirs(hidden_bias),
    }
    if cell == "lstm":
        theirs["weight_hr"] = Theirs("P")
    named = {f"{name}{suffix}": array for name, array in theirs.items()}
    return _lstm(named, P="") if cell == "lstm" else _gru(named)


# --- Keras 3: keras.layers.LSTM and GRU


def keras(cell: str) -> Layout:
    """Keras 3's `LSTM` and `GRU`: gates i f c o, z r h.

    "gru" is with `reset_after=True`, Keras's default; with False it is "gru-before".
    """
    kernels = {"lstm": "ifgo", "gru": "zrn", "gru-before": "zrn"}
    gates = kernels[_known("Keras", cell, kernels)]
    theirs = {
        "kernel": Theirs(_of("U", gates), transposed=True),
        "recurrent_kernel": Theirs(_of("W", gates), transposed=True),
    }
    if cell == "gru":
        bias = Theirs(f"{_of('b', gates)} {_of('b', 'zr')} b_n", rows=2)
        return _gru({**theirs, "bias": bias})
    theirs["bias"] = Theirs(_of("b", gates))
    return _lstm(theirs) if cell == "lstm" else _gru_before(theirs)


# --- Flax


def flax_linen(cell: str) -> Layout:
    """Flax Linen's `LSTMCell`, `OptimizedLSTMCell` and `GRUCell`: a kernel for each gate.

    Names are joined by a slash: "hf/bias". The carry of the LSTM is (c, h).
    """
    gates = {"lstm": "ifgo", "gru": "rzn"}[_known("Flax Linen", cell, {"lstm": 0, "gru": 0})]
    theirs = {f"i{x}/kernel": Theirs(f"U.{x}", transposed=True) for x in gates}
    theirs |= {f"h{x}/kernel": Theirs(f"W.{x}", transposed=True) for x in gates}
    if cell == "lstm":
        return _lstm({**theirs, **{f"h{x}/bias": Theirs(f"b.{x}") for x in gates}})
    return _gru(
        {**theirs, **{f"i{x}/bias": Theirs(f"b.{x}") for x in gates}, "hn/bias": Theirs("b_n")}
    )


def flax_nnx(cell: str) -> Layout:
    """Flax NNX's `OptimizedLSTMCell`: gates i f g o in one kernel. Names are joined by a slash.

    Its `GRUCell` has no bias inside the reset (google/flax#5594): b_n is zero.
    """
    gates = {"lstm": "ifgo", "gru": "rzn"}[_known("Flax NNX", cell, {"lstm": 0, "gru": 0})]
    theirs = {
        "dense_i/kernel": Theirs(_of("U", gates), transposed=True),
        "dense_h/kernel": Theirs(_of("W", gates), transposed=True),
    }
    bias = "dense_h/bias" if cell == "lstm" else "dense_i/bias"
    theirs[bias] = Theirs(_of("b", gates))
    if cell == "lstm":
        return _lstm(theirs)
    return Layout("gru", gru.Params, _GRU, theirs)


# --- Equinox


def equinox(cell: str) -> Layout:
    """Equinox's `LSTMCell` and `GRUCell`: gates i f g o, r z n."""
    gates = {"lstm": "ifgo", "gru": "rzn"}[_known("Equinox", cell, {"lstm": 0, "gru": 0})]
    theirs = {
        "weight_ih": Theirs(_of("U", gates)),
        "weight_hh": Theirs(_of("W", gates)),
        "bias": Theirs(_of("b", gates)),
    }
    return _lstm(theirs) if cell == "lstm" else _gru({**theirs, "bias_n": Theirs("b_n")})


# --- ONNX


def onnx(cell: str) -> Layout:
    """One direction of ONNX's `LSTM` and `GRU` (opset 22): gates i o f c, z r h.

    "gru" needs `linear_before_reset=1`; with 0, ONNX's default, it is "gru-before".
    """
    order = {"lstm": "iofg", "gru": "zrn", "gru-before": "zrn"}
    gates = order[_known("ONNX", cell, order)]
    b = _of("b", gates)
    hidden = f"{_of('b', 'zr')} b_n" if cell == "gru" else b
    theirs = {
        "W": Theirs(_of("U", gates)),
        "R": Theirs(_of("W", gates)),
        "B": Theirs(f"{b} {hidden}"),
    }
    if cell == "lstm":
        return _lstm({**theirs, "P": Theirs(_of("p", "iof"))}, p="ifo")
    return _gru(theirs) if cell == "gru" else _gru_before(theirs)


LAYOUTS = {
    "pytorch": pytorch,
    "keras": keras,
    "flax-linen": flax_linen,
    "flax-nnx": flax_nnx,
    "equinox": equinox,
    "onnx": onnx,
}


def _known(library: str, cell: str, known: Mapping[str, Any]) -> str:
    if cell == "gru-before" and cell not in known:
        raise ValueError(
            f"{library} resets after the product, {cell} before it: no weights make the two equal"
        )
    if cell not in known:
        raise ValueError(f"{library}: expected a cell of {', '.join(known)}, got {cell!r}")
    return cell
