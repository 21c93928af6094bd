"""The derivation says what the code does: no equation without its lines, its twin and its row."""

import json
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import equations
import numpy as np
import pytest
from mathml import mathml

from bptt_verify.pairs import REGISTRY
from bptt_verify.pairs.article import EQUATIONS
from manual_bptt import rnn

ROOT = Path(__file__).parents[1]
FOLDERS = {"en": ROOT / "docs" / "derivation", "zh": ROOT / "docs" / "zh" / "derivation"}
PAGES = {
    (language, page.stem): page.read_text("utf-8")
    for language, folder in FOLDERS.items()
    for page in sorted(folder.glob("*.md"))
}
EVERY = [(d, n) for d in equations.MODULES for n in equations.stated(d)]

every_derivation = pytest.mark.parametrize("derivation", equations.MODULES)
every_equation = pytest.mark.parametrize(("derivation", "number"), EVERY)


def used(language, derivation):
    """The numbers of the derivation on the pages of a language, and on which page each is."""
    return [
        (number, page)
        for (of, page), text in PAGES.items()
        for number in re.findall(rf"^```{{equation}} {derivation} (\S+)$", text, re.M)
        if of == language
    ]


RUN = json.loads((ROOT / "docs" / "measured.json").read_text("utf-8"))


@every_equation
def test_the_run_beside_the_equations_measured_each_of_them(derivation, number):
    found = equations.measured(RUN, derivation, number)
    assert set(found.worst) == {"float32", "float64"}
    assert all(error <= 1 for error in found.worst.values())
    assert found.cases >= 200


# --- what is stated, written in LaTeX, and on the pages is the same


@every_derivation
def test_every_equation_has_a_formula(derivation):
    assert set(equations.formulas(derivation)) == set(equations.stated(derivation))


@pytest.mark.parametrize("language", FOLDERS)
@every_derivation
def test_every_equation_is_on_the_pages_once(derivation, language):
    found = used(language, derivation)
    assert Counter(number for number, _ in found) == Counter(list(equations.stated(derivation)))
    if derivation != "article":
        assert {page for _, page in found} == {derivation.replace("_", "-")}


def test_both_languages_have_the_same_pages():
    english, chinese = ({page for of, page in PAGES if of == language} for language in FOLDERS)
    assert english == chinese


@pytest.mark.parametrize("language", FOLDERS)
def test_no_page_names_a_derivation_that_is_none(language):
    named = {
        derivation
        for (of, _), text in PAGES.items()
        for derivation in re.findall(r"^```{equation} (\S+)", text, re.M)
        if of == language
    }
    assert named == set(equations.MODULES)


# --- the code


@every_equation
def test_an_equation_has_its_lines(derivation, number):
    assert equations.snippets(equations.by_hand(derivation), number)
    in_twin = equations.snippets(equations.twins(derivation), number)
    assert bool(in_twin) == (number in equations.forward(derivation))


@every_derivation
def test_every_mark_in_the_code_is_an_equation(derivation):
    marks = {n for path in equations.by_hand(derivation) for n in equations.marked(path)}
    assert marks == set(equations.stated(derivation))
    marks = {n for path in equations.twins(derivation) for n in equations.marked(path)}
    assert marks == equations.forward(derivation) <= set(equations.stated(derivation))


@every_derivation
def test_both_sides_state_the_same_forward_pass(derivation):
    by_hand = equations.stated(derivation)
    for path in equations.twins(derivation):
        for number, text in equations.numbered(path).items():
            assert text.split() == by_hand[number].split()


COMMENT = re.compile(rf"^\s*# (?:into )?({equations.NUMBERS}) (.+)", re.M)
WORDS = re.compile(r"[,;:]? *\b(what|for all|from|the part|and 0|and what)\b.*")
"""Where a comment goes on in words: there is more to say of a line than its equation."""


def squeezed(text):
    return re.sub(r"\s", "", text)


