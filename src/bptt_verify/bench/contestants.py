"""Who takes part. One more is one more entry of the table.

A contestant is a function of the work that prepares whatever comes before the first step of
training, and returns the step: loss and all gradients by name. It runs in a process of its own and
imports what it needs there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verify.bench.work import MODULES, Work

Step = Callable[[], dict[str, Any]]

RIVALS = ("autodiff", "torch.nn")
"""The sides that ours is held against; what is no rival and makes gradients is ours."""


@dataclass(frozen=True)
class Contestant:
    """One way to the gradients.

    Args:
        prepare: from the work to the step.
        needs: the packages that have to be installed.
        side: "ours", that of the rivals, "autodiff" or "torch.nn", or what is no rival: "drop-in",
            "products", "peak", "bandwidth".
    """

    prepare: Callable[[Work], Step]
    needs: tuple[str, ...]
    side: str


def manual(work: Work, engine: str) -> Step:
    """The hand-written gradients."""
    from manual_bptt import network, readout

    module = MODULES[work.cell]
    layer = module.Params(
        **{k: work.weights[k] for k in module.Params._fields if k in work.weights}
    )
    params = network.Params((layer,), readout.Params(work.weights["V"], work.weights["c"]))
    net = network.Network(module)

    def step() -> dict[str, Any]:
        loss, grads = network.loss_and_grads(net, params, work.x, work.targets, engine=engine)
        body, head = grads.layers[0]._asdict(), grads.readout
        return {"loss": loss, **{k: body[k] for k in _names(work)}, "V": head.V, "c": head.c}

    return step


def autodiff(work: Work, *, hoisted: bool, unroll: int) -> Step:
    """JAX: the forward pass written as its users write it, jitted with `value_and_grad`."""
    import jax
    import jax.numpy as jnp

    _, B, _, H, _ = work.sizes

    def rnn(w: Any, state: Any, u: Any) -> Any:
        s = jnp.tanh(u + state @ w["W"].T)
        return s, s

    def lstm(w: Any, state: Any, u: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(u + h @ w["W"].T, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(w: Any, state: Any, u: Any) -> Any:
        u_r, u_z, u_n = jnp.split(u, 3, axis=-1)
        v_r, v_z, v_n = jnp.split(state @ w["W"].T, 3, axis=-1)
        r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
        n = jnp.tanh(u_n + r * (v_n + w["b_n"]))
        h = (1 - z) * n + z * state
        return h, h

    cell = {"rnn": rnn, "lstm": lstm, "gru": gru}[work.cell]

    def loss(w: dict[str, Any]) -> Any:
        zeros = jnp.zeros((B, H), work.dtype)
        start = (zeros, zeros) if work.cell == "lstm" else zeros

        def project(x: Any) -> Any:
            return x @ w["U"].T + w["b"]

        if hoisted:  # for all steps in one product
            xs, body = project(w["x"]), lambda state, u: cell(w, state, u)
        else:
            xs, body = w["x"], lambda state, x: cell(w, state, project(x))
        _, states = jax.lax.scan(body, start, xs, unroll=unroll)
        return _cross_entropy(w, states, work.targets)

    return _jitted(loss, work)


def inside_jax(work: Work) -> Step:
    """The same with the layer of `manual_bptt.jax`, whose way back is by hand."""
    layers = import_module("manual_bptt.jax")
    names = MODULES[work.cell].Params._fields

    def loss(w: dict[str, Any]) -> Any:
        params = SimpleNamespace(**{name: w.get(name) for name in names})
        found = getattr(layers, work.cell)(params, w["x"])
        states = found[0] if work.cell == "lstm" else found
        return _cross_entropy(w, states, work.targets)

    return _jitted(loss, work)


def _cross_entropy(w: dict[str, Any], states: Any, targets: Any) -> Any:
    import jax
    import jax.numpy as jnp

    log_o = jax.nn.log_softmax(states @ w["V"].T + w["c"])
    return -jnp.take_along_axis(log_o, jnp.asarray(targets)[..., None], axis=-1).sum()


def _jitted(loss: Callable[[dict[str, Any]], Any], work: Work) -> Step:
    import jax
    import jax.numpy as jnp

    if work.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    given = {k: jnp.asarray(v) for k, v in {**work.weights, "x": work.x}.items()}
    compiled = jax.jit(jax.value_and_grad(loss)).lower(given).compile()

    def step() -> dict[str, Any]:
        value, grads = jax.block_until_ready(compiled(given))
        return {"loss": value, **grads}

    return step


def torch_nn(work: Work, package: str, threads: int = 0) -> Step:
    """RNN, LSTM or GRU of the package under nn.Linear, by PyTorch's autograd; 0 for all threads."""
    import torch
    from torch import nn

    if threads:
        torch.set_num_threads(threads)
    layers = import_module(package)
    _, _, D, H, C = work.sizes
    layer = getattr(layers, work.cell.upper())(D, H)
    head = nn.Linear(H, C)
    kind = getattr(torch, work.dtype)
    layer, head = layer.to(kind), head.to(kind)
    w = {k: torch.tensor(v) for k, v in work.weights.items()}
    with torch.no_grad():
        layer.weight_ih_l0.copy_(w["U"])
        layer.weight_hh_l0.copy_(w["W"])
        layer.bias_ih_l0.copy_(w["b"])
        layer.bias_hh_l0.zero_()
        if "b_n" in w:
            layer.bias_hh_l0[2 * H :] = w["b_n"]
        head.weight.copy_(w["V"])
        head.bias.copy_(w["c"])
    x = torch.tensor(work.x, requires_grad=True)
    targets = torch.tensor(work.targets).reshape(-1)
    parameters = [*layer.parameters(), *head.parameters(), x]

    def step() -> dict[str, Any]:
        for p in parameters:
            p.grad = None
        states, _ = layer(x)
        loss = nn.functional.cross_entropy(head(states).reshape(-1, C), targets, reduction="sum")
        loss.backward()
        found = {
            "loss": loss.detach(),
            "U": layer.weight_ih_l0.grad,
            "W": layer.weight_hh_l0.grad,
            "b": layer.bias_ih_l0.grad,
            "V": head.weight.grad,
            "c": head.bias.grad,
            "x": x.grad,
        }
        if "b_n" in w:
            found["b_n"] = layer.bias_hh_l0.grad[2 * H :]
        return {k: v.numpy() for k, v in found.items()}

    return step


