"""`nn.RNN`, `nn.LSTM` and `nn.GRU` of PyTorch with the hand-written gradients: one import away.

    from manual_bptt.torch import LSTM  # in place of torch.nn.LSTM

They are those modules: same constructor, same parameters and `state_dict`, same inputs and outputs,
layers, both directions, dropout and packed sequences. What differs is who computes: the modules of
this package, compiled where numba is installed. For CPU tensors of float32 and float64, without
`proj_size`. A gradient of a gradient is refused: the derivation is of the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from manual_bptt import engines, gru, lstm, ragged, rnn
from manual_bptt._cells import grouped, starts, tupled

__all__ = ["GRU", "LSTM", "RNN"]

DTYPES = (torch.float32, torch.float64)


class _Cell(torch.autograd.Function):
    """A cell on sequences: the output of all steps, and every last state.

    It is given `run`, how many states a step hands on, x, those before the first step, U, W and
    what else the cell has.
    """

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Any], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        states, last, ctx.back = run(*(t.detach().numpy() for t in tensors))
        output = _tensor(states[0])
        x, start, (U, W) = tensors[0], tensors[1 : 1 + count], tensors[1 + count : 3 + count]
        needs_x, needs_U = ctx.needs_input_grad[2], ctx.needs_input_grad[3 + count]
        # what the way back reads, so that a change in its place is noticed; x for dU, U for dx
        read = [output, W, *start, *([x] if needs_U else []), *([U] if needs_x else [])]
        ctx.save_for_backward(*read)
        ctx.set_materialize_grads(False)
        return output, *(_tensor(s) for s in last)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # else a second derivative would be without this term
            raise RuntimeError(
                "manual_bptt.torch: expected a first derivative, got create_graph=True; the "
                "gradient of a gradient is not derived here"
            )
        _ = ctx.saved_tensors
        found = ctx.back(*(None if d is None else d.contiguous().numpy() for d in cotangents))
        return None, None, *(None if g is None else _tensor(g) for g in found)


def _tensor(array: Any) -> Tensor:
    """The same memory; one that nobody may write to, or part of a larger one, is copied."""
    if array.base is not None:
        array = array.copy()
    array.flags.writeable = True
    return torch.from_numpy(np.ascontiguousarray(array))


def _runner(cell: ModuleType, lengths: Any, options: dict[str, Any]) -> Callable[..., Any]:
    """The cell as `_Cell` calls it: x, the states at the start, then the weights."""
    count = len(starts(cell))
    given = {**options, "engine": "numba" if engines.installed("numba") else "numpy"}

    def run(x: Any, *arrays: Any) -> tuple[Any, Any, Callable[..., Any]]:
        start, weights = arrays[:count], arrays[count:]
        params = cell.Params(*weights)
        if lengths is None:
            found, cache = cell.forward(params, x, *start, **given)
            states = tupled(found)
            last: Any = [s[-1] for s in states]
        else:
            states, last, cache = ragged.forward(cell, params, x, lengths, *start, **given)

        def back(doutput: Any, *dlast: Any) -> list[Any]:
            each = [doutput, *[None] * (count - 1)]
            if lengths is None:
                g = cell.backward(params, cache, grouped(cell, each), grouped(cell, dlast))
            else:
                g = ragged.backward(cell, params, cache, each, dlast)
            names = [*starts(cell), *cell.Params._fields[: len(weights)]]
            return [g.x, *(getattr(g, name) for name in names)]

        return states, last, back

    return run


class _Recurrent(nn.RNNBase):
    """What the three have in common: layers, directions and packing, around one cell."""

    cell: ModuleType

    def options(self) -> dict[str, Any]:
        """Of the cell."""
        return {}

    def weights(self, U: Tensor, W: Tensor, b_ih: Tensor | None, b_hh: Tensor | None) -> list[Any]:
        """Those of a layer and direction, as the cell has them."""
        return [U, W] if b_ih is None or b_hh is None else [U, W, b_ih + b_hh]

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  # PyTorch calls it so
        """As the module of PyTorch: the output, and the last state of each layer and direction.

        Raises `TypeError` for tensors on another device or of another dtype than the above, and
        `ValueError` for other shapes.
        """
        packed = input if isinstance(input, PackedSequence) else None
        lengths = None
        if packed is not None:
            x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes))
        else:
            x = input
        _check("input", x)
        alone = packed is None and x.dim() == 2
        if alone:
            x = x.unsqueeze(1)
        elif self.batch_first and packed is None:
            x = x.transpose(0, 1)
        if x.dim() != 3 or x.shape[-1] != self.input_size:
            wanted = "(B, T, D)" if self.batch_first else "(T, B, D)"
            got = tuple(getattr(input, "shape", x.shape))
            raise ValueError(
                f"input: expected shape {wanted} with D = {self.input_size}, got {got}"
            )
        start = self._start(hx, x, alone, packed)
        y, last = self._layers(x, start, None if lengths is None else lengths.numpy())
        if packed is not None:
            assert lengths is not None
            data = pack_padded_sequence(y, lengths).data
            output: Any = PackedSequence(
                data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
            )
            if packed.unsorted_indices is not None:
                last = [s.index_select(1, packed.unsorted_indices) for s in last]
        elif alone:
            output, last = y.squeeze(1), [s.squeeze(1) for s in last]
        else:
            output = y.transpose(0, 1) if self.batch_first else y
        return output, tuple(last) if len(last) > 1 else last[0]

    def _layers(self, x: Tensor, start: list[Tensor], lengths: Any) -> tuple[Tensor, list[Tensor]]:
        """Layer after layer, direction beside direction; states (layers · directions, B, H)."""
        ends: list[list[Tensor]] = [[] for _ in start]
        directions = 2 if self.bidirectional else 1
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else [])]
        for level in range(self.num_layers):
            outputs = []
            for way in range(directions):
                at, mark = level * directions + way, "_reverse" if way else ""
                found = [getattr(self, f"{name}_l{level}{mark}") for name in names]
                weights = self.weights(*found, *[None] * (4 - len(found)))
                seen = _turned(x, lengths) if way else x
                run = _runner(self.cell, lengths, self.options())
                begin = [s[at] for s in start]
                given = (t.contiguous() for t in (seen, *begin, *weights))
                y, *last = _Cell.apply(run, len(begin), *given)
                outputs.append(_turned(y, lengths) if way else y)
                for end, s in zip(ends, last, strict=True):
                    end.append(s)
            x = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
            if self.dropout and self.training and level < self.num_layers - 1:
                x = nn.functional.dropout(x, self.dropout)
        return x, [torch.stack(end) for end in ends]

    def _start(
        self, hx: Any, x: Tensor, alone: bool, packed: PackedSequence | None
    ) -> list[Tensor]:
        """The states before the first step, zeros where none are given."""
        names = starts(self.cell)
        size = (self.num_layers * (2 if self.bidirectional else 1), x.shape[1], self.hidden_size)
        if hx is None:
            return [x.new_zeros(size) for _ in names]
        given = list(hx) if isinstance(hx, tuple | list) else [hx]
        if len(given) != len(names):
            raise ValueError(f"hx: expected {len(names)} tensors, got {len(given)}")
        for n, s in enumerate(given):
            _check(f"hx[{n}]" if len(names) > 1 else "hx", s)
            if alone:
                given[n] = s = s.unsqueeze(1)
            if tuple(s.shape) != size:
                raise ValueError(f"hx: expected shape {size}, got {tuple(s.shape)}")
        if packed is not None and packed.sorted_indices is not None:
            given = [s.index_select(1, packed.sorted_indices) for s in given]
        return given


def _turned(x: Tensor, lengths: Any) -> Tensor:
    """Each sequence backwards, within its length."""
    if lengths is None:
        return x.flip(0)
    t = np.arange(len(x))[:, None]
    source = torch.from_numpy(np.where(t < lengths, lengths - 1 - t, t))
    return x.gather(0, source[..., None].expand(x.shape))


def _check(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.device.type != "cpu":
        raise TypeError(f"{name}: expected a tensor on the CPU, got one on {value.device}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name}: expected torch.float32 or torch.float64, got {value.dtype}")


class RNN(_Recurrent, nn.RNN):
    """`torch.nn.RNN`; see there for arguments, shapes and outputs."""

    cell = rnn

    def options(self) -> dict[str, Any]:
        """f, by its name."""
        return {"activation": self.nonlinearity}


class LSTM(_Recurrent, nn.LSTM):
    """`torch.nn.LSTM`; see there for arguments, shapes and outputs. `proj_size` has to be 0."""

    cell = lstm

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.proj_size:
            raise ValueError(f"proj_size: expected 0, got {self.proj_size}")


class GRU(_Recurrent, nn.GRU):
    """`torch.nn.GRU`; see there for arguments, shapes and outputs."""

    cell = gru

    def weights(self, U: Tensor, W: Tensor, b_ih: Tensor | None, b_hh: Tensor | None) -> list[Any]:
        """As the cell has them: b_hh of the gate n stands inside the product with r."""
        if b_ih is None or b_hh is None:
            return [U, W]
        both, b_n = b_hh.split([2 * self.hidden_size, self.hidden_size])
        return [U, W, b_ih + nn.functional.pad(both, (0, self.hidden_size)), b_n]
