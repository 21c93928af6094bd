"""The pictures of the gradient: their data against the twin, and the drawing against the data."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from bptt_verify import Pair, assert_verified, cli
from bptt_verify.pairs import CELLS
from bptt_verify.pairs.article import RNN
from bptt_verify.pictures import data, figures
from bptt_verify.tolerance import sharp
from manual_bptt import charlm, flow, lstm, rnn
from manual_bptt.charlm import Settings
from manual_bptt.stack import Layer
from manual_bptt.text import split

ENGLISH = "So it goes. The state is carried from step to step by one matrix.\n" * 40
CHINESE = "误差沿时间反向传播。每一步都要乘以同一个权重矩阵的转置,所以梯度会消失。\n" * 60
LAYERS = {"rnn": RNN, "lstm": CELLS["lstm"], "gru": CELLS["gru"]}

# --- against the twin


def twin_states(cell, i, start, taps, given):
    """All states of the twin, one array or a tuple, from this start."""
    weights = dict.fromkeys(cell.by_hand.Params._fields)
    params = SimpleNamespace(**{**weights, **{name: i[name] for name in cell.weights}})
    found = cell.twin.forward(params, i["x"], *start, **given, **taps)
    return found if isinstance(found, tuple) else (found,)


def zeros_of(cell, T, B, H):
    sizes = {name: int(shape.removesuffix("H") or 1) * H for name, shape in cell.taps.items()}
    return {name: jnp.zeros((T, B, size)) for name, size in sizes.items()}


def shapes_of(cell):
    return {"x": "T B D", **cell.weights}


def norms_pair(cell):
    """‖δ_t‖ when a cotangent d reaches the last output, by hand and by vjp of the twin."""

    def forward(i, **given):
        params = cell.by_hand.Params(**{name: i[name] for name in cell.weights})
        _, cache = cell.by_hand.forward(params, i["x"], *(i[f"{s}0"] for s in cell.states), **given)
        if len(cell.states) > 1:
            States = cell.by_hand.States
            grads = cell.by_hand.backward(params, cache, States(None, None), States(i["d"], None))
        else:
            grads = cell.by_hand.backward(params, cache, None, i["d"])
        return {"norms": flow.norms(grads.delta)}, None

    def twin(i, **given):
        taps = zeros_of(cell, *i["x"].shape[:2], i["d"].shape[1])
        start = [i[f"{s}0"] for s in cell.states]

        def last_output(delta):
            return twin_states(cell, i, start, {**taps, "delta": delta}, given)[0][-1]

        delta = jax.vjp(last_output, taps["delta"])[1](i["d"])[0]
        return {"norms": jnp.sqrt(jnp.mean(jnp.sum(delta**2, axis=2), axis=1))}

    return Pair(
        name=f"norms-{cell.name}",
        inputs={**shapes_of(cell), **{f"{s}0": "B H" for s in cell.states}, "d": "B H"},
        outputs={"norms": "T"},
        options=cell.options,
        forward=forward,
        twin=twin,
        without={"causality"},  # what comes later is on the way of δ
    )


def jacobians_pair(cell):
    """∂s_t/∂s_{t-1} of single steps, by hand and by jacfwd of a step of the twin."""
    states = list(cell.states)

    def forward(i, **given):
        params = cell.by_hand.Params(**{name: i[name] for name in cell.weights})
        layer = Layer(cell.by_hand, params, given)
        return {"J": flow.step_jacobians(layer, i["x"], [i[s] for s in states])}, None

    def twin(i, **given):
        H = i[states[0]].shape[-1]
        taps = zeros_of(cell, 1, 1, H)

        def step(s, x):
            start = jnp.split(s[None], len(states), axis=1)
            found = twin_states(cell, {**i, "x": x[None, None]}, start, taps, given)
            return jnp.concatenate([a[0, 0] for a in found])

        each_step = jax.vmap(jax.vmap(jax.jacfwd(step)))
        return {"J": each_step(jnp.concatenate([i[s] for s in states], axis=-1), i["x"])}

    N = f"{len(states)}H" if len(states) > 1 else "H"
    return Pair(
        name=f"jacobians-{cell.name}",
        inputs={**shapes_of(cell), **dict.fromkeys(states, "T B H")},
        outputs={"J": f"T B {N} {N}"},
        options=cell.options,
        forward=forward,
        twin=twin,
    )


@pytest.mark.parametrize("name", LAYERS)
def test_norms_are_those_of_the_twins_delta(name):
    assert_verified(norms_pair(LAYERS[name]), cases=12)


@pytest.mark.parametrize("name", LAYERS)
def test_jacobians_are_those_of_the_twins_step(name):
    assert_verified(jacobians_pair(LAYERS[name]), cases=12)


def test_what_is_looked_at_are_the_cells_of_the_pairs():
    assert {cell for cell, _, _ in flow.LAYERS.values()} == {c.by_hand for c in LAYERS.values()}


# --- the data


@pytest.fixture(scope="module")
def model():
    """Trained for a moment."""
    settings = Settings(cell=lstm, hidden=8, batch=4, window=16, steps=60, learning_rate=0.02)
    return data.trained(split(ENGLISH), settings)


@pytest.fixture
def quickly(monkeypatch):
    """What is trained by default, for a moment."""
    settings = data.SETTINGS._replace(hidden=8, batch=4, window=16)
    monkeypatch.setattr(data, "SETTINGS", settings)
    monkeypatch.setattr(data, "LEAST_STEPS", 2)
    monkeypatch.setattr(data, "FEW_CHARACTERS", 1)


def test_norms_and_radii_are_those_of_flow():
    found = data.norms(6, [0.5, 3.0], hidden=4, seed=1)
    assert found["t"] == [1, 2, 3, 4, 5, 6]
    for part, scale in zip(found["scales"], [0.5, 3.0], strict=True):
        assert part["scale"] == scale
        for name in flow.LAYERS:
            norms = flow.error_norms(name, 6, scale, hidden=4, seed=1)
            assert part["layers"][name] == norms.tolist()
    found = data.radii(120, [1.0], hidden=4, seed=1)
    assert found["t"] == list(range(1, 121, 3))
    radii = flow.spectral_radii("lstm", 120, 1.0, hidden=4, seed=1)
    assert found["scales"][0]["layers"]["lstm"] == radii[::3].tolist()


def test_what_json_has_not_is_a_string():
    found = data.norms(150, [6000.0], hidden=4)["scales"][0]["layers"]
    assert found["relu"] == ["inf"] * 150
    assert "nan" in data.radii(150, [6000.0], hidden=4)["scales"][0]["layers"]["relu"]
    assert data.numbers(np.array([[1.5, -np.inf]])) == [[1.5, "-inf"]]


def test_eigenvalues_of_orthogonal_w_lie_on_the_circle_of_its_scale(model):
    """| |λ| - 1 | is within what the matrix lacks in orthogonality, and the residual of λ.

    For Wv = λv + r with |v| = 1: | |λ| - |Wv| | <= |r|, and |Wv|² = 1 + vᵀ(WᵀW - I)v, so that
    | |Wv| - 1 | <= ‖WᵀW - I‖. Both are computed, with products of n terms: n u times the sizes
    they meet, ‖W‖_F² = n at most for WᵀW, and 2 √n for the residual (complex: twice as many terms).
    """
    n, u = 24, np.finfo(float).eps / 2
    found = data.eigenvalues(model, [0.5, 1.0, 2.0], hidden=n, seed=2)["drawn"]
    for one in found:
        # powers of two: everything is that of scale 1
        W = flow.drawn("tanh", 1, one["scale"], hidden=n, seed=2).layer.params.W / one["scale"]
        values = (np.array(one["re"]) + 1j * np.array(one["im"])) / one["scale"]
        v = np.linalg.eig(W)[1]
        v /= np.linalg.norm(v, axis=0)
        # each value with the vector that fits it
        r = np.linalg.norm((W @ v)[:, None, :] - v[:, None, :] * values[:, None], axis=0).min(1)
        lack = np.linalg.norm(W.T @ W - np.eye(n))
        bound = lack + n * u * n + r + 2 * n * u * 2 * np.sqrt(n)
        assert len(values) == n
        assert (np.abs(np.abs(values) - 1) <= bound).all()
        assert bound.max() < sharp(np.dtype(float))  # narrow enough to say something


def test_eigenvalues_after_training_are_those_of_each_gate(model):
    found = data.eigenvalues(model, [1.0])["trained"]
    assert [one["gate"] for one in found] == list("ifgo")
    for n, one in enumerate(found):
        W = model.params.layers[0].W[8 * n : 8 * (n + 1)].astype(float)
        values = np.linalg.eigvals(W).astype(complex)
        assert one["re"] == values.real.tolist()
        assert one["im"] == values.imag.tolist()


def test_gates_and_state_fit_each_other(model):
    """c_t = f c_{t-1} + i g and h_t = o tanh(c_t), in float32 as the model computes."""
    said = "The state is carried."
    found = data.gates(model, said, units=8)
    assert found["units"] == list(range(8))
    i, f, g, o = (np.array(found["gates"][k], np.float32) for k in "ifgo")  # (H, T)
    h = np.array(data.states(model, said)["h"], np.float32)
    c = np.zeros(8, np.float32)
    for t in range(len(said)):
        c = f[:, t] * c + i[:, t] * g[:, t]
        assert (h[:, t] == o[:, t] * np.tanh(c)).all()
    assert h.shape == (8, len(said))


def test_gates_are_of_the_sentence_and_of_the_units_that_vary_most(model):
    said = "from one matrix"
    every = data.gates(model, said, units=8)
    few = data.gates(model, said, units=3)
    assert few["characters"] == said
    varied = sum(np.std(every["gates"][k], axis=1) for k in "ifgo")
    assert set(few["units"]) == set(np.argsort(varied)[-3:].tolist())
    for name, traces in few["gates"].items():
        assert traces == [every["gates"][name][unit] for unit in few["units"]]
    indices = np.array([[model.characters.index(k)] for k in said])
    x = np.eye(len(model.characters), dtype=np.float32)[indices]
    _, cache = lstm.forward(model.params.layers[0], x)
    assert every["gates"]["o"] == cache.gates[:, 0, 24:].astype(float).T.tolist()


@pytest.mark.parametrize("picture", [data.gates, data.states])
def test_a_sentence_the_model_cannot_read(model, picture):
    with pytest.raises(ValueError, match="sentence: expected characters of the text, got 'Z'"):
        picture(model, "So Z.")
    with pytest.raises(ValueError, match="sentence: expected at least 1 character, got none"):
        picture(model, "")


def test_it_is_trained_as_bptt_train_does_and_watched():
    text = split(ENGLISH)
    told = []
    settings = Settings(cell=lstm, hidden=8, batch=4, window=16, steps=60, learning_rate=0.02)
    model = data.trained(text, settings, watch=lambda *words: told.append(words))
    assert told == [("training a character model", n + 1, 60) for n in range(60)]
    start = charlm.start(text, settings)
    steps = list(charlm.train(text, settings, start))
    trained = steps[-1].after.params
    assert (model.params.layers[0].W == trained.layers[0].W).all()
    assert (model.params.readout.V == trained.readout.V).all()
    assert model.bits == np.mean([step.loss for step in steps[-6:]]) / np.log(2)
    assert model.bits < steps[0].loss / np.log(2)
    with pytest.raises(ValueError, match=r"settings: expected 1 layer of manual_bptt.lstm, got 1"):
        data.trained(text, settings._replace(cell=rnn))


def test_a_text_of_many_characters_is_learned_in_fewer_steps():
    few = split("ab" * 50)
    many = split("".join(map(chr, range(0x4E00, 0x4E00 + 1024))))
    assert data.settings_for(few).steps == data.SETTINGS.steps
    assert data.settings_for(many).steps == data.SETTINGS.steps // 8
    assert data.settings_for(few, seed=7).seed == 7


UNFINISHED = "its end stands on the next line.\n"
DOTTED = "Version 3.5 has a dot inside a word, and what follows it is no sentence\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENGLISH, "The state is carried from step to step by one matrix."),
        (CHINESE, "每一步都要乘以同一个权重矩阵的转置,所以梯度会消失。"),
        (f"{UNFINISHED}   An indented one, to be seen!\n" * 99, "An indented one, to be seen!"),
        (f"{DOTTED}What does it say here?\n" * 99, "What does it say here?"),
    ],
)
def test_the_sentence_is_the_first_whole_one(text, said):
    held_out = text[: text.index("\n") + 1] + text  # begins with what is none
    assert data.sentence(split(held_out, held_out=1.0)) == said


@pytest.mark.parametrize("text", ["ab" * 999, UNFINISHED * 99, "\n" * 99])
def test_without_a_sentence_the_first_characters_have_to_do(text):
    text = split(text)
    held_out = "".join(text.characters[i] for i in text.held_out)
    assert data.sentence(text) == held_out[: data.LONGEST]


def test_everything_is_plain_and_watched(quickly):
    told = []
    found = data.everything(
        split(ENGLISH), 5, [1.0, 60.0], hidden=3, watch=lambda *words: told.append(words)
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found.keys() == {"norms", "radii", "eigenvalues", "model", "gates", "states"}
    assert found["norms"] == data.norms(5, [1.0, 60.0], hidden=3)
    assert found["radii"] == data.radii(5, [1.0, 60.0], hidden=3)
    assert found["gates"]["characters"] == "The state is carried from step to step by one matrix."
    assert {of for _, done, of in told if done == of} == {2, found["model"]["steps"]}


# --- the figures


@pytest.fixture(scope="module")
def report(model):
    """The data of all pictures, an explosion among them."""
    said = "The state is carried from step to step."
    return {
        "norms": data.norms(400, [0.5, 60.0], hidden=4),
        "radii": data.radii(30, [0.5, 1.0], hidden=4),
        "eigenvalues": data.eigenvalues(model, [0.5, 1.0], hidden=6),
        "model": {"cell": "lstm", "hidden": 8, "steps": 60, "bits": 2.5, "characters": 26},
        "gates": data.gates(model, said),
        "states": data.states(model, said),
    }


DRAW = (figures.norms, figures.radii, figures.eigenvalues, figures.gates, figures.states)


def test_curves_are_those_of_the_data(report):
    for draw in (figures.norms, figures.radii):
        found = report[draw.__name__]
        for axes, part in zip(draw(found).axes, found["scales"], strict=True):
            lines = {line.get_label(): line for line in axes.lines}
            for name, values in part["layers"].items():
                expected = np.array([float(v) for v in values])
                if draw is figures.norms:  # by their powers of ten
                    expected[(expected == 0) | np.isinf(expected)] = np.nan
                    expected = np.log10(expected)
                assert np.array_equal(lines[name].get_ydata(), expected, equal_nan=True)
                assert list(lines[name].get_xdata()) == found["t"]


def test_powers_of_ten_are_told():
    found = data.norms(60, [0.5], hidden=4)
    figure = figures.norms(found)
    figure.draw_without_rendering()
    ticks = {tick.get_text(): tick.get_position()[1] for tick in figure.axes[0].get_yticklabels()}
    assert len(ticks) > 2
    signs = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    for text, at in ticks.items():
        assert text.startswith("10")
        assert int(text[2:].translate(signs)) == at


@pytest.mark.parametrize("scale", [0.0, 1e-308, 1e307])
def test_what_nearly_leaves_the_range_is_drawn_without_a_warning(model, scale):
    found = {
        "norms": data.norms(7, [scale, 1.0], hidden=3),
        "radii": data.radii(7, [scale, 1.0], hidden=3),
        "eigenvalues": data.eigenvalues(model, [scale, 1.0], hidden=3),
    }
    assert len(figures.drawn(found)) == 3  # a warning would be an error


def test_norms_up_to_the_end_of_the_range_are_drawn_without_a_warning():
    curves = {"tanh": [5e-324, 1e308], "relu": [0.0, "inf"]}
    part = {"scale": 1.0, "layers": curves}
    none = {"scale": 2.0, "layers": {"relu": [0.0, "inf"]}}
    (_, _, svg), *_ = figures.drawn({"norms": {"t": [1, 2], "scales": [part, none]}})
    assert "every δ_t is 0 or beyond float64" in svg


def test_points_are_those_of_the_data(report):
    found = report["eigenvalues"]
    for axes, name in zip(figures.eigenvalues(found).axes, ("drawn", "trained"), strict=True):
        for points, one in zip(axes.collections, found[name], strict=True):
            assert points.get_offsets().T.tolist() == [one["re"], one["im"]]


def test_traces_and_map_are_those_of_the_data(report):
    found = report["gates"]
    for axes, traces in zip(figures.gates(found).axes, found["gates"].values(), strict=True):
        assert [line.get_ydata().tolist() for line in axes.lines] == traces
    colours = [[line.get_color() for line in axes.lines] for axes in figures.gates(found).axes]
    assert colours == colours[:1] * 4
    assert len(set(colours[0])) == len(found["units"])
    axes = figures.states(report["states"]).axes[0]
    assert axes.images[0].get_array().tolist() == report["states"]["h"]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert "".join(ticks).replace("␣", " ") == report["states"]["characters"]


@pytest.mark.parametrize("draw", DRAW)
def test_a_figure_leaves_nothing_behind(report, draw, tmp_path):
    before = dict(matplotlib.rcParams)
    figure = draw(report[draw.__name__])
    figure.savefig(tmp_path / "picture.png")
    assert dict(matplotlib.rcParams) == before
    assert figure.get_facecolor()[3] == 0
    assert all(axes.get_facecolor()[3] == 0 for axes in figure.axes)


def test_nobody_asks_for_pyplot():
    code = (
        "import sys\n"
        "from bptt_verify.pictures import data, figures\n"
        "figures.drawn({'norms': data.norms(3, [1.0], hidden=2)})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [figures.INK, *figures.COLOURS])
def test_colours_are_seen_on_white_and_on_black(colour):
    # WCAG 2.2: 3 for lines, 4.5 for text
    least = 4.5 if colour == figures.INK else 3
    light = luminance(colour)
    assert 1.05 / (light + 0.05) >= least
    assert (light + 0.05) / 0.05 >= least


def test_pictures_of_a_page_stand_side_by_side(report):
    made = figures.drawn(report)
    assert len(made) == 5
    ids = []
    for title, caption, svg in made:
        assert title
        assert caption
        assert svg.startswith("<svg ")
        assert svg.endswith("</svg>")
        root = ElementTree.fromstring(svg)
        own = [e.get("id") for e in root.iter() if e.get("id")]
        ids += own
        tags = re.findall(r"<[^>]+>", svg)
        used = {r for tag in tags for r in re.findall(r'(?:href="|url\()([^")]*)', tag)}
        assert all(r.startswith(("#", "data:")) for r in used), used
        assert {r[1:] for r in used if r.startswith("#")} <= set(own)
        assert figures.INK not in svg
        assert "currentColor" in svg
    assert len(ids) == len(set(ids))


def test_the_same_data_give_the_same_pictures(report):
    made = figures.drawn(report)
    with matplotlib.rc_context({"lines.linewidth": 7, "font.size": 20, "savefig.dpi": 300}):
        assert figures.drawn(json.loads(json.dumps(report))) == made


def test_only_what_there_is_data_for_is_drawn(report):
    made = figures.drawn({"command": "gradients", "norms": report["norms"]})
    assert [title for title, _, _ in made] == ["The error on its way back: ‖δ_t‖"]


def test_chinese_is_text_that_the_reader_has_the_fonts_for():
    text = split(CHINESE)
    settings = data.SETTINGS._replace(hidden=4, steps=2)
    model = data.trained(text, settings)
    said = data.sentence(text)
    found = {"gates": data.gates(model, said), "states": data.states(model, said)}
    for _, _, svg in figures.drawn(found):  # a warning would be an error
        words = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]
        assert all(character in words for character in said)


# --- the command


@pytest.fixture
def bptt(monkeypatch, capsys, tmp_path, quickly):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(CHINESE, encoding="utf-8")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["gradients", "--steps", "6", "--hidden", "4", *arguments])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def test_report_and_json_have_all_pictures(bptt, tmp_path):
    code, out, err = bptt(
        *("--scale", "1.25", "--seed", "2", "--report", "page.html", "--json", "run.json"),
        *("--text", "text.txt"),
    )
    assert (code, err) == (0, "")
    assert "drawn to page.html" in out
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert found["command"] == "gradients"
    assert found["versions"]["numpy"] == np.__version__
    scales = [part["scale"] for part in found["norms"]["scales"]]
    assert scales == [0.5, 1, 1.25, 2]
    expected = data.everything(split(CHINESE), 6, scales, hidden=4, seed=2)
    assert {name: found[name] for name in expected} == expected
    for layer in flow.LAYERS:
        assert found[layer] == found["norms"]["scales"][2]["layers"][layer]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for title, _, svg in figures.drawn(found):
        assert svg in page
        assert title in page


def test_without_a_report_no_model_is_trained(bptt, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "trained", None)
    code, out, _ = bptt("--json", "run.json")
    assert code == 0
    for layer in flow.LAYERS:
        assert re.search(rf" {layer} +‖δ_1‖ = ", out)
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert "gates" not in found
    assert found["norms"] == data.norms(6, [1.0], hidden=4)


def test_the_page_about_it_states_what_is_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = (Path(__file__).parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
    for scale, stated in zip("12", re.findall(r"```text\n(.*?)```", page, re.S), strict=True):
        with pytest.raises(SystemExit):
            cli.main(["gradients", "--scale", scale])
        assert stated in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "text.txt"], "--text: expected --report beside it"),
        (["--report", "no/where.html"], "cannot write no/where.html"),
        (["--report", "page.html", "--text", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--report", "page.html", "--scale", "nan"], "--scale: expected a finite number"),
    ],
)
def test_what_cannot_be_used_is_one_line(bptt, tmp_path, arguments, message):
    code, _, err = bptt(*arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(("option", "path"), [("--plot", "plot.svg"), ("--report", "page.html")])
def test_without_matplotlib_one_line_says_what_to_install(bptt, monkeypatch, option, path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "bptt_verify.pictures.figures")
    monkeypatch.delattr("bptt_verify.pictures.figures")
    monkeypatch.setattr(data, "trained", None)  # it is said before a model is trained
    code, _, err = bptt(option, path)
    assert code == 2
    assert err == f'bptt: {option} needs matplotlib: pip install "manual-bptt[plot]"\n'
