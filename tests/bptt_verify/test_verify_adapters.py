"""Subjects in JAX, PyTorch and C: the right ones pass, the wrong ones fail for what is wrong."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from bptt_verify import Index, Mask, verify
from bptt_verify.adapters import (
    autograd_function_pair,
    custom_vjp_pair,
    from_torch,
    to_torch,
)
from bptt_verify.load import load

PAGE = Path(__file__).parents[2] / "docs" / "bring.md"
DENSE = {"x": "B D", "w": "H D"}
CASES = 6


def plain(x, w):
    return jnp.tanh(x @ w.T)


def in_jax(rule):
    """A pair of tanh(x wᵀ) with this rule: its arguments are x, w, y, dy."""
    subject = jax.custom_vjp(plain)
    subject.defvjp(
        lambda x, w: (plain(x, w), (x, w, plain(x, w))), lambda kept, dy: rule(*kept, dy)
    )
    return custom_vjp_pair(
        "jax",
        jax.jit(subject),
        inputs=DENSE,
        outputs={"y": "B H"},
        twin=lambda i: {"y": plain(i["x"], i["w"])},
    )


def in_torch(rule):
    """A pair of tanh(x wᵀ) with this rule: its arguments are x, w, y, dy."""

    class Dense(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            y = torch.tanh(x @ w.T)
            ctx.save_for_backward(x, w, y)
            return y

        @staticmethod
        def backward(ctx, dy):
            return rule(*ctx.saved_tensors, dy)

    return autograd_function_pair(
        "torch",
        Dense.apply,
        inputs=DENSE,
        outputs={"y": "B H"},
        twin=lambda i: {"y": plain(i["x"], i["w"])},
    )


def right(x, w, y, dy):
    delta = dy * (1 - y * y)
    return delta @ w, delta.T @ x


def forgets_tanh(x, w, y, dy):
    return dy @ w, dy.T @ x


def forgets_w(x, w, y, dy):
    return right(x, w, y, dy)[0], None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_rule_passes_and_a_wrong_one_fails_in_jax(dtype):
    assert verify(in_jax(right), CASES, dtype=dtype).ok
    report = verify(in_jax(forgets_tanh), CASES, dtype=dtype)
    assert (report.verdict, report.first_failure.row) == ("fail", "dx")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_rule_passes_and_a_wrong_one_fails_in_torch(dtype):
    assert verify(in_torch(right), CASES, dtype=dtype).ok
    report = verify(in_torch(forgets_tanh), CASES, dtype=dtype)
    assert (report.verdict, report.first_failure.row) == ("fail", "dx")


def test_a_gradient_of_none_is_zero():
    report = verify(in_torch(forgets_w), CASES)
    assert report.first_failure.row == "dw"
    assert ", got 0 at" in report.first_failure.problem
    reads_x_only = autograd_function_pair(
        "unused",
        lambda x, unused, mask: (2 * x, mask.to(x.dtype)),
        inputs={"x": "B", "unused": "B", "mask": Mask("B")},
        outputs={"y": "B", "constant": "B"},
        twin=lambda i: {"y": 2 * i["x"], "constant": i["mask"].astype(i["x"].dtype)},
    )
    assert verify(reads_x_only, CASES).ok


def test_a_rule_that_writes_over_its_cotangent_or_its_output_is_seen_in_torch():
    def over_cotangent(x, w, y, dy):
        return right(x, w, y, dy.mul_(1 - y * y) / (1 - y * y))

    def over_output(x, w, y, dy):
        found = right(x, w, y, dy)
        y.data.mul_(2)
        return found

    for rule, what in ((over_cotangent, "the cotangent of y"), (over_output, "the output y")):
        report = verify(in_torch(rule), case="B=2 seed=1")
        problem = {row.name: row.note for row in report.rows}["inputs unchanged"]
        assert problem == f"modified {what}"


def several(x, labels, mask, *, double):
    """Two outputs, inputs without a gradient, an option: for both frameworks."""
    y = x * mask
    return (y + y if double else y), y[labels]


@pytest.mark.parametrize("adapter", [custom_vjp_pair, autograd_function_pair])
def test_several_outputs_inputs_without_gradient_and_options(adapter):
    pair = adapter(
        "several",
        several,
        inputs={"x": "B D", "labels": Index("T", below="B"), "mask": Mask("B D")},
        outputs={"y": "B D", "chosen": "T D"},
        options={"double": (False, True)},
        twin=lambda i, double: dict(
            zip(
                ("y", "chosen"), several(i["x"], i["labels"], i["mask"], double=double), strict=True
            )
        ),
    )
    for dtype in ("float32", "float64"):
        assert verify(pair, CASES, dtype=dtype).ok
    fewer = replace(
        adapter("one", lambda x: x, inputs={"x": "B"}, outputs={"y": "B", "z": "B"}, twin=several),
        twin=lambda i: {"y": i["x"], "z": i["x"]},
    )
    problem = verify(fewer, 1).first_failure.problem
    assert problem == "raised TypeError: outputs: expected 2 (y, z), got 1"


@pytest.mark.parametrize("adapter", [custom_vjp_pair, autograd_function_pair])
def test_backward_may_be_asked_again(adapter):
    pair = adapter("cube", lambda x: x * x * x, inputs={"x": "B"}, outputs={"y": "B"}, twin=dict)
    _, cache = pair.forward({"x": np.array([2.0])})
    assert [pair.backward(cache, {"y": np.array([d])})["x"] for d in (1.0, 2.0)] == [12, 24]


@pytest.mark.parametrize("adapter", [custom_vjp_pair, autograd_function_pair])
def test_without_a_gradient_there_is_nothing_to_derive(adapter):
    with pytest.raises(ValueError, match="pair 'm': inputs: expected one that has a gradient, got"):
        adapter("m", several, inputs={"m": Mask("B")}, outputs={"y": "B"}, twin=several)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.int64, np.bool_])
@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3).T, np.array(3), np.zeros((0, 2))])
def test_arrays_go_to_torch_and_back_in_the_same_memory(array, dtype):
    there = array.astype(dtype)
    tensor = to_torch(there)
    back = from_torch(tensor)
    assert tensor.dtype == getattr(torch, np.dtype(dtype).name)
    assert (back.dtype, back.shape, back.strides) == (there.dtype, there.shape, there.strides)
    assert back.tobytes() == there.tobytes()
    assert back.ctypes.data == there.ctypes.data or not there.size


def test_importing_the_adapters_imports_no_torch():
    script = "import sys, bptt_verify.adapters; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_a_slip_in_c_fails(tmp_path):
    """The right one of the page passes where the examples are run."""
    (code,) = (
        c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "gcc" in c
    )
    slip = code.replace("* (1 - y[b * H + h] * y[b * H + h])", "* (1 - y[b * H + h])")
    assert slip != code
    (tmp_path / "slip.py").write_text(slip, encoding="utf-8")
    (pair,) = load(str(tmp_path / "slip.py"))
    for dtype in ("float32", "float64"):
        report = verify(pair, CASES, dtype=dtype)
        assert (report.verdict, report.first_failure.row) == ("fail", "dx")