@every_derivation
def test_the_comment_above_the_lines_says_what_the_docstring_says(derivation):
    seen = 0
    for path in (*equations.by_hand(derivation), *equations.twins(derivation)):
        known = equations.stated(derivation)
        for numbers, said in COMMENT.findall(path.read_text("utf-8")):
            whole = squeezed(" ".join(known[n] for n in re.findall(r"\d+′?", numbers)))
            formula = WORDS.sub("", said)
            for part in re.split(r",  ", formula):
                assert squeezed(part) in whole, f"{path.name}: {numbers} {part}"
                seen += bool(part)
    assert seen > len(equations.stated(derivation)) / 2


def test_lines_are_those_under_the_comment(tmp_path, monkeypatch):
    monkeypatch.setattr(equations, "ROOT", tmp_path)
    path = tmp_path / "cell.py"
    path.write_text(
        "def step(x):\n"
        '    """(4) as a function"""\n'
        "    # (1), (2) first\n"
        "    a = x  # (T, B)\n"
        "    for t in x:\n"
        "        # (2) again\n"
        "        a = t\n"
        "    b = a  # (3)\n"
        "\n"
        "    # what is no equation\n"
        "    c = f(\n"
        "        b,\n"
        "    )  # (3)\n"
        "    if c:\n"
        "        d = 1  # (5)\n"
        "    else:\n"
        "        d = 2  # (5)\n"
        "    return Cache(c)\n",
        encoding="utf-8",
    )
    found = {n: [(s.first, s.text) for s in given] for n, given in equations.marked(path).items()}
    first = "# (1), (2) first\na = x  # (T, B)"
    assert found["1"] == [(3, first)]
    assert found["2"] == [(3, f"{first}\nfor t in x:\n    # (2) again\n    a = t")]
    together = "b = a  # (3)\n\n# what is no equation\nc = f(\n    b,\n)  # (3)"
    assert found["3"] == [(8, together)]
    assert [first for first, _ in found["4"]] == [1]
    assert found["5"] == [(14, "if c:\n    d = 1  # (5)\nelse:\n    d = 2  # (5)")]


# --- the report


@every_equation
def test_an_equation_is_seen_in_a_report(derivation, number):
    at, quantities = equations.seen_in(derivation, number)
    for quantity in quantities:
        pairs = equations.pairs(derivation, number).values()
        assert any(p.equations.get(quantity) and quantity in p.quantities() for p in pairs)
    assert str(at) in equations.stated(derivation)
    if equations.stated(derivation)[number].lstrip().startswith("∂L/∂"):
        assert str(at) == number  # a gradient has a row of its own


def test_an_equation_that_nothing_shows_is_seen_further_on():
    assert equations.seen_in("lstm", "5") == (6, ("h",))  # a gate
    assert equations.seen_in("lstm", "7") == (7, ("h",))  # itself
    assert equations.seen_in("lstm", "12") == (11, ("delta",))  # a block of δ
    assert equations.seen_in("gru_before", "9") == (7, ("delta",))  # what a block of δ is made of


@pytest.mark.parametrize("name", REGISTRY)
def test_every_equation_of_a_report_is_in_the_docs(name):
    modules = {cell: m for m, cells in equations.CELLS_OF.items() for cell in cells}
    for equation in REGISTRY[name].equations.values():
        derivation = modules[equation.of] if equation.of else "article"
        assert str(equation.number) in equations.formulas(derivation)


def report(pair, dtype, *rows):
    """As much of a report as is read: rows of number and error."""
    found = [
        {
            **{"name": "q", "equation": {"number": number}, "cases": 20},
            **{"error": error, "verdict": "pass" if float(error) <= 1 else "fail"},
        }
        for number, error in rows
    ]
    other = {"name": "causality", "equation": None, "error": 0.9, "cases": 20, "verdict": "pass"}
    return {"pair": pair, "dtype": dtype, "rows": [*found, other]}


