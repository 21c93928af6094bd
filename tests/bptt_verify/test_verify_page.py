"""Pages and the JSON they are made of; what a browser makes of them is in browser/."""

import json
import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verify import Pair, page, verify
from bptt_verify.cli import main
from bptt_verify.report import BINS, from_plain, jsonable, plain
from dense import PAIR as RIGHT


def wrong(i):
    return {**i, "w": i["w"] * 2}


KILLED = {
    **{"command": "mutants", "versions": {}, "complete": True, "cases": 50, "seed": 0},
    **{"mutants": [], "no_mutant": [], "killed": {"bptt verify": 0}},
}


@pytest.fixture(scope="module")
def failed():
    backward = RIGHT.backward
    return verify(
        replace(RIGHT, backward=lambda kept, d: wrong(backward(kept, d))), 20, dtype="float32"
    )


def test_report_comes_back_from_its_json(failed):
    for report in (failed, verify(RIGHT, 20)):
        assert from_plain(json.loads(report.to_json())) == report


def test_spread_counts_every_case_once(failed):
    report = verify(RIGHT, 300, dtype="float32")
    assert sum(report.spread) == report.cases
    assert len(report.spread) == BINS + 1
    assert report.spread[-1] == 0
    # some case strays as far as the worst row says, none farther
    worst = max(row.error for row in report.rows if row.name in RIGHT.quantities())
    assert np.flatnonzero(report.spread).max() == int(worst * BINS)
    assert failed.spread[-1] > 0
    assert sum(failed.spread) == failed.cases


def test_heat_is_that_of_the_cause(failed):
    heat = failed.first_failure.diagnosis.heat
    assert heat.quantity == "dw"
    assert not heat.steps
    assert not heat.folded  # a weight has no sequences
    assert "Along axes that are not shown" not in page.render(plain("verify", [failed]))
    assert np.min(heat.errors) > 1


def test_heat_has_a_row_for_each_step_and_a_column_for_each_unit():
    def way_back(kept, d):
        slope = 1 - kept**2
        slope[1, 3] = 2  # step 2, unit 4
        return {"x": d["y"] * slope}

    pair = Pair(
        name="pointwise",
        inputs={"x": "T H B"},
        outputs={"y": "T H B"},
        forward=lambda i: ({"y": np.tanh(i["x"])}, np.tanh(i["x"])),
        backward=way_back,
        twin=lambda i: {"y": jnp.tanh(i["x"])},
    )
    case = "T=4 H=5 B=3 seed=0"
    report = verify(pair, case=case, dtype="float32")
    heat = report.first_failure.diagnosis.heat
    off = np.array(heat.errors) > 1
    assert heat.steps
    assert heat.folded
    assert "Along axes that are not shown" in page.render(plain("verify", [report]))
    assert np.argwhere(off).tolist() == [[1, 3]]
    # without an axis of time rows are as the array has them
    still = verify(replace(pair, time=None), case=case, dtype="float32")
    heat = still.first_failure.diagnosis.heat
    assert not heat.steps
    assert np.argwhere(np.array(heat.errors) > 1).tolist() == [[1, 3]]


def test_page_says_what_the_report_says(failed):
    html = page.render(plain("verify", [failed]))
    first = failed.first_failure
    for text in (first.problem, first.reproduce, first.diagnosis.likely[0]):
        assert escaped(text) in html
    assert '<span class="verdict fail" id="verdict">fail</span>' in html
    assert re.search(r'"(https?:)?//', html) is None  # nothing from elsewhere


def test_a_failure_that_was_not_looked_at_has_its_reason(failed):
    row = replace(failed.rows[0], name="additional", verdict="fail", note="2 that nobody asks for")
    report = replace(failed, rows=(row,), first_failure=None)
    html = page.render(plain("vectors check", [report]))
    assert '<section class="card fail">' in html
    assert row.note in html


def test_what_a_subject_says_is_no_markup(failed):
    first = replace(failed.first_failure, problem="<script>alert(1)</script>")
    html = page.render(plain("verify", [replace(failed, first_failure=first)]))
    assert "<script>alert" not in html
    assert escaped(first.problem) in html


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "got a list"),
        ({}, "an object without command"),
        ({"command": "train"}, "command 'train'"),
        ({"command": "verify", "versions": {}}, "lacks part of it"),
        ({"command": "verify", "versions": {}, "reports": []}, "lacks part of it"),
        ({"command": "mutants", "versions": {}, "mutants": [1]}, "lacks part of it"),
        ({"command": "bench", "versions": {}, "machine": {}, "points": []}, "lacks part of it"),
        ({"command": "gradients", "versions": {}}, "lacks part of it"),
        ({"command": []}, "command []"),
        ({**KILLED, "no_mutant": [{}]}, "lacks part of it"),
        ({**KILLED, "versions": []}, "lacks part of it"),
    ],
)
def test_other_data_are_refused(data, said):
    with pytest.raises(page.PageError, match=re.escape(said)):
        page.render(data)


def test_report_of_an_earlier_run(tmp_path, capsys, failed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(plain("verify", [failed])), encoding="utf-8")
    assert ends("report", "run.json", "--json", "made.json") == 0
    assert capsys.readouterr().out == "run.html\n"
    made = json.loads((tmp_path / "made.json").read_text("utf-8"))
    assert made == {"command": "report", "run": "run.json", "page": "run.html"}
    text = (tmp_path / "run.html").read_text("utf-8")
    assert text == page.render(json.loads((tmp_path / "run.json").read_text("utf-8")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.json"], "cannot read none.json: No such file"),
        (["text.json"], "cannot read text.json: expected JSON"),
        (["other.json"], "expected what bptt writes with --json"),
        (["run.html"], "cannot write run.html: expected a file of its own, which is read"),
        (["run.html", "--output", "../{here}/run.html"], "a file of its own, which is read"),
        (["other.json", "--output", "nowhere/page.html"], "cannot write nowhere/page.html"),
        (["other.json", "--output", "code.py"], "does not end in .py"),
    ],
)
def test_report_says_what_it_cannot_use(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("no", encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    (tmp_path / "run.html").write_text("{}", encoding="utf-8")
    words = [word.format(here=tmp_path.name) for word in words]
    assert ends("report", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.json", "run.html", "text.json"]


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "update", "--json", "x", "--report", "x"],
        ["mutants", "--json", "x", "--report", "../{here}/x"],
        ["bench", "--json", "x", "--report", "x"],
        ["report", "novel.txt", "--json", "novel.txt"],
        ["report", "novel.txt", "--json", "x", "--output", "x"],
        ["gradients", "--json", "x", "--report", "x"],
        ["gradients", "--plot", "x.svg", "--report", "x.svg"],
        ["gradients", "--text", "novel.txt", "--report", "novel.txt"],
    ],
)
def test_no_file_is_written_over_another(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "novel.txt").write_text("once", encoding="utf-8")
    assert ends(*(word.format(here=tmp_path.name) for word in words)) == 2
    assert "expected a file of its own" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["novel.txt"]
    assert (tmp_path / "novel.txt").read_text(encoding="utf-8") == "once"


def test_jsonable_has_no_infinity(failed):
    rows = (replace(failed.rows[0], error=np.inf), *failed.rows[1:])
    data = json.loads(json.dumps(jsonable(replace(failed, rows=rows)), allow_nan=False))
    assert data["rows"][0]["error"] == "inf"
    assert from_plain(data).rows[0].error == np.inf


def ends(*words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def escaped(text):
    for plain_letter, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;")):
        text = text.replace(plain_letter, name)
    return text.replace('"', "&#34;")
