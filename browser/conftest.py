import shutil

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

# Playwright's own "networkidle" was seen not to come within 30 s for a page long loaded; its
# documentation advises against it.
SETTLED = "document.fonts.ready.then(() => new Promise(done => requestIdleCallback(done)))"


@pytest.fixture(scope="session")
def chromium():
    """A real browser, headless."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.fail("expected a browser, got none: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page in a window, and all that it said and asked for."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())  # until all that the page names is loaded
        self.page.evaluate(SETTLED)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.said.append(message.text)


@pytest.fixture
def opened(chromium):
    """Open a file: in a window of its own, which is closed at the end."""
    windows = []

    def window(path, **options):
        windows.append(Opened(chromium, path, **options))
        return windows[-1]

    yield window
    for one in windows:
        one.context.close()
