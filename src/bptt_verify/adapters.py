"""Subjects written in JAX or PyTorch, as pairs.

The function gets its arrays in the order of the pair's inputs, and the drawn options by keyword. It
returns its outputs in the order of the pair's: one array, or several in a tuple. What it has by way
of a hand-written rule is what its framework calls when it differentiates, and so is tested the way
it is used. There are no taps and no probes: nobody sees into the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bptt_verify.pair import Input, Pair

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]


def custom_vjp_pair(
    name: str,
    function: Callable[..., Any],
    *,
    inputs: Mapping[str, Input],
    outputs: Mapping[str, str],
    twin: Callable[..., Any],
    **fields: Any,
) -> Pair:
    """A pair whose subject is a JAX function with a rule of its own, such as a `jax.custom_vjp`.

    Args:
        name, inputs, outputs, twin, fields: as for `Pair`.
        function: the subject; `jax.vjp` differentiates it, in the dtype under test.

    Raises `ValueError` for what `Pair` refuses, and when no input has a gradient.
    """
    floats = _differentiable(name, inputs)

    def forward(given: dict[str, Array], **options: Any) -> tuple[dict[str, Array], Any]:
        import jax
        import jax.numpy as jnp

        def run(real: dict[str, Any]) -> dict[str, Any]:
            return _named(outputs, function(*{**arrays, **real}.values(), **options))

        wide = given[floats[0]].dtype == np.float64
        with jax.enable_x64(wide):
            arrays = {k: jnp.array(given[k]) for k in inputs}
            results, vjp = jax.vjp(run, {k: arrays[k] for k in floats})
            return {k: np.array(v) for k, v in results.items()}, (vjp, wide)

    def backward(kept: Any, cotangents: dict[str, Array]) -> dict[str, Array]:
        import jax
        import jax.numpy as jnp

        vjp, wide = kept
        with jax.enable_x64(wide):
            (gradients,) = vjp({k: jnp.array(v) for k, v in cotangents.items()})
            return {k: np.array(v) for k, v in gradients.items()}

    return Pair(
        name=name,
        inputs=inputs,
        outputs=outputs,
        forward=forward,
        backward=backward,
        twin=twin,
        **fields,
    )


def autograd_function_pair(
    name: str,
    function: Callable[..., Any],
    *,
    inputs: Mapping[str, Input],
    outputs: Mapping[str, str],
    twin: Callable[..., Any],
    **fields: Any,
) -> Pair:
    """A pair whose subject is a PyTorch function, such as `apply` of a `torch.autograd.Function`.

    The tensors share the memory of the arrays, so that a function that writes over its inputs,
    outputs or cotangents is caught. A gradient of None is zero, as it is to PyTorch.

    Args:
        name, inputs, outputs, twin, fields: as for `Pair`.
        function: the subject, on tensors on the CPU; `torch.autograd.grad` differentiates it.

    Raises `ValueError` for what `Pair` refuses, and when no input has a gradient.
    """
    floats = _differentiable(name, inputs)

    def forward(given: dict[str, Array], **options: Any) -> tuple[dict[str, Array], Any]:
        tensors = {k: to_torch(given[k]).requires_grad_(k in floats) for k in inputs}
        results = _named(outputs, function(*tensors.values(), **options))
        return {k: from_torch(v) for k, v in results.items()}, (tensors, results)

    def backward(kept: Any, cotangents: dict[str, Array]) -> dict[str, Array]:
        import torch

        tensors, results = kept
        reached = [k for k in outputs if results[k].requires_grad]  # the others are constants
        gradients = torch.autograd.grad(
            [results[k] for k in reached],
            [tensors[k] for k in floats],
            [to_torch(cotangents[k]) for k in reached],
            materialize_grads=True,
            retain_graph=True,  # backward may be asked again with other cotangents
        )
        return {k: from_torch(v) for k, v in zip(floats, gradients, strict=True)}

    return Pair(
        name=name,
        inputs=inputs,
        outputs=outputs,
        forward=forward,
        backward=backward,
        twin=twin,
        **fields,
    )


def _differentiable(name: str, inputs: Mapping[str, Input]) -> list[str]:
    found = [k for k, spec in inputs.items() if isinstance(spec, str)]
    if not found:
        raise ValueError(f"pair {name!r}: inputs: expected one that has a gradient, got {inputs}")
    return found


def _named(outputs: Mapping[str, str], returned: Any) -> dict[str, Any]:
    results = returned if isinstance(returned, tuple | list) else (returned,)
    if len(results) != len(outputs):
        names = ", ".join(outputs)
        raise TypeError(f"outputs: expected {len(outputs)} ({names}), got {len(results)}")
    return dict(zip(outputs, results, strict=True))


def to_torch(array: Array) -> torch.Tensor:
    """The array as a tensor, in the same memory where PyTorch can."""
    import torch

    if any(stride < 0 for stride in array.strides):  # PyTorch has none
        array = array.copy()
    # NumPy has bfloat16 from ml_dtypes, of which PyTorch knows nothing
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def from_torch(tensor: torch.Tensor) -> Array:
    """The tensor as an array, in the same memory."""
    import torch

    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()
