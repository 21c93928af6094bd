"""A character language model trained by the hand-written backpropagation through time.

The text runs in parallel contiguous streams, cut into windows of k steps. The state at the end of a
window is the s_0 of the next; its gradient stops at the border (truncated BPTT: within a window
the gradient is exact, across windows it is cut). Each window takes one step of Adam on the mean
loss per character, the gradient clipped in norm, the learning rate falling linearly to zero.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import model, readout, rnn, training
from manual_bptt._door import Array
from manual_bptt._files import replacing
from manual_bptt.text import Split, streams

FORMAT = 1


class Settings(NamedTuple):
    """How to train."""

    hidden: int = 256
    batch: int = 32
    window: int = 64
    steps: int = 4000
    learning_rate: float = 4e-3
    clip: float = 1.0
    activation: str = "tanh"
    seed: int = 0

    def fitted(self, text: Split) -> Settings:
        """The same, with batch and window small enough for a short text."""
        n = len(text.train)
        batch = max(1, min(self.batch, n // (self.window + 1)))
        return self._replace(batch=batch, window=min(self.window, n // batch - 1))


class State(NamedTuple):
    """Everything that changes from step to step."""

    step: int
    params: model.Params
    adam: training.Adam
    s: Array  # (B, H), where the streams stand


class Step(NamedTuple):
    """One step of training: the window, its gradient, and the state after it."""

    x: Array  # (T, B)
    targets: Array  # (T, B)
    before: State
    grads: model.Grads  # of the mean loss per character
    loss: float  # mean, in nats per character
    after: State


def start(text: Split, settings: Settings) -> State:
    """Fresh weights in float32, state zero."""
    size = len(text.characters)
    rng = np.random.default_rng(settings.seed)
    params = model.init(rng, size, settings.hidden, size, dtype=np.float32)
    s = np.zeros((settings.batch, settings.hidden), np.float32)
    return State(0, params, training.adam_start(params), s)


def train(text: Split, settings: Settings, state: State) -> Iterator[Step]:
    """Train from `state` to the last step of `settings`.

    Raises `DivergedError` when the loss or a weight is no finite number any more.
    """
    data = streams(text.train, settings.batch)  # (N, B)
    windows = (len(data) - 1) // settings.window
    while state.step < settings.steps:
        at = state.step % windows * settings.window
        if at == 0:
            state = state._replace(s=np.zeros_like(state.s))  # back at the start of the text
        x, targets = data[at : at + settings.window], data[at + 1 : at + settings.window + 1]
        step = _step(x, targets, settings, state)
        state = step.after
        yield step


class DivergedError(ArithmeticError):
    """The loss or a weight is no finite number any more."""


def _step(x: Array, targets: Array, settings: Settings, state: State) -> Step:
    with np.errstate(over="ignore", invalid="ignore"):  # looked at right below
        try:
            loss, cache = model.forward(
                state.params, x, targets, s0=state.s, activation=settings.activation
            )
        except OverflowError as error:
            raise DivergedError(f"{error} at step {state.step}") from error
        if not np.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at step {state.step}")
        grads = model.backward(state.params, cache, 1 / x.size)
        clipped, _ = training.clip_norm(state.params, grads, settings.clip)
        rate = settings.learning_rate * (1 - state.step / settings.steps)
        params, adam = training.adam(state.params, clipped, state.adam, rate)
    if not all(np.isfinite(p).all() for p in params if p is not None):
        raise DivergedError(f"a weight is not finite after step {state.step}")
    after = State(state.step + 1, params, adam, cache.rnn.states[-1].copy())
    return Step(x, targets, state, grads, float(loss) / x.size, after)


def bits(params: model.Params, indices: Array, activation: str, window: int = 1024) -> float:
    """Bits per character of a text read once from its start, state carried all the way."""
    s, total = None, 0.0
    for at in range(0, len(indices) - 1, window):
        x, y = indices[at : at + window + 1][:-1, None], indices[at + 1 : at + window + 1][:, None]
        loss, cache = model.forward(params, x, y, s0=s, activation=activation)
        total += float(loss)
        s = cache.rnn.states[-1]
    return total / np.log(2) / (len(indices) - 1)


def sample(
    params: model.Params, first: int, length: int, activation: str, rng: np.random.Generator
) -> list[int]:
    """Characters drawn one after another from the model, starting behind `first`."""
    layer, output = rnn.Params(params.U, params.W, params.b), readout.Params(params.V, params.c)
    drawn, s = [first], None
    for _ in range(length):
        states, _ = rnn.forward(layer, np.array([[drawn[-1]]]), s, activation)
        s = states[-1]
        z = readout.logits(output, states).astype(np.float64)  # (1, 1, C)
        o = np.exp(readout.log_softmax(z))[0, 0]  # (C,)
        drawn.append(int(rng.choice(len(o), p=o / o.sum())))
    return drawn[1:]


def save(path: Path, text: Split, settings: Settings, state: State) -> None:
    """Write a checkpoint: under a temporary name first, then renamed. Raises `OSError`."""
    arrays: dict[str, Any] = {
        "format": np.int64(FORMAT),
        "text": np.array(fingerprint(text)),
        "step": np.int64(state.step),
        "s": state.s,
        **{f"setting.{k}": np.array(v) for k, v in settings._asdict().items()},
        **{f"params.{k}": v for k, v in state.params._asdict().items()},
        **{f"adam.m.{k}": v for k, v in state.adam.m.items()},
        **{f"adam.v.{k}": v for k, v in state.adam.v.items()},
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, text: Split) -> tuple[Settings, State]:
    """Read a checkpoint of this text, without pickle.

    Raises `OSError` when it cannot be read and `ValueError` when it is no checkpoint, is damaged,
    is of another format, or belongs to another text.
    """
    stored = _read(path)
    try:
        if int(stored["format"]) != FORMAT:
            raise ValueError(f"{path}: expected format {FORMAT}, got {int(stored['format'])}")
        if str(stored["text"]) != fingerprint(text):
            raise ValueError(f"{path}: was trained on another text")
        settings = Settings(**{k: stored[f"setting.{k}"].item() for k in Settings._fields})
        names = model.Params._fields
        params = model.Params(**{k: stored[f"params.{k}"] for k in names})
        step = int(stored["step"])
        m, v = ({k: stored[f"adam.{which}.{k}"] for k in names} for which in "mv")
        return settings, State(step, params, training.Adam(step, m, v), stored["s"])
    except KeyError as error:
        raise ValueError(f"{path}: not a checkpoint: no {error}") from None


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
