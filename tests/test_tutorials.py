"""Each tutorial does what it says, in the order in which it says it, and in both languages."""

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

DOCS = Path(__file__).parents[1] / "docs"
ENGLISH, CHINESE = DOCS / "tutorials", DOCS / "zh/tutorials"
NAMES = sorted(page.stem for page in ENGLISH.glob("*.md") if page.stem != "index")
PAGES = [folder / f"{name}.md" for folder in (ENGLISH, CHINESE) for name in NAMES]

FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"# ([\w.]+\.py)\n|/\* ([\w.]+\.[ch]) \*/\n")
EXIT = re.compile(r"# exit code (\d+)")
NUMBER = re.compile(r"\d+\.\d+|\d{1,3}(?:,\d{3})+|\d{3,}")
"""The figures that a page may not make up: with a decimal point, or of three digits and more."""

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONUTF8": "1",
    # as wide as the pages show it, without colours, and sums in one order on any machine
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Block(NamedTuple):
    kind: str
    text: str

    @property
    def file(self):
        """The name of the file that it is, if it is one."""
        found = self.kind in ("python", "c") and NAME.match(self.text)
        return (found[1] or found[2]) if found else None

    @property
    def runs(self):
        return self.kind == "sh" or (self.kind == "python" and not self.file)


def blocks(page):
    """Code, commands and what they print."""
    found = (Block(*fence) for fence in FENCE.findall(page.read_text("utf-8")))
    return [block for block in found if block.kind in ("python", "c", "sh", "text")]


def prose(page):
    return FENCE.sub("", page.read_text("utf-8"))


def commands(text):
    """Each line of a block of sh, and the exit code that it ends with."""
    found = []
    for line in text.splitlines():
        if code := EXIT.fullmatch(line):
            found[-1] = (found[-1][0], int(code[1]))
        else:
            found.append((line, 0))
    return found


def run(command, code, folder):
    """What the command prints; it may not complain."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    said = f"{command}\n{ended.stdout}{ended.stderr}"
    assert ended.returncode == code, said
    assert not ended.stderr.strip(), said
    return ended.stdout


def printed(block, folder):
    """What running the block prints."""
    if block.kind == "sh":
        bash = ["bash", "-euo", "pipefail", "-c"]
        return "".join(run([*bash, line], code, folder) for line, code in commands(block.text))
    script = folder / "script.py"
    script.write_text(block.text, encoding="utf-8")
    return run([sys.executable, "-W", "error", script.name], 0, folder)


def agrees(shown, got):
    """Whether the lines are the same; `…` alone is any lines, and within a line any characters."""
    lines = []
    for line in shown.splitlines():
        characters = ".*".join(re.escape(part) for part in line.rstrip().split("…"))
        lines.append("(?:.*\n)*?" if line.strip() == "…" else f"{characters} *\n")
    return re.fullmatch("".join(lines), got) is not None


def as_a_reader_would(page, folder):
    """Follow a page from top to bottom; the files beside it are there from the start."""
    beside = page.with_suffix("")
    if beside.is_dir():
        shutil.copytree(beside, folder, dirs_exist_ok=True)
    for block, then in pairwise((*blocks(page), Block("", ""))):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.runs:
            shown = then.text if then.kind == "text" else ""
            got = printed(block, folder)
            assert agrees(shown, got), f"{block.text}\nis to print\n{shown}\nbut prints\n{got}"


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_prints_what_it_says(name, tmp_path):
    as_a_reader_would(ENGLISH / f"{name}.md", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_blocks(name):
    english, chinese = (blocks(folder / f"{name}.md") for folder in (ENGLISH, CHINESE))
    assert english
    assert english == chinese


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_is_printed_stands_under_what_printed_it(page):
    found = blocks(page)
    for before, block in pairwise((Block("", ""), *found)):
        assert block.kind != "text" or before.runs, block.text
        assert block.kind != "c" or block.file, block.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_figure_of_the_prose_is_one_of_a_block(page):
    known = NUMBER.findall("\n".join(block.text for block in blocks(page)))
    assert set(NUMBER.findall(prose(page))) <= set(known)


@pytest.mark.parametrize("folder", [ENGLISH, CHINESE], ids=["english", "chinese"])
def test_the_index_lists_every_tutorial(folder):
    (toctree,) = (t for kind, t in FENCE.findall(folder.joinpath("index.md").read_text("utf-8")))
    listed = [line for line in toctree.split("\n") if line and not line.startswith(":")]
    assert len(NAMES) >= 5
    assert sorted(listed) == sorted(p.stem for p in folder.glob("*.md") if p.stem != "index")
    assert sorted(listed) == NAMES


# --- the test itself can fail


@pytest.mark.parametrize(
    ("shown", "got", "is_so"),
    [
        ("a 1.25\n", "a 1.25   \n", True),
        ("a 1.25\n", "a 1.26\n", False),
        ("a 1.2…\n", "a 1.26\n", True),
        ("a 1.2… b\n", "a 1.26\n", False),
        ("…\nc\n", "a\nb\nc\n", True),
        ("…\nc\n", "c\n", True),
        ("a\n…\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a\nc\n", "a\nb\nc\n", False),
        ("a\n…\nc\n", "a\nb\nd\n", False),
        ("", "a\n", False),
        ("", "", True),
    ],
)
def test_what_is_shown_and_what_is_printed(shown, got, is_so):
    assert agrees(shown, got) == is_so


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nprint(1 + 1)\n```\n```text\n3\n```\n", "is to print"),
        ("```python\nprint(1 + 1)\n```\n", "is to print"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "UserWarning: old"),
        ("```sh\necho careful >&2\n```\n", "careful"),
        ("```sh\nfalse\n```\n", "false"),
        ("```sh\ntrue\n# exit code 1\n```\n", "true"),
        ("```sh\nfalse | true\n```\n", "false | true"),
    ],
)
def test_a_page_that_is_wrong_fails(text, message, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(message)):
        as_a_reader_would(page, tmp_path)


def test_files_are_saved_and_those_beside_the_page_are_there(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page/there.txt").write_text("beside\n")
    (tmp_path / "page.md").write_text(
        "```python\n# one.py\nsaid = 1\n```\n```c\n/* two.c */\n```\n"
        "```sh\ncat there.txt one.py two.c\nfalse\n# exit code 1\n```\n"
        "```text\nbeside\n# one.py\nsaid = 1\n/* two.c */\n```\n"
        "```python\nfrom one import said\n\nprint(said)\n```\n```text\n1\n```\n",
        encoding="utf-8",
    )
    (tmp_path / "work").mkdir()
    as_a_reader_would(tmp_path / "page.md", tmp_path / "work")