def test_the_error_is_the_worst_of_all_that_show_the_equation():
    run = {
        "reports": [
            report("lstm", "float32", (14, 0.1), (14, 0.3), (13, 0.8)),
            report("lstm", "float64", (14, 0.2), (14, 0.1)),
            report("lstm-peephole", "float32", (14, 0.2), (14, 0.4)),
            report("gru", "float32", (14, 0.7)),
            report("lstm-ragged", "float32", (14, 0.6)),
        ]
    }
    found = equations.measured(run, "lstm", "14")
    assert found.worst == {"float32": 0.4, "float64": 0.2}
    assert (found.quantities, found.cases) == (("dU", "db"), 60)


def test_another_form_has_its_own_error():
    sequential = report("mingru", "float32", (4, 0.1))
    run = {"reports": [sequential, report("mingru-parallel", "float32", (4, 0.2))]}
    assert equations.measured(run, "mingru", "4").worst == {"float32": 0.1}
    assert equations.measured(run, "mingru", "4′").worst == {"float32": 0.2}
    assert equations.measured(run, "mingru", "3").worst == {"float32": 0.2}


def test_a_run_that_failed_or_lacks_the_equation_is_refused():
    with pytest.raises(LookupError, match="did not pass"):
        equations.measured({"reports": [report("gru", "float32", (12, "inf"))]}, "gru", "12")
    with pytest.raises(LookupError, match="not in the run"):
        equations.measured({"reports": [report("gru", "float32", (12, 0.1))]}, "gru", "5")


# --- the formulas

RAISED = dict(zip("ifgorznxhc", "ⁱᶠᵍᵒʳᶻⁿˣʰᶜ", strict=True)) | {r"\top": "ᵀ", r"\prime": "′"}
LETTERS = {
    **{r"\sigma": "σ", r"\delta": "δ", r"\varepsilon": "ε", r"\gamma": "γ", r"\beta": "β"},
    **{r"\varphi": "φ", r"\iota": "ι", r"\theta": "θ", r"\eta": "η", r"\partial": "∂"},
    **{r"\odot": "⊙", r"\sum": "Σ", r"\ge": "≥", r"\le": "≤", r"\lt": "<", r"\dots": "…"},
    **{r"\leftarrow": "←", r"\log": "log", r"\exp": "exp", r"\max": "max", r"\tanh": "tanh"},
}
STEPS = (
    (r"\\begin{cases}(.*?)&(.*?)\\\\(.*?)&.*?\\end{cases}", r"\1 where \2, \3 elsewhere"),
    (r"\\(begin|end){split}|\\(left|right)(?![a-z])|\\q?quad|\\[,;\\]|&", ""),
    (r"\\operatorname{(\w+)}", r"\1"),
    (r"\^{([^{}]*)}", lambda m: RAISED[m[1]]),
    (r"\\[a-z]+(?![a-z])", lambda m: LETTERS.get(m[0], m[0])),
    (r"\\frac{([^{}]|∂ L)}{((?:[^{}]|{[^{}]*})*)}", r"\1/\2"),
    (r"\\frac{(.*)}{\\sqrt{(.*?)}}", r"(\1)/√(\2)"),
    (r"\((W[ʳᶻⁿ])\)", r"\1"),
    (r"\s", ""),
    (r",[auv]_t=\([^()]*\)", ""),
)
"""From LaTeX to the letters of a docstring, without spaces and without what a vector is made of."""


def in_letters(latex):
    for pattern, by in STEPS:
        latex = re.sub(pattern, by, latex)
    return latex


@every_equation
def test_the_latex_says_what_the_docstring_says(derivation, number):
    said = equations.stated(derivation)[number]
    if derivation == "article" and number != "5":  # the layer has ∂L/∂s_t in (8) and (9)
        said = EQUATIONS[int(number)].formula + (",  t = T-1, …, 1" if number == "9" else "")
    without_blocks = re.sub(r",\s+(two|three|four) blocks: .*", "", said)
    formula = re.split(r"[,;]\s+(?=[^=]*:)", without_blocks)[0]  # what comes then is in words
    in_latex = in_letters(equations.formulas(derivation)[number])
    shown = in_latex if formula == without_blocks else in_latex[: len(re.sub(r"\s", "", formula))]
    assert shown == re.sub(r"\s", "", formula)


