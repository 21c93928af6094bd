"""`bptt train`: the hand-written gradients at work on real text."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from rich.progress import TextColumn
from rich.table import Table

from bptt_verify.cli.console import (
    UsageError,
    Whole,
    check_least,
    check_writable,
    console,
    errors,
    progress,
    write_json,
)
from bptt_verify.compare import Comparison
from bptt_verify.live import Live
from bptt_verify.network import TRAINED
from manual_bptt import charlm, network, rnn
from manual_bptt import text as texts
from manual_bptt.charlm import Settings, State, Step
from manual_bptt.text import Split

FAILED = 1
INTERRUPTED = 130


CELL = Parameter(help=f"{', '.join(TRAINED)}. [default: rnn]")


def train(
    text: Path | None = None,
    /,
    *,
    cell: Annotated[str | None, CELL] = None,
    layers: Whole | None = None,
    residual: Annotated[bool, Parameter(negative="")] = False,
    no_rival: Annotated[bool, Parameter(negative="")] = False,
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

    Another cell than rnn is compared with the vanilla rnn of as many weights, trained after it in
    the same way; Ctrl-C then ends that one, and the figures of the first are printed.

    Example: `bptt train --steps 60 --verify-every 30`

    Example: `bptt train --cell lstm --layers 2 --residual --steps 40`

    Parameters
    ----------
    text
        A UTF-8 text file. Without it, the language reference that ships inside Python.
    cell
        What the layers are made of.
    layers
        Layers one above the other. [default: 1]
    residual
        Let each layer above the first add its input to its output.
    no_rival
        Leave out the rnn that another cell is compared with.
    steps
        Windows to train on, in all (a resumed run counts those it has behind it). [default: 4000]
    hidden
        Size H of the state of each layer. [default: 256 for one layer of rnn, and for others what
        comes nearest to as many weights]
    batch
        Streams B side by side; fewer for a short text. [default: 32]
    window
        Steps T of a window; fewer for a short text. [default: 64]
    learning_rate
        Of Adam, falling linearly to zero. [default: 0.004 for the rnn, 0.02 for other cells]
    activation
        tanh, sigmoid or relu, of the rnn. [default: tanh]
    seed
        Of the first weights and of the sample. [default: 0]
    verify_every
        Every so many steps hold the gradient in use against the twin; end with exit code 1 when
        they disagree. 0 for never.
    checkpoint
        Write a checkpoint (.npz) there at the end of the run, before any rnn to compare with.
    resume
        Go on from a checkpoint of the same text. What it is compared with starts afresh.
    sample
        Characters of generated text to print at the end.
    json_file
        Write the figures there too, as JSON.
    """
    check_least("--verify-every", verify_every, 0)
    check_least("--sample", sample, 0)
    check_writable(json_file)
    check_writable(checkpoint)
    wanted: dict[str, Any] = {
        "cell": cell,
        "layers": layers,
        "residual": residual or None,
        "steps": steps,
        "hidden": hidden,
        "batch": batch,
        "window": window,
        "learning_rate": learning_rate,
        "activation": activation,
        "seed": seed,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    if cell is not None:
        if cell not in TRAINED:
            raise UsageError(f"--cell: expected one of {', '.join(TRAINED)}, got {cell}")
        given["cell"] = TRAINED[cell].by_hand
    split = split_of(text)
    settings, state = _begin(split, given, resume)
    console.print(
        f"{len(split.train)} characters to learn from, {len(split.held_out)} held out, "
        f"{len(split.characters)} different; {_in_words(settings)}",
        highlight=False,
    )
    run = _Run(split, settings, state, verify_every)
    try:
        run.go()
    except charlm.DivergedError as error:
        raise UsageError(f"{error}: try a smaller --learning-rate") from error
    if run.wrong:
        return run.say_wrong()
    if run.interrupted or checkpoint is not None:
        path = checkpoint or _free_name(Path("bptt-train.npz"))
        _save(path, split, settings, run.state)
    if run.interrupted:
        errors.print(f"bptt: stopped at step {run.state.step}; go on with --resume {path}")
        return INTERRUPTED
    figures = {
        **_figures(split, run),
        "unigram_bits": texts.unigram_bits(split),
        "bigram_bits": texts.bigram_bits(split),
        "rival": None,
    }
    stopped = False
    if not no_rival and settings.cell is not rnn:
        against = _Run(split, *_rival(split, run.state, settings))
        console.print(
            f"the {_in_words(against.settings)}, to compare with; --no-rival leaves it out"
        )
        try:
            against.go()
        except charlm.DivergedError as error:
            errors.print(f"bptt: the rnn to compare with has no figures: {error}")
        else:
            stopped = against.interrupted
            figures["rival"] = None if stopped else _figures(split, against)
    try:
        if json_file is not None:
            write_json(json_file, figures)
    finally:
        if checkpoint is not None:
            console.print(f"checkpoint: {checkpoint}", highlight=False)
        _show(split, run, figures, sample)
    if stopped:
        errors.print(f"bptt: stopped at step {against.state.step} of the rnn to compare with")
        return INTERRUPTED
    return 0


class _Run:
    """The training loop, watched: a bar, the check against the twin, Ctrl-C between two steps."""

    def __init__(
        self, split: Split, settings: Settings, state: State, verify_every: int = 0
    ) -> None:
        self.split, self.settings, self.state = split, settings, state
        self.verify_every = verify_every
        self.verified = 0
        self.done = 0
        self.interrupted = False
        self.wrong: dict[str, Comparison] = {}
        self.seconds = 0.0
        self._live = Live(settings, TRAINED[_name(settings)]) if verify_every else None

    def go(self) -> None:
        """Train to the end, to the first disagreement with the twin, or to Ctrl-C."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        first = self.state.step
        started = time.perf_counter()
        speed = TextColumn("{task.fields[figures]}")
        try:
            with progress(speed) as bar:
                task = bar.add_task(
                    "training", total=self.settings.steps, completed=first, figures=""
                )
                running = math.nan
                for step in charlm.train(self.split, self.settings, self.state):
                    if self._due(step) and not self._agrees(step):
                        return
                    self.state = step.after
                    self.done += step.x.size
                    bits = step.loss / math.log(2)
                    running = bits if math.isnan(running) else 0.95 * running + 0.05 * bits
                    self.seconds = time.perf_counter() - started
                    rate = self.done / self.seconds
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
        assert self._live is not None
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


def split_of(path: Path | None) -> Split:
    """The text of a file; without one, the language reference that ships inside Python.

    Raises `UsageError` for a file that cannot be read, or is no text.
    """
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


def _begin(split: Split, given: dict[str, Any], resume: Path | None) -> tuple[Settings, State]:
    if resume is None:
        settings = _checked(Settings(**given), given)
        if "learning_rate" not in given:
            settings = settings._replace(learning_rate=charlm.usual_rate(settings.cell))
        if "hidden" not in given:
            weights = network.count(charlm.start(split, Settings()).params)
            settings = charlm.sized(settings, len(split.characters), weights)
        settings = settings.fitted(split)
        return settings, charlm.start(split, settings)
    changed = set(given) - {"steps", "learning_rate"}
    if changed:
        names = ", ".join(f"--{name}" for name in sorted(changed))
        raise UsageError(f"{names}: a resumed run keeps what it was started with")
    try:
        settings, state = charlm.load(resume, split, [cell.by_hand for cell in TRAINED.values()])
    except OSError as error:
        raise UsageError(f"{resume}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    settings = _checked(settings._replace(**given), given)
    if state.step >= settings.steps:
        raise UsageError(
            f"{resume}: has {state.step} steps behind it; go on with --steps of more than that"
        )
    return settings, state


def _checked(settings: Settings, given: dict[str, Any]) -> Settings:
    for name in ("layers", "steps", "hidden", "batch", "window"):
        check_least(f"--{name}", getattr(settings, name), 1)
    if not (settings.learning_rate > 0 and math.isfinite(settings.learning_rate)):
        raise UsageError(f"--learning-rate: expected more than 0, got {settings.learning_rate}")
    check_least("--seed", settings.seed, 0)
    if settings.residual and settings.layers == 1:
        raise UsageError("--residual: expected --layers of at least 2, got 1")
    if "activation" in given and not charlm.takes_activation(settings.cell):
        raise UsageError(f"--activation: expected --cell rnn, got {_name(settings)}")
    return settings


def _name(settings: Settings) -> str:
    return next(n for n, cell in TRAINED.items() if cell.by_hand is settings.cell)


def _in_words(settings: Settings) -> str:
    s = settings
    stack = f"{s.layers} layers of " if s.layers > 1 else ""
    more = f" {s.activation}" if charlm.takes_activation(s.cell) else ""
    more += " residual" if s.residual else ""
    sizes = f"H={s.hidden} B={s.batch} T={s.window}"
    return f"{stack}{_name(s)} {sizes}{more}, {s.steps} steps"


def _rival(split: Split, state: State, settings: Settings) -> tuple[Settings, State]:
    """The vanilla rnn of as many weights, to be trained in the same way.

    With its own usual learning rate, unless the cell had another than its usual one.
    """
    plain = settings._replace(cell=rnn, layers=1, residual=False)
    if settings.learning_rate == charlm.usual_rate(settings.cell):
        plain = plain._replace(learning_rate=charlm.usual_rate(rnn))
    plain = charlm.sized(plain, len(split.characters), network.count(state.params))
    return plain, charlm.start(split, plain)


def _figures(split: Split, run: _Run) -> dict[str, Any]:
    settings, params = run.settings, run.state.params
    return {
        "cell": _name(settings),
        "layers": settings.layers,
        "hidden": settings.hidden,
        "weights": network.count(params),
        "learning_rate": settings.learning_rate,
        "held_out_bits": charlm.bits(settings.network, params, split.held_out),
        "steps": run.state.step,
        "seconds": run.seconds,
        "characters_per_second": run.done / run.seconds,
        "verified_steps": run.verified,
    }


def _show(split: Split, run: _Run, figures: dict[str, Any], length: int) -> None:
    table = Table(title="bits per held-out character", title_justify="left")
    columns = {"unigrams": figures["unigram_bits"], "bigrams": figures["bigram_bits"]}
    for found in (figures["rival"], figures):
        if found is not None:
            stack = f"{found['layers']} layers of " if found["layers"] > 1 else ""
            name = f"{stack}{found['cell']}, {found['weights']:,} weights"
            columns[name] = found["held_out_bits"]
    for column in columns:
        table.add_column(column, justify="right")
    table.add_row(*(f"{bits:.3f}" for bits in columns.values()))
    console.print(table)
    seconds, rate = figures["seconds"], figures["characters_per_second"]
    console.print(f"{seconds:.1f} s, {rate:,.0f} characters/s", highlight=False)
    if figures["verified_steps"]:
        console.print(f"{figures['verified_steps']} gradients agree with the twin", highlight=False)
    if length:
        rng = np.random.default_rng(run.settings.seed)
        first = int(split.held_out[0])
        drawn = charlm.sample(run.settings.network, run.state.params, first, length, rng)
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
