"""The pages that `bptt … --report` writes, in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WRONG = Path(__file__).parents[1] / "examples" / "wrong.py"

COMMANDS = {
    "fail": (1, "verify", "wrong.py", "--cases", "20", "--dtype", "float32"),
    "pass": (0, "verify", "gru", "--cases", "20"),
    "mutants": (0, "mutants", "--only", "carry-untransposed"),
    "bench": (0, "bench", "--quick", "--cell", "rnn", "--rounds", "2"),
    "gradients": (0, "gradients"),
}


def run(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "bptt_verify", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=COMMANDS)
def report(request, tmp_path_factory):
    """A page and the JSON of the same run."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copy(WRONG, folder)
    code, *words = COMMANDS[request.param]
    ended = run(folder, *words, "--report", "page.html", "--json", "run.json")
    assert ended.returncode == code, ended.stdout + ended.stderr
    return request.param, folder / "page.html"


def test_it_opens_without_a_word_and_asks_nobody(report, opened):
    _, path = report
    window = opened(path)
    assert window.said == []
    assert window.asked == [path.as_uri()]


def test_the_verdict_is_seen_first(report, opened):
    name, path = report
    verdict = opened(path, viewport={"width": 390, "height": 800}).page.locator("#verdict")
    assert verdict.is_visible()
    assert verdict.bounding_box()["y"] < 200
    words = {"fail": "fail", "pass": "pass", "mutants": "complete"}
    if name in words:
        assert verdict.inner_text().lower() == words[name]


def test_a_phone_does_not_scroll_sideways(report, opened):
    _, path = report
    page = opened(path, viewport={"width": 390, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_dark(report, opened, scheme):
    _, path = report
    page = opened(path, color_scheme=scheme).page
    back, front = page.evaluate(
        "['backgroundColor', 'color'].map(k => getComputedStyle(document.body)[k])"
    )
    assert contrast(back, front) >= 7  # WCAG 2.2, level AAA
    assert (luminance(back) > 0.5) == (scheme == "light")


def test_the_same_page_is_made_of_the_json(report):
    _, path = report
    ended = run(path.parent, "report", "run.json", "--output", "again.html")
    assert ended.returncode == 0, ended.stderr
    assert (path.parent / "again.html").read_text() == path.read_text()


@pytest.mark.parametrize("error", [0.5, 1.5, 1e3, 1e9, "inf"])
@pytest.mark.parametrize("report", ["fail"], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_on_the_map_stand_out(report, opened, scheme, error):
    _, path = report
    data = json.loads((path.parent / "run.json").read_text())
    data["reports"][0]["first_failure"]["diagnosis"]["heat"]["errors"] = [[error]]
    (path.parent / "other.json").write_text(json.dumps(data))
    assert run(path.parent, "report", "other.json").returncode == 0
    page = opened(path.with_name("other.html"), color_scheme=scheme).page
    style = "getComputedStyle(document.querySelector('.heat td'))"
    back, front = page.evaluate(f"['backgroundColor', 'color'].map(k => {style}[k])")
    card = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert contrast(over(back, card), front) >= 4.5  # WCAG 2.2, level AA


@pytest.mark.parametrize("report", ["fail"], indirect=True)
def test_the_copy_button_gives_the_command_that_fails_again(report, opened):
    _, path = report
    window = opened(path, permissions=["clipboard-read", "clipboard-write"])
    window.page.get_by_role("button", name="copy").first.click()
    window.page.get_by_role("button", name="copied").wait_for()
    copied = window.page.evaluate("navigator.clipboard.readText()")
    run_json = json.loads((path.parent / "run.json").read_text())
    assert copied == run_json["reports"][0]["first_failure"]["reproduce"]
    again = subprocess.run(
        copied.replace("bptt", f"{sys.executable} -m bptt_verify", 1),
        shell=True,
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1, again.stderr


@pytest.mark.parametrize("report", ["fail"], indirect=True)
def test_cause_and_map_are_there(report, opened):
    _, path = report
    page = opened(path).page
    assert page.get_by_text("Likely: W is transposed").first.is_visible()
    heat = page.locator("table.heat").first
    assert heat.is_visible()
    # the last step is right, what is carried back from it is not
    rows = heat.locator("tr").all_inner_texts()
    assert rows[0].startswith("t=4")
    assert max(map(float, rows[0].split()[1:])) <= 1
    assert max(map(float, rows[1].split()[1:])) > 1


def channels(colour):
    """Red, green, blue and how much covers what lies below, of rgb() or rgba()."""
    found = [float(c) for c in re.findall(r"[\d.]+", colour)]
    return found if len(found) == 4 else [*found, 1.0]


def over(colour, below):
    """A colour that may be seen through, on another one."""
    (*front, part), (*back, _) = channels(colour), channels(below)
    mixed = (part * f + (1 - part) * b for f, b in zip(front, back, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def luminance(colour):
    parts = [c / 255 for c in channels(colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