def unconverted(latex):
    """What of it is no formula in MathML."""
    root = ET.fromstring(mathml(latex))
    return [text for text in root.itertext() if "\\" in text or "$" in text]


@every_equation
def test_every_equation_becomes_mathml(derivation, number):
    assert unconverted(equations.formulas(derivation)[number]) == []


@pytest.mark.parametrize(("language", "page"), PAGES)
def test_every_formula_in_the_text_becomes_mathml(language, page):
    text = re.sub(r"```.*?```|`[^`]*`", "", PAGES[language, page], flags=re.S)
    for display, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+)\$", text, re.S):
        assert unconverted(display or inline) == []


def test_a_prime_stands_beside_its_letter():
    assert "msup" not in mathml(r"f^{\prime}(a) + f'(a)")
    assert mathml(r"f^{\prime}").count("&#x02032;") == 1


# --- the example that is reckoned by hand

CODE = [
    pytest.param(*block, id=f"{language}-{page}-{i}")
    for (language, page), text in PAGES.items()
    for i, block in enumerate(
        re.findall(r"^```(python|sh)\n(.*?)^```\n\n```text\n(.*?)^```$", text, re.M | re.S)
    )
]


@pytest.mark.parametrize("language", FOLDERS)
def test_the_table_of_the_example_is_what_the_layer_computes(language):
    w, T = 2.0, 3
    params = rnn.Params(np.zeros((1, 1)), np.full((1, 1), w))
    states, cache = rnn.forward(params, np.zeros((T, 1, 1)), np.ones((1, 1)), "relu")
    grads = rnn.backward(params, cache, None, np.ones((1, 1)))
    a, delta = states.ravel(), grads.delta.ravel()  # all are above 0: s_t = a_t
    before = np.concatenate([[1.0], a[:-1]])
    total = [0.0]
    for s in before:
        total.append(s + w * total[-1])
    own = np.eye(T)[-1]  # the loss is that of the last step
    computed = np.stack([np.arange(1, T + 1), before, a, total[1:], own, delta], axis=1)
    text = PAGES[language, "unrolling"]
    rows = re.findall(r"^\|" + r" (\d+) \|" * 6 + "$", text, re.M)
    np.testing.assert_array_equal(np.array(rows, float), computed)
    right, twice = delta @ before, delta @ total[1:]
    assert right == own @ total[1:] == grads.W.item()
    for left_factors, right_factors, result in (
        (delta, before, right),
        (own, total[1:], right),
        (delta, total[1:], twice),
        (own, before, own @ before),
    ):
        terms = zip(left_factors, right_factors, strict=True)
        product = " + ".join(rf"{x:g} \cdot {y:g}" for x, y in terms)
        assert f"${product} = {result:g}$" in text


@pytest.mark.parametrize(("language", "code", "said"), CODE)
def test_a_piece_of_code_prints_what_the_page_says(language, code, said, tmp_path):
    if language == "python":
        command = [sys.executable, "-W", "error", "-c", code]
    else:
        (line,) = code.splitlines()
        command = [sys.executable, "-m", "bptt_verify", *shlex.split(line)[1:]]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    anything = r"(.*\n)*?"  # a line that is … stands for any lines
    pattern = "".join(
        anything if line == "…\n" else re.escape(line) for line in said.splitlines(keepends=True)
    )
    assert re.fullmatch(pattern, ended.stdout)


def test_all_python_is_run():
    blocks = sum(text.count("```python") for text in PAGES.values())
    assert blocks == sum(parameter.values[0] == "python" for parameter in CODE) >= 1
