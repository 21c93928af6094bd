"""Every Python example of the README and the docs runs and says what it should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {
    page.name: re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
EXAMPLES = [(page, i) for page, codes in PAGES.items() for i in range(len(codes))]


def name(code):
    """An example that opens with the name of a file is one that others on its page may import."""
    opening = re.match(r"# (\w+\.py)\n", code)
    return opening[1] if opening else "example.py"


def chosen(holds):
    return [pytest.param(*e, id=f"{e[0]}-{e[1]}") for e in EXAMPLES if holds(PAGES[e[0]][e[1]])]


@pytest.fixture
def saved(tmp_path):
    """Save a page's files, and one example last: the path of that one."""

    def save(page, i):
        for code in (*filter(lambda code: name(code) != "example.py", PAGES[page]), PAGES[page][i]):
            path = tmp_path / name(code)
            path.write_text(code, encoding="utf-8")
        return path

    return save


def run(*command, folder):
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("page", "i"), chosen(lambda code: "verify(" in code))
def test_example_passes_as_a_script_and_as_a_file_to_verify(page, i, saved):
    path = saved(page, i)
    script = run(path, folder=path.parent)
    assert script.stderr == ""
    assert script.stdout.startswith("pass")
    ended = run("-m", "bptt_verify", "verify", path, "--cases", "20", folder=path.parent)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("page", "i"), chosen(lambda code: name(code).startswith("test_")))
def test_example_passes_as_a_test(page, i, saved):
    path = saved(page, i)
    ended = run("-m", "pytest", "-W", "error", "--bptt-cases", "20", path, folder=path.parent)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def stands_alone(code):
    """Whether an example is a script that verifies nothing."""
    tested = "verify(" in code or name(code).startswith("test_")
    return not tested and name(code) == "example.py"


@pytest.mark.parametrize(("page", "i"), chosen(stands_alone))
def test_example_runs_without_a_word(page, i, saved):
    path = saved(page, i)
    ended = run("-W", "error", path, folder=path.parent)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_every_example_is_run_or_imported_by_one_that_is():
    assert len(EXAMPLES) >= 9
    for page, i in EXAMPLES:
        code = PAGES[page][i]
        if not ("verify(" in code or name(code).startswith("test_") or stands_alone(code)):
            module = name(code).removesuffix(".py")
            wanted = (f"from {module} import", f"import {module}\n")
            assert any(w in other for other in PAGES[page] for w in wanted)
