"""A character language model trained by the hand-written backpropagation through time.

The text runs in parallel contiguous streams, cut into windows of k steps. The state at the end of a
window is the s_0 of the next; its gradient stops at the border (truncated BPTT: within a window
the gradient is exact, across windows it is cut). Each window takes one step of Adam on the mean
loss per character, the gradient clipped in norm, the learning rate falling linearly to zero.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import _door, _tree, network, readout, rnn, training
from manual_bptt._cells import starts
from manual_bptt._door import Array, NotFiniteError
from manual_bptt._files import replacing
from manual_bptt.network import Network
from manual_bptt.text import Split, streams

FORMAT = 2
"""1 was of the recurrent layer alone."""


class Settings(NamedTuple):
    """What to train, and how."""

    cell: ModuleType = rnn
    layers: int = 1
    residual: bool = False
    hidden: int = 256
    batch: int = 32
    window: int = 64
    steps: int = 4000
    learning_rate: float = 4e-3
    clip: float = 1.0
    activation: str = "tanh"
    seed: int = 0

    @property
    def network(self) -> Network:
        """The network without its weights."""
        options = {"activation": self.activation} if takes_activation(self.cell) else {}
        return Network(self.cell, self.residual, options)

    def fitted(self, text: Split) -> Settings:
        """The same, with batch and window small enough for a short text."""
        n = len(text.train)
        batch = max(1, min(self.batch, n // (self.window + 1)))
        return self._replace(batch=batch, window=min(self.window, n // batch - 1))


class State(NamedTuple):
    """Everything that changes from step to step."""

    step: int
    params: network.Params
    adam: training.Adam
    states: network.States  # (B, H) each, where the streams stand


class Step(NamedTuple):
    """One step of training: the window, its gradient, and the state after it."""

    x: Array  # (T, B)
    targets: Array  # (T, B)
    before: State
    grads: network.Grads  # of the mean loss per character
    loss: float  # mean, in nats per character
    after: State


def usual_rate(cell: ModuleType) -> float:
    """The learning rate by default: docs/training.md says what was tried."""
    return 4e-3 if cell is rnn else 2e-2


def takes_activation(cell: ModuleType) -> bool:
    """Whether the activation of the cell can be chosen."""
    return "activation" in inspect.signature(cell.forward).parameters


def start(text: Split, settings: Settings) -> State:
    """Fresh weights in float32, all states zero."""
    params = _fresh(settings, len(text.characters))
    return State(0, params, training.adam_start(params), _zeros(settings))


def _fresh(settings: Settings, characters: int) -> network.Params:
    return network.init(
        np.random.default_rng(settings.seed),
        settings.cell,
        characters,
        settings.hidden,
        characters,
        layers=settings.layers,
        dtype=np.float32,
    )


def _zeros(settings: Settings) -> network.States:
    shape = settings.batch, settings.hidden
    layer = tuple(np.zeros(shape, np.float32) for _ in starts(settings.cell))
    return (layer,) * settings.layers


def sized(settings: Settings, characters: int, weights: int) -> Settings:
    """The same with the hidden size that comes nearest to so many weights."""
    # the number of weights is a polynomial of degree 2 in H: three values say which
    n_1, n_2, n_3 = (
        network.count(_fresh(settings._replace(hidden=H), characters)) for H in (1, 2, 3)
    )

    def counted(H: int) -> int:
        return n_1 + (H - 1) * (n_2 - n_1) + (H - 1) * (H - 2) // 2 * (n_3 - 2 * n_2 + n_1)

    above = max(2, bisect_left(range(weights), weights, key=counted))
    return settings._replace(hidden=min(above - 1, above, key=lambda H: abs(counted(H) - weights)))


def train(text: Split, settings: Settings, state: State) -> Iterator[Step]:
    """Train from `state` to the last step of `settings`.

    Raises `DivergedError` when the loss or a weight is no finite number any more.
    """
    data = streams(text.train, settings.batch)  # (N, B)
    windows = (len(data) - 1) // settings.window
    while state.step < settings.steps:
        at = state.step % windows * settings.window
        if at == 0:
            state = state._replace(states=_zeros(settings))  # back at the start of the text
        x, targets = data[at : at + settings.window], data[at + 1 : at + settings.window + 1]
        step = _step(x, targets, settings, state)
        state = step.after
        yield step


class DivergedError(ArithmeticError):
    """The loss or a weight is no finite number any more."""


def _step(x: Array, targets: Array, settings: Settings, state: State) -> Step:
    net, rate = settings.network, settings.learning_rate * (1 - state.step / settings.steps)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # looked at behind every door
            loss, cache = network.forward(net, state.params, x, targets, state.states)
            if not np.isfinite(loss):
                raise DivergedError(f"the loss is {loss} at step {state.step}")
            grads = network.backward(net, state.params, cache, 1 / x.size)
            clipped, _ = training.clip_norm(state.params, grads, settings.clip)
            params, adam = training.adam(state.params, clipped, state.adam, rate)
    except NotFiniteError as error:  # a state or a gradient left the range of float32
        raise DivergedError(f"{error} at step {state.step}") from error
    if not all(_door.all_finite(p) for _, p in _tree.leaves(params)):
        raise DivergedError(f"a weight is not finite after step {state.step}")
    after = State(state.step + 1, params, adam, _last(cache.states))
    return Step(x, targets, state, grads, float(loss) / x.size, after)


def _last(states: network.States) -> network.States:
    return tuple(tuple(a[-1].copy() for a in layer) for layer in states)


def bits(net: Network, params: network.Params, indices: Array, window: int = 1024) -> float:
    """Bits per character of a text read once from its start, state carried all the way."""
    states, total = None, 0.0
    for at in range(0, len(indices) - 1, window):
        x, y = indices[at : at + window + 1][:-1, None], indices[at + 1 : at + window + 1][:, None]
        loss, cache = network.forward(net, params, x, y, states)
        total += float(loss)
        states = _last(cache.states)
    return total / np.log(2) / (len(indices) - 1)


def sample(
    net: Network, params: network.Params, first: int, length: int, rng: np.random.Generator
) -> list[int]:
    """Characters drawn one after another from the model, starting behind `first`."""
    drawn, states = [first], None
    for _ in range(length):
        y, found, _ = network.outputs(net, params, np.array([[drawn[-1]]]), states)
        states = _last(found)
        z = readout.logits(params.readout, y).astype(np.float64)  # (1, 1, C)
        o = np.exp(readout.log_softmax(z))[0, 0]  # (C,)
        drawn.append(int(rng.choice(len(o), p=o / o.sum())))
    return drawn[1:]


def save(path: Path, text: Split, settings: Settings, state: State) -> None:
    """Write a checkpoint: under a temporary name first, then renamed. Raises `OSError`."""
    named = {**settings._asdict(), "cell": settings.cell.__name__}
    arrays: dict[str, Any] = {
        "format": np.int64(FORMAT),
        "text": np.array(fingerprint(text)),
        "step": np.int64(state.step),
        **{f"setting.{k}": np.array(v) for k, v in named.items()},
        **_arrays(state),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, text: Split, cells: Collection[ModuleType]) -> tuple[Settings, State]:
    """Read a checkpoint of this text and of one of these cells, without pickle.

    Raises `OSError` when it cannot be read and `ValueError` when it is no checkpoint, is damaged,
    is of another format or cell, or belongs to another text.
    """
    stored = _read(path)
    try:
        if int(stored["format"]) != FORMAT:
            raise ValueError(
                f"{path}: expected a checkpoint of format {FORMAT}, got {int(stored['format'])}"
            )
        if str(stored["text"]) != fingerprint(text):
            raise ValueError(f"{path}: was trained on another text")
        named = {k: stored[f"setting.{k}"].item() for k in Settings._fields}
        known = {cell.__name__: cell for cell in cells}
        if named["cell"] not in known:
            raise ValueError(
                f"{path}: expected one of the cells {', '.join(known)}, got {named['cell']}"
            )
        settings = Settings(**{**named, "cell": known[named["cell"]]})
        # sizes of the arrays that are there, so that none are made that nobody could hold
        layers = sum(re.fullmatch(r"states\.\d+\.0", name) is not None for name in stored)
        found = stored["states.0.0"].shape, layers
        if found != ((settings.batch, settings.hidden), settings.layers):
            raise ValueError(f"{path}: its settings are not those of its arrays")
        # the same arrays as at the start, with other values in them
        fresh = start(text, settings)
        for name, array in _arrays(fresh).items():
            wanted, got = (f"{a.shape} of {a.dtype}" for a in (array, stored[name]))
            if got != wanted:
                raise ValueError(f"{path}: {name}: expected {wanted}, got {got}")
        step = int(stored["step"])
        if step < 0 or not all(_door.all_finite(stored[name]) for name in _arrays(fresh)):
            raise ValueError(f"{path}: damaged: a step below 0, or numbers that are not finite")
        m, v = ({k: stored[f"adam.{which}.{k}"] for k in fresh.adam.m} for which in "mv")
        params = _tree.filled(fresh.params, stored, "params")
        states = _tree.filled(fresh.states, stored, "states")
        return settings, State(step, params, training.Adam(step, m, v), states)
    except KeyError as error:
        raise ValueError(f"{path}: not a checkpoint: no {error}") from None


def _arrays(state: State) -> dict[str, Array]:
    """All arrays of a state, by name."""
    return {
        **dict(_tree.leaves(state.params, "params")),
        **dict(_tree.leaves(state.states, "states")),
        **{f"adam.m.{k}": m for k, m in state.adam.m.items()},
        **{f"adam.v.{k}": v for k, v in state.adam.v.items()},
    }


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged or not a checkpoint ({error})") from None


def fingerprint(text: Split) -> str:
    """A hash of the text, by which a checkpoint knows it again."""
    digest = hashlib.sha256(text.characters.encode())
    digest.update(np.concatenate([text.train, text.held_out]).astype("<i8").tobytes())
    return digest.hexdigest()
