"""Layers and directions of the real PyTorch, through the layouts, within the derived band."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bptt_verify import layouts
from bptt_verify.compare import compare
from bptt_verify.draw import Case, Drawn
from bptt_verify.oracle import Expected, Oracle
from bptt_verify.pairs import CELLS, bidirectional_pair, stack_pair
from bptt_verify.tolerance import multiplier

SIZES = {"T": 7, "B": 3, "D": 4, "H": 5}
T, B, D, H = SIZES.values()
DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]


class Question:
    """A pair with weights from elsewhere, everything else random; what the twin says."""

    def __init__(self, pair, weights, more, dtype, **options):
        rng = np.random.default_rng(0)

        def array(text):
            shape = [int(a[:-1] or 1) * SIZES[a[-1]] for a in text.split()]
            return rng.standard_normal(shape).astype(dtype)

        self.dtype = dtype
        given = {**weights, **more}
        self.inputs = {
            k: given[k] if k in given else array(text) for k, text in pair.floats.items()
        }
        self.inputs |= more
        self.cotangents = {k: array(text) for k, text in pair.outputs.items()}
        defaults = {k: values[0] for k, values in pair.options.items()}
        case = Case(SIZES, {**defaults, **options}, {}, 0)
        drawn = Drawn(self.inputs, self.cotangents)
        self.expected = Oracle(pair, multiplier(dtype)).answer(case, drawn, dtype).quantities

    def agree(self, found):
        """What the library returned, by our names, is what the twin says."""
        compared = {
            k: compare(a.detach().numpy(), self.expected[k], self.dtype) for k, a in found.items()
        }
        assert {k: c.problem for k, c in compared.items() if not c.ok} == {}

    def gradients_agree(self, layout, mark, module, scale):
        """Its gradients of the weights of one layer and direction, by its own names."""
        values, sigmas = (
            layout.export_grads(
                layout.kind(
                    **{k: self._of(f"d{k}{mark}", which, scale) for k in layout.kind._fields}
                )
            )
            for which in ("value", "sigma")
        )
        parameters = dict(module.named_parameters())
        for name, value in values.items():
            found = parameters[name].grad.numpy()
            problem = compare(found, Expected(value, sigmas[name]), self.dtype).problem
            assert problem == "", f"{name}: {problem}"

    def _of(self, name, which, scale):
        known = self.expected.get(name)
        return None if known is None else getattr(known, which) * scale.get(name, 1)


def random_module(kind, dtype, **more):
    torch.manual_seed(0)
    module = kind(D, H, **more).to(getattr(torch, dtype.name))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def imported(cell, suffixes, marks, module):
    """Its layouts, and its weights by the names that they have in our pair."""
    state, found, weights = module.state_dict(), [], {}
    for suffix, mark in zip(suffixes, marks, strict=True):
        layout = layouts.pytorch(cell, suffix)
        theirs = {k: v.numpy() for k, v in state.items() if k.removesuffix(suffix).count("_l") == 0}
        params = layout.params(theirs)
        weights |= {f"{k}{mark}": a for k, a in params._asdict().items() if a is not None}
        found.append(layout)
    return found, weights


def leaf(a):
    return torch.tensor(a, requires_grad=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_layers(dtype):
    marks = "_1", "_2"
    module = random_module(torch.nn.LSTM, dtype, num_layers=2)
    found, weights = imported("lstm", ("_l0", "_l1"), marks, module)
    # what our mask keeps is doubled, as if half were dropped out; there nothing is
    weights["U_2"] = weights["U_2"] / 2
    pair = stack_pair(CELLS["lstm"], CELLS["lstm"])
    q = Question(pair, weights, {"keep_2": np.ones((T, B, H), bool)}, dtype, residual=False)
    x = leaf(q.inputs["x"])
    h0, c0 = (leaf(np.stack([q.inputs[f"{k}0{mark}"] for mark in marks])) for k in "hc")
    y, (h, c) = module(x, (h0, c0))
    outputs = {"y": y}
    for n, mark in enumerate(marks):
        outputs |= {f"h_last{mark}": h[n], f"c_last{mark}": c[n]}
    sum((torch.from_numpy(q.cotangents[k]) * a).sum() for k, a in outputs.items()).backward()
    q.agree(outputs)
    q.agree({"dx": x.grad})
    for n, (layout, mark) in enumerate(zip(found, marks, strict=True)):
        q.agree({f"dh0{mark}": h0.grad[n], f"dc0{mark}": c0.grad[n]})
        q.gradients_agree(layout, mark, module, {"dU_2": 0.5})


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_directions_of_sequences_of_different_lengths(dtype):
    marks, lengths = ("_f", "_b"), np.array([3, 7, 1])
    module = random_module(torch.nn.GRU, dtype, bidirectional=True)
    found, weights = imported("gru", ("_l0", "_l0_reverse"), marks, module)
    pair = bidirectional_pair(CELLS["gru"])
    q = Question(pair, weights, {"lengths": lengths - 1}, dtype)
    x = leaf(q.inputs["x"])
    h0 = leaf(np.stack([q.inputs[f"h0{mark}"] for mark in marks]))
    packed = pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
    y, h = module(packed, h0)
    outputs = {"y": pad_packed_sequence(y)[0]}
    outputs |= {f"h_last{mark}": h[n] for n, mark in enumerate(marks)}
    sum((torch.from_numpy(q.cotangents[k]) * a).sum() for k, a in outputs.items()).backward()
    q.agree(outputs)
    q.agree({"dx": x.grad})
    for n, (layout, mark) in enumerate(zip(found, marks, strict=True)):
        q.agree({f"dh0{mark}": h0.grad[n]})
        q.gradients_agree(layout, mark, module, {})
