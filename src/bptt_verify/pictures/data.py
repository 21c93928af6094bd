"""What the pictures show, as plain data: dicts, lists, numbers and strings, ready for JSON.

All of it comes from the hand-written side alone. Infinity and NaN, which JSON has not, are strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from manual_bptt import charlm, flow, lstm, network
from manual_bptt._door import Array
from manual_bptt.charlm import Settings
from manual_bptt.text import Split

Data = dict[str, Any]

Watch = Callable[[str, int, int], None]
"""Told what is being made, how many parts of it are done, and of how many."""

SCALES = (0.5, 1.0, 2.0)
"""Scales of W at which the error is followed."""

MOST_RADII = 50
"""Steps of a sequence at which eigenvalues are looked for: there are some 10 ms in each."""

SETTINGS = Settings(cell=lstm, hidden=64, batch=16, window=32, steps=500, learning_rate=0.02)
"""Of the character model: some seconds of training."""

FEW_CHARACTERS = 128
"""More characters than these make each step dearer, and there are fewer steps."""

LEAST_STEPS = 50

UNITS = 6
"""Units whose gates are shown."""

GATES = "ifgo"

SENTENCE = re.compile(
    r"""(?:^[ \t]*|(?<=[.!?])[ ]+|(?<=[。！？]))      # at the start of a line or after another one
    ([^\W\d_][^.!?。！？\n]{14,54}(?:[.!?](?=\s|\Z)|[。！？]))""",
    re.MULTILINE | re.VERBOSE,
)
LONGEST = 56
"""Characters of what is taken for a sentence."""


class Model(NamedTuple):
    """A character model that was trained for a few seconds."""

    characters: str
    settings: Settings
    params: network.Params
    bits: float
    """Per character, the mean of the last tenth of the training."""


def norms(
    steps: int = 50, scales: Sequence[float] = SCALES, *, hidden: int = 64, seed: int = 0
) -> Data:
    """‖δ_t‖ against t for every layer of `flow.LAYERS` at every scale of W.

    Returns `{"t": [1, …], "scales": [{"scale": s, "layers": {"tanh": [‖δ_1‖, …], …}}, …]}`.
    Arguments and errors are those of `flow.error_norms`.
    """

    def of(layer: str, scale: float) -> Array:
        return flow.error_norms(layer, steps, scale, hidden=hidden, seed=seed)

    return {"t": list(range(1, steps + 1)), "scales": _at_each(scales, of)}


def radii(
    steps: int = 50, scales: Sequence[float] = SCALES, *, hidden: int = 64, seed: int = 0
) -> Data:
    """The spectral radius of ∂s_t/∂s_{t-1} against t, of one of the sequences of `norms`.

    Data as in `norms`, for at most 50 steps spread over the sequence. Arguments and errors are
    those of `flow.spectral_radii`.
    """
    every = max(1, -(-steps // MOST_RADII))

    def of(layer: str, scale: float) -> Array:
        return flow.spectral_radii(layer, steps, scale, hidden=hidden, seed=seed, every=every)

    scaled = _at_each(scales, of)  # refuses what is no number of steps
    return {"t": list(range(1, steps + 1, every)), "scales": scaled}


def eigenvalues(
    model: Model, scales: Sequence[float] = SCALES, *, hidden: int = 64, seed: int = 0
) -> Data:
    """Eigenvalues of W as it is drawn for `norms`, and of the gates' W after the training.

    Returns `{"drawn": [{"scale": s, "re": […], "im": […]}, …], "trained": [{"gate": "i", …}, …]}`.
    """

    def of(W: Array) -> Data:
        found = np.linalg.eigvals(W.astype(np.float64)).astype(complex)
        return {"re": numbers(found.real), "im": numbers(found.imag)}

    weights = [flow.drawn("tanh", 1, s, hidden=hidden, seed=seed).layer.params.W for s in scales]
    blocks = np.split(model.params.layers[0].W, len(GATES))
    return {
        "drawn": [{"scale": s, **of(W)} for s, W in zip(scales, weights, strict=True)],
        "trained": [{"gate": g, **of(W)} for g, W in zip(GATES, blocks, strict=True)],
    }


def settings_for(text: Split, seed: int = 0) -> Settings:
    """`SETTINGS`, with fewer steps for a text of many different characters."""
    steps = SETTINGS.steps * FEW_CHARACTERS // max(len(text.characters), FEW_CHARACTERS)
    return SETTINGS._replace(steps=max(LEAST_STEPS, steps), seed=seed)


def trained(
    text: Split, settings: Settings | None = None, *, watch: Watch = lambda what, done, of: None
) -> Model:
    """An LSTM trained on the text as `bptt train` does, by default for some seconds.

    Args:
        text: what to learn.
        settings: of one layer of LSTM; those of `settings_for` when None.
        watch: told of each step.

    Raises `charlm.DivergedError` when the training leaves the range of float32, and `ValueError`
    for settings of anything but one layer of LSTM.
    """
    settings = (settings_for(text) if settings is None else settings).fitted(text)
    if settings.cell is not lstm or settings.layers != 1:
        got = f"{settings.layers} of {settings.cell.__name__}"
        raise ValueError(f"settings: expected 1 layer of {lstm.__name__}, got {got}")
    state, losses = charlm.start(text, settings), []
    for step in charlm.train(text, settings, state):
        state = step.after
        losses.append(step.loss)
        watch("training a character model", state.step, settings.steps)
    last = losses[-max(1, settings.steps // 10) :]
    return Model(text.characters, settings, state.params, float(np.mean(last) / np.log(2)))


def sentence(text: Split) -> str:
    """The first sentence of the held-out text that stands on one line and fits a picture.

    Where there is none, the first characters of it.
    """
    held_out = "".join(text.characters[i] for i in text.held_out)
    found = (match[1] for match in SENTENCE.finditer(held_out))
    return next((s for s in found if not s[0].islower()), held_out[:LONGEST])


def gates(model: Model, sentence: str, units: int = UNITS) -> Data:
    """The gates of the LSTM while it reads a sentence, of the units whose gates vary most.

    Returns `{"characters": …, "units": [n, …], "gates": {"i": [[a number for each character], … a
    list for each unit], "f": …, "g": …, "o": …}}`.

    Raises `ValueError` for an empty sentence and a character that the model does not know.
    """
    found = _read(model, sentence)[1].gates[:, 0].astype(np.float64)  # (T, 4H)
    each = dict(zip(GATES, np.split(found, len(GATES), axis=1), strict=True))  # (T, H)
    varied = np.sum([g.std(axis=0) for g in each.values()], axis=0)
    chosen = np.sort(np.argsort(-varied, kind="stable")[:units])
    return {
        "characters": sentence,
        "units": chosen.tolist(),
        "gates": {name: numbers(g[:, chosen].T) for name, g in each.items()},
    }


def states(model: Model, sentence: str) -> Data:
    """The state h of all units of the character model while it reads a sentence.

    Returns `{"characters": …, "h": [[a number for each character], … a list for each unit]}`.
    Raises as `gates` does.
    """
    h = _read(model, sentence)[0][:, 0].astype(np.float64)  # (T, H)
    return {"characters": sentence, "h": numbers(h.T)}


def everything(
    text: Split,
    steps: int = 50,
    scales: Sequence[float] = SCALES,
    *,
    hidden: int = 64,
    seed: int = 0,
    watch: Watch = lambda what, done, of: None,
) -> Data:
    """The data of all pictures, by their names: what `figures.drawn` draws.

    Beside them "model", about the character model: its cell, units, steps of training, bits per
    character. Raises as the functions of the pictures do.
    """
    made: Data = {}

    def at_each(name: str, what: str, picture: Callable[..., Data]) -> None:
        # scale by scale, so that there is something to watch
        parts = []
        for n, scale in enumerate(scales):
            parts.append(picture(steps, [scale], hidden=hidden, seed=seed))
            watch(what, n + 1, len(scales))
        made[name] = {**parts[0], "scales": [part["scales"][0] for part in parts]}

    at_each("norms", "following ‖δ_t‖", norms)
    at_each("radii", "spectral radii", radii)
    model = trained(text, settings_for(text, seed), watch=watch)
    said = sentence(text)
    return {
        **made,
        "eigenvalues": eigenvalues(model, scales, hidden=hidden, seed=seed),
        "model": {
            "cell": "lstm",
            "hidden": model.settings.hidden,
            "steps": model.settings.steps,
            "bits": model.bits,
            "characters": len(model.characters),
        },
        "gates": gates(model, said),
        "states": states(model, said),
    }


def numbers(array: Array) -> list[Any]:
    """Nested lists of an array; infinity and NaN as strings."""
    if array.ndim > 1:
        return [numbers(row) for row in array]
    return [v if np.isfinite(v) else str(v) for v in array.tolist()]


def array(values: Sequence[float | str]) -> Array:
    """The array of one dimension that `numbers` made this of."""
    return np.array([float(v) for v in values])


def _at_each(scales: Sequence[float], of: Callable[[str, float], Array]) -> list[Data]:
    return [
        {"scale": s, "layers": {name: numbers(of(name, s)) for name in flow.LAYERS}} for s in scales
    ]


def _read(model: Model, sentence: str) -> tuple[Array, lstm.Cache]:
    """h (T, 1, H) of the model over the sentence, from a state of zeros, and the LSTM's cache."""
    if not sentence:
        raise ValueError("sentence: expected at least 1 character, got none")
    unknown = sorted(set(sentence) - set(model.characters))
    if unknown:
        raise ValueError(f"sentence: expected characters of the text, got {unknown[0]!r}")
    indices = np.array([[model.characters.index(c)] for c in sentence])
    h, _, cache = network.outputs(model.settings.network, model.params, indices)
    kept: lstm.Cache = cache.kept[0]
    return h, kept