def products(work: Work) -> Step:
    """The matrix products alone, by the BLAS of NumPy: no layer, but a measure."""
    rng = np.random.default_rng(0)
    factors = [
        (
            rng.standard_normal((m, k)).astype(work.dtype),
            rng.standard_normal((k, n)).astype(work.dtype),
        )
        for m, k, n, _ in work.products
    ]
    times = [each for *_, each in work.products]
    results = [np.empty((len(a), b.shape[1]), work.dtype) for a, b in factors]

    def step() -> dict[str, Any]:
        for (a, b), out, many in zip(factors, results, times, strict=True):
            for _ in range(many):
                np.matmul(a, b, out=out)
        return {}

    return step


LARGE = 1024
"""Rows and columns of the product that stands for the most that the machine can do."""


def large_product(work: Work) -> Step:
    """One large matrix product, by the BLAS of NumPy."""
    a = np.random.default_rng(0).standard_normal((LARGE, LARGE)).astype(work.dtype)
    out = np.empty_like(a)

    def step() -> dict[str, Any]:
        np.matmul(a, a, out=out)
        return {}

    return step


COPIED = 2**27
"""Bytes that the large copy reads and writes: more than a cache holds."""


def large_copy(work: Work) -> Step:
    """From one half of so many bytes to the other."""
    a = np.ones(COPIED // 16)
    out = np.empty_like(a)

    def step() -> dict[str, Any]:
        np.copyto(out, a)
        return {}

    return step


def _names(work: Work) -> list[str]:
    return [*(k for k in work.weights if k not in "Vc"), "x"]


CONTESTANTS: Mapping[str, Contestant] = {
    "numba": Contestant(partial(manual, engine="numba"), ("numba",), "ours"),
    "numpy": Contestant(partial(manual, engine="numpy"), ("numpy",), "ours"),
    **{
        f"jax {place}, unroll {unroll}": Contestant(
            partial(autodiff, hoisted=place == "hoisted", unroll=unroll), ("jax",), "autodiff"
        )
        for place in ("hoisted", "in the scan")
        for unroll in (1, 4, 8)
    },
    "torch.nn": Contestant(partial(torch_nn, package="torch.nn"), ("torch",), "torch.nn"),
    "torch.nn, one thread": Contestant(
        partial(torch_nn, package="torch.nn", threads=1), ("torch",), "torch.nn"
    ),
    "by hand in jax": Contestant(inside_jax, ("jax",), "drop-in"),
    "numba in torch": Contestant(
        partial(torch_nn, package="manual_bptt.torch"), ("torch", "numba"), "drop-in"
    ),
    "bare products": Contestant(products, ("numpy",), "products"),
    "a large product": Contestant(large_product, ("numpy",), "peak"),
    "a large copy": Contestant(large_copy, ("numpy",), "bandwidth"),
}
