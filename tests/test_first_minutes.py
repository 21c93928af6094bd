"""The first five minutes, step by step as docs/start.md says, in an empty folder.

What installs is left to the environment the tests run in; every other command of the page is run,
every edit made, and what the page shows is what was printed. `…` stands for anything.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "start.md").read_text("utf-8")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
INSTALL = "python -m pip install -e ."
MINE = "my_cell.py"
DIAGNOSED = "\n## From PyTorch or JAX\n"
"""Where a wrong backward has been diagnosed and mended."""


class Block(NamedTuple):
    """A fenced part of the page."""

    kind: str
    text: str


class Run(NamedTuple):
    """What a command has printed."""

    command: str
    code: int
    out: str


def blocks(text):
    return [Block(*found) for found in FENCED.findall(text)]


def steps(text):
    """The commands and the edits."""
    each = ([b.text] if b.kind == "diff" else b.text.splitlines() for b in blocks(text))
    return [
        s for b, found in zip(blocks(text), each, strict=True) if b.kind != "text" for s in found
    ]


def expected_code(command):
    said = re.search(r"# exit code (\d+)$", command)
    return int(said[1]) if said else 0


def run(command, folder):
    environment = {
        **os.environ,
        **{"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
        **{"HOME": str(folder), "SHELL": "/bin/bash"},
    }
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr.strip() == ""
    return Run(command, ended.returncode, ended.stdout)


def edit(file, diff):
    """Put the lines with + in the place of the lines with -, which are there once."""
    assert re.fullmatch(r"(-.*\n)+(\+.*\n)+", diff)
    removed, added = (
        "".join(f"{line[1:]}\n" for line in diff.splitlines() if line[0] == sign) for sign in "-+"
    )
    text = file.read_text("utf-8")
    assert text.count(removed) == 1
    file.write_text(text.replace(removed, added), encoding="utf-8")


def shown(text):
    """What the page shows, as a pattern."""
    lines = (
        r"(?:.*\n)*" if line == "…" else f"{re.escape(line).replace('…', '.*')} *\n"
        for line in text.splitlines()
    )
    return "".join(lines)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Every command of the page with what it printed, and the text that the page shows after it."""
    folder = tmp_path_factory.mktemp("machine")
    done = []
    for kind, text in blocks(PAGE):
        if kind == "sh":
            for command in text.splitlines():
                done.append(
                    (Run(INSTALL, 0, "") if command == INSTALL else run(command, folder), "")
                )
        elif kind == "diff":
            edit(folder / MINE, text)
        else:
            done[-1] = (done[-1][0], text)
    return done


def test_it_takes_fewer_than_ten_commands_and_edits():
    before, found, _ = PAGE.partition(DIAGNOSED)
    assert found
    story = steps(before)
    assert story[0] == INSTALL
    assert INSTALL in (ROOT / "README.md").read_text("utf-8")
    assert sum(step.startswith("-") for step in story) >= 2
    assert len(story) < 10


def test_every_command_ends_as_the_page_says(followed):
    for ran, _ in followed:
        assert ran.code == expected_code(ran.command), ran.out
    codes = [ran.code for ran, _ in followed if f"verify {MINE}" in ran.command]
    assert codes == [0, 1, 0]


def test_the_page_shows_what_was_printed(followed):
    assert sum(bool(text) for _, text in followed) >= 3
    for ran, text in followed:
        if text:
            assert re.fullmatch(shown(text), ran.out), f"{ran.command}\n{ran.out}"


def test_the_report_names_the_step_the_term_and_its_line(followed):
    (report,) = (ran.out for ran, _ in followed if ran.code == 1)
    likely = re.findall(r"^  likely +(.*)$", report, re.M)
    assert len(likely) == 2  # in float32 and in float64
    for term in likely:
        assert "W is transposed, or Wᵀ is not, in the product" in term
        assert "s = jax.nn.sigmoid(x_t @ U.T + s @ W.T + b + delta_t)" in term
    steps_of_delta = re.findall(r"^│ delta │ ([^│]*?) *│ all +│ yes +│$", report, re.M)
    assert steps_of_delta == ["from t=3 back (T=4)"] * 2
