"""The pictures of the reports in docs/reports.md: run, opened in a real browser, photographed.

    python docs/screenshots.py

Needs the extra "test" and a browser (apt-get install chromium).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
WRONG = HERE.parent / "examples" / "wrong.py"

COMMANDS = {
    "fail": (1, "verify", "wrong.py", "--cases", "200", "--dtype", "float32"),
    "pass": (0, "verify", "gru", "--cases", "200"),
    "mutants": (0, "mutants", "--only", "carry-untransposed"),
    "bench": (0, "bench", "--quick", "--cell", "lstm"),
    "gradients": (0, "gradients"),
}
"""The exit status, and the words of the command."""

ON_A_PHONE = "fail"
"""Photographed there too, in the dark."""


def main() -> None:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        sys.exit("expected a browser, got none: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        shutil.copy(WRONG, folder)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for kind, (status, *words) in COMMANDS.items():
            command = [sys.executable, "-m", "bptt_verify", *words, "--report", f"{kind}.html"]
            ended = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL)
            if ended.returncode != status:
                sys.exit(f"{' '.join(command)}: expected status {status}, got {ended.returncode}")
            for scheme, width, height in (("light", 1100, 900), ("dark", 420, 800)):
                if scheme == "dark" and kind != ON_A_PHONE:
                    continue
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                page.goto((folder / f"{kind}.html").as_uri())
                picture = HERE / "_static" / f"report-{kind}-{scheme}.png"
                page.screenshot(path=picture, full_page=scheme == "light")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
