"""Manual against autodiff: the article's model, loss and all gradients, float32.

    python benchmarks/rnn.py [--rounds 15] [--json FILE]

Each contestant runs in a process of its own (the spinning thread pool of XLA slows NumPy in the
same process); rounds are interleaved; compile time is apart; the gradients of all contestants are
compared within the verifier's tolerance before anything is timed. Medians and ratios are quoted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

GRID = [  # T, B, D, H, C
    (50, 1, 8, 16, 8),
    (100, 8, 64, 64, 64),
    (100, 32, 128, 128, 128),
    (50, 128, 512, 512, 512),
]
NAMES = ("U", "W", "V", "b", "c", "x")
Run = Callable[[], dict[str, Any]]


def draw(shape: tuple[int, ...]) -> tuple[dict[str, Any], Any, Any]:
    """Weights, input and targets of one point of the grid."""
    from manual_bptt import model

    T, B, D, H, C = shape
    rng = np.random.default_rng(0)
    params = model.init(rng, D, H, C, dtype=np.float32)
    x = rng.standard_normal((T, B, D)).astype(np.float32)
    return params._asdict(), x, rng.integers(0, C, (T, B))


def manual(shape: tuple[int, ...]) -> Run:
    """The hand derivation in NumPy."""
    from manual_bptt import model

    weights, x, targets = draw(shape)
    params = model.Params(**weights)

    def run() -> dict[str, Any]:
        loss, grads = model.loss_and_grads(params, x, targets)
        return {"loss": loss, **{k: getattr(grads, k) for k in NAMES}}

    return run


def autodiff(shape: tuple[int, ...]) -> Run:
    """The twin under `jax.jit` and `jax.value_and_grad`."""
    from types import SimpleNamespace

    import jax
    import jax.numpy as jnp

    import jax_ref.model

    weights, x, targets = draw(shape)
    s0 = jnp.zeros((shape[1], shape[3]), jnp.float32)

    def loss(everything: dict[str, Any]) -> Any:
        params = SimpleNamespace(**{k: v for k, v in everything.items() if k != "x"})
        return jax_ref.model.forward(params, everything["x"], s0, jnp.asarray(targets))[-1]

    step = jax.jit(jax.value_and_grad(loss))
    arguments = {k: jnp.asarray(v) for k, v in {**weights, "x": x}.items()}

    def run() -> dict[str, Any]:
        value, grads = jax.block_until_ready(step(arguments))
        return {"loss": value, **grads}

    return run


CONTESTANTS = {"manual (NumPy)": manual, "autodiff (JAX, jitted)": autodiff}


def contestant(name: str, shape: tuple[int, ...], pipe: Connection) -> None:
    """A process: prepares, sends its gradients, then times one batch of calls whenever asked."""
    start = time.perf_counter()
    run = CONTESTANTS[name](shape)
    first = {k: np.asarray(v) for k, v in run().items()}
    prepared = time.perf_counter() - start
    run()
    start = time.perf_counter()
    run()
    calls = max(1, int(0.1 / (time.perf_counter() - start)))
    pipe.send((first, prepared))
    while pipe.recv():
        start = time.perf_counter()
        for _ in range(calls):
            run()
        pipe.send((time.perf_counter() - start) / calls)


def compare(shape: tuple[int, ...], results: dict[str, dict[str, Any]]) -> None:
    """Hold every contestant's gradients against the twin, by the verifier's policy."""
    from bptt_verify.compare import compare as within
    from bptt_verify.draw import Case, Drawn
    from bptt_verify.oracle import Oracle
    from bptt_verify.pairs import model_pair
    from bptt_verify.tolerance import multiplier

    T, B, D, H, C = shape
    single = np.dtype(np.float32)
    weights, x, targets = draw(shape)
    inputs = {**weights, "x": x, "s0": np.zeros((B, H), single), "targets": targets}
    drawn = Drawn({**inputs, "mask": np.ones((T, B), np.bool_)}, {"loss": np.ones((), single)})
    case = Case({"T": T, "B": B, "D": D, "H": H, "C": C}, {"activation": "tanh"})
    wanted = Oracle(model_pair(), multiplier(single)).answer(case, drawn, single).quantities
    for name, found in results.items():
        for quantity in NAMES:
            outcome = within(found[quantity], wanted[f"d{quantity}"], single)
            if not outcome.ok:
                raise SystemExit(f"{name} at {shape}: d{quantity}: {outcome.problem}")


def measure(shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """One point of the grid."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in CONTESTANTS:
        pipes[name], far = spawn.Pipe()
        process = spawn.Process(target=contestant, args=(name, shape, far), daemon=True)
        process.start()
        processes.append(process)
    ready = {name: pipe.recv() for name, pipe in pipes.items()}
    compare(shape, {name: first for name, (first, _) in ready.items()})
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            times[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    base, rival = (times[name] for name in CONTESTANTS)
    ratios = [b / a for a, b in zip(base, rival, strict=True)]
    return {
        "shape": dict(zip("TBDHC", shape, strict=True)),
        "prepare_seconds": {name: seconds for name, (_, seconds) in ready.items()},
        "seconds": times,
        "median": {name: statistics.median(t) for name, t in times.items()},
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def main() -> None:
    """Measure the grid, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **{package: version(package) for package in ("numpy", "jax", "manual-bptt")},
    }
    print("  ".join(f"{k} {v}" for k, v in machine.items()))
    print(f"{'T B D H C':>22}  {'manual ms':>10}  {'autodiff ms':>11}  autodiff / manual (range)")
    points = []
    for shape in GRID:
        point = measure(shape, options.rounds)
        ours, theirs = (1e3 * point["median"][name] for name in CONTESTANTS)
        low, high = point["ratio_range"]
        spelled = " ".join(map(str, shape))
        ratio = f"{point['ratio']:.2f} ({low:.2f} to {high:.2f})"
        print(f"{spelled:>22}  {ours:>10.3f}  {theirs:>11.3f}  {ratio}", flush=True)
        points.append(point)
    if options.json:
        part = options.json.with_name(f".{options.json.name}.part")
        part.write_text(json.dumps({"machine": machine, "points": points}, indent=2))
        part.replace(options.json)


if __name__ == "__main__":
    main()
