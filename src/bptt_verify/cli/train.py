"""`bptt train`: the hand-written gradients at work on real text."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich.progress import TextColumn
from rich.table import Table

from bptt_verify.cli.console import (
    UsageError,
    Whole,
    check_writable,
    console,
    errors,
    progress,
    write_json,
)
from bptt_verify.compare import Comparison
from bptt_verify.live import Live
from manual_bptt import charlm
from manual_bptt import text as texts
from manual_bptt.charlm import Settings, State, Step
from manual_bptt.text import Split

FAILED = 1
INTERRUPTED = 130


def train(
    text: Path | None = None,
    /,
    *,
    steps: Whole | None = None,
    hidden: Whole | None = None,
    batch: Whole | None = None,
    window: Whole | None = None,
    learning_rate: float | None = None,
    activation: Literal["tanh", "sigmoid", "relu"] | None = None,
    seed: Whole | None = None,
    verify_every: Whole = 0,
    checkpoint: Path | None = None,
    resume: Path | None = None,
    sample: Whole = 300,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Train a character language model by the hand-written backpropagation through time.

    The state is carried from window to window and the gradient cut at the border (truncated BPTT).
    The last 5 % of the text are held out. Ctrl-C saves a checkpoint and ends with exit code 130.

    Example: `bptt train --steps 200 --verify-every 100`

    Parameters
    ----------
    text
        A UTF-8 text file. Without it, the language reference that ships inside Python.
    steps
        Windows to train on, in all (a resumed run counts those it has behind it). [default: 4000]
    hidden
        Size H of the state. [default: 256]
    batch
        Streams B side by side. [default: 32]
    window
        Steps T of a window. [default: 64]
    learning_rate
        Of Adam, falling linearly to zero. [default: 0.004]
    activation
        tanh, sigmoid or relu. [default: tanh]
    seed
        Of the first weights and of the sample. [default: 0]
    verify_every
        Every so many steps hold the gradient in use against the twin; end with exit code 1 when
        they disagree. 0 for never.
    checkpoint
        Write a checkpoint (.npz) there at the end.
    resume
        Go on from a checkpoint of the same text.
    sample
        Characters of generated text to print at the end.
    json_file
        Write the figures there too, as JSON.
    """
    if verify_every < 0 or sample < 0:
        raise UsageError("--verify-every and --sample: expected at least 0")
    check_writable(json_file)
    check_writable(checkpoint)
    wanted: dict[str, int | float | str | None] = {
        "steps": steps,
        "hidden": hidden,
        "batch": batch,
        "window": window,
        "learning_rate": learning_rate,
        "activation": activation,
        "seed": seed,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    split = _split(text)
    settings, state = _begin(split, given, resume)
    console.print(
        f"{len(split.train)} characters to learn from, {len(split.held_out)} held out, "
        f"{len(split.characters)} different; H={settings.hidden} B={settings.batch} "
        f"T={settings.window} {settings.activation}, {settings.steps} steps",
        highlight=False,
    )
    run = _Run(split, settings, state, verify_every)
    started = time.perf_counter()
    try:
        run.go()
    except charlm.DivergedError as error:
        raise UsageError(f"{error}: try a smaller --learning-rate") from error
    seconds = time.perf_counter() - started
    if run.wrong:
        return run.say_wrong()
    if run.interrupted or checkpoint is not None:
        path = checkpoint or _free_name(Path("bptt-train.npz"))
        _save(path, split, settings, run.state)
    if run.interrupted:
        errors.print(f"bptt: stopped at step {run.state.step}; go on with --resume {path}")
        return INTERRUPTED
    figures = _figures(split, settings, run, seconds)
    try:
        if json_file is not None:
            write_json(json_file, figures)
    finally:
        if checkpoint is not None:
            console.print(f"checkpoint: {checkpoint}", highlight=False)
        _show(split, settings, run.state, figures, sample)
    return 0


class _Run:
    """The training loop, watched: a bar, the check against the twin, Ctrl-C between two steps."""

    def __init__(self, split: Split, settings: Settings, state: State, verify_every: int) -> None:
        self.split, self.settings, self.state = split, settings, state
        self.verify_every = verify_every
        self.verified = 0
        self.done = 0
        self.interrupted = False
        self.wrong: dict[str, Comparison] = {}
        self._live = Live(settings)

    def go(self) -> None:
        """Train to the end, to the first disagreement with the twin, or to Ctrl-C."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        first = self.state.step
        speed = TextColumn("{task.fields[figures]}")
        try:
            with progress(speed) as bar:
                task = bar.add_task(
                    "training", total=self.settings.steps, completed=first, figures=""
                )
                started, running = time.perf_counter(), math.nan
                for step in charlm.train(self.split, self.settings, self.state):
                    if self._due(step) and not self._agrees(step):
                        return
                    self.state = step.after
                    self.done += step.x.size
                    bits = step.loss / math.log(2)
                    running = bits if math.isnan(running) else 0.95 * running + 0.05 * bits
                    rate = self.done / (time.perf_counter() - started)
                    figures = f"{running:.2f} bits/char  {rate:,.0f} chars/s"
                    bar.update(task, completed=self.state.step, figures=figures)
                    if self.interrupted:
                        return
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        self.interrupted = True  # looked at between two steps, so that no step is half done

    def _due(self, step: Step) -> bool:
        return self.verify_every > 0 and step.before.step % self.verify_every == 0

    def _agrees(self, step: Step) -> bool:
        found = self._live.compare(step)
        self.verified += 1
        self.wrong = {name: c for name, c in found.items() if not c.ok}
        return not self.wrong

    def say_wrong(self) -> int:
        """The disagreement, row by row."""
        table = Table(title=f"step {self.state.step}: the gradient disagrees with the twin")
        table.add_column("what")
        table.add_column("worst entry")
        for name, c in self.wrong.items():
            table.add_row(name, c.problem)
        console.print(table)
        return FAILED


def _split(path: Path | None) -> Split:
    if path is None:
        from pydoc_data.topics import topics

        return texts.split("\n".join(topics.values()))
    try:
        content = path.read_bytes().decode("utf-8-sig")
        if "\0" in content:
            raise UsageError(f"{path}: not a text: a NUL at character {content.index(chr(0))}")
        return texts.split(content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _begin(
    split: Split, given: dict[str, int | float | str], resume: Path | None
) -> tuple[Settings, State]:
    if resume is None:
        settings = _checked(Settings(**given), given)  # type: ignore[arg-type]
        settings = settings.fitted(split)
        return settings, charlm.start(split, settings)
    changed = set(given) - {"steps", "learning_rate"}
    if changed:
        names = ", ".join(f"--{name}" for name in sorted(changed))
        raise UsageError(f"{names}: a resumed run keeps what it was started with")
    try:
        settings, state = charlm.load(resume, split)
    except OSError as error:
        raise UsageError(f"{resume}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    settings = _checked(settings._replace(**given), given)  # type: ignore[arg-type]
    if state.step >= settings.steps:
        raise UsageError(
            f"{resume}: has all its {settings.steps} steps behind it; "
            f"go on with --steps of more than {state.step}"
        )
    return settings, state


def _checked(settings: Settings, given: dict[str, int | float | str]) -> Settings:
    for name in ("steps", "hidden", "batch", "window"):
        if getattr(settings, name) < 1:
            raise UsageError(f"--{name}: expected at least 1, got {given[name]}")
    if not (settings.learning_rate > 0 and math.isfinite(settings.learning_rate)):
        raise UsageError(f"--learning-rate: expected more than 0, got {settings.learning_rate}")
    if settings.seed < 0:
        raise UsageError(f"--seed: expected at least 0, got {settings.seed}")
    return settings


def _figures(split: Split, settings: Settings, run: _Run, seconds: float) -> dict[str, float]:
    return {
        "held_out_bits": charlm.bits(run.state.params, split.held_out, settings.activation),
        "unigram_bits": texts.unigram_bits(split),
        "bigram_bits": texts.bigram_bits(split),
        "steps": run.state.step,
        "seconds": seconds,
        "characters_per_second": run.done / seconds,
        "verified_steps": run.verified,
    }


def _show(
    split: Split, settings: Settings, state: State, figures: dict[str, float], length: int
) -> None:
    table = Table(title="bits per held-out character", title_justify="left")
    for column in ("unigrams", "bigrams", "this model"):
        table.add_column(column, justify="right")
    keys = ("unigram_bits", "bigram_bits", "held_out_bits")
    table.add_row(*(f"{figures[key]:.3f}" for key in keys))
    console.print(table)
    seconds, rate = figures["seconds"], figures["characters_per_second"]
    console.print(f"{seconds:.1f} s, {rate:,.0f} characters/s", highlight=False)
    if figures["verified_steps"]:
        console.print(f"{figures['verified_steps']} gradients agree with the twin", highlight=False)
    if length:
        rng = np.random.default_rng(settings.seed)
        first = int(split.held_out[0])
        drawn = charlm.sample(state.params, first, length, settings.activation, rng)
        console.print("\nsample:", style="dim")
        console.write("".join(split.characters[i] for i in drawn))


def _save(path: Path, split: Split, settings: Settings, state: State) -> None:
    try:
        charlm.save(path, split, settings, state)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _free_name(path: Path) -> Path:
    """The path, or the first numbered variant of it that is not taken."""
    n = 2
    free = path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{n}")
        n += 1
    return free
