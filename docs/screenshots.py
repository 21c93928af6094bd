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
    "fail": ("verify", "wrong.py", "--cases", "200"),
    "pass": ("verify", "lstm", "--cases", "200"),
    "mutants": ("mutants", "--only", "carry-untransposed"),
    "bench": ("bench", "--quick", "--cell", "lstm"),
    "gradients": ("gradients",),
}


def main() -> None:
    program = next(filter(None, map(shutil.which, NAMES)))
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        shutil.copy(WRONG, folder)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for kind, words in COMMANDS.items():
            command = [sys.executable, "-m", "bptt_verify", *words, "--report", f"{kind}.html"]
            subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL)
            for scheme, width, height in (("light", 1000, 900), ("dark", 420, 800)):
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                page.goto((folder / f"{kind}.html").as_uri())
                page.screenshot(path=HERE / "_static" / f"report-{kind}-{scheme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
