"""Every Python example of the README and the docs runs and says what it should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{i}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_passes_as_a_script_and_as_a_file_to_verify(code, tmp_path):
    path = tmp_path / "example.py"
    path.write_text(code, encoding="utf-8")
    script = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert script.stderr == ""
    assert script.stdout.startswith("pass")
    command = [sys.executable, "-m", "bptt_verify", "verify", path, "--cases", "20"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_there_are_examples():
    assert len(EXAMPLES) >= 2
