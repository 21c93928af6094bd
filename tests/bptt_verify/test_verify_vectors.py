"""Golden vectors: what is written is what `bptt verify` would say, and what is read is judged."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bptt_verify import Pair, draw
from bptt_verify.compare import compare, compare_in_band
from bptt_verify.oracle import Oracle
from bptt_verify.pairs import CELLS, REGISTRY
from bptt_verify.tolerance import multiplier
from bptt_verify.vectors import write
from bptt_verify.vectors.cases import tries
from bptt_verify.vectors.files import digest, packed, read_index, read_tensors, read_vectors
from manual_bptt import lstm
from planting import planted

# a text option and probes; a number option and taps; indices and masks; nothing to derive
PAIRS = ("rnn", "lstm", "readout", "update")
MINE = "lstm/float32"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A set of vectors, which no test changes."""
    folder = tmp_path_factory.mktemp("vectors") / "golden"
    write(folder, [REGISTRY[name] for name in PAIRS], random=1)
    return folder


@pytest.fixture(scope="module")
def right(written):
    """What our own layers make of the set."""
    return answers(written)


@pytest.fixture
def golden(written, tmp_path):
    """A copy of the set, to be damaged."""
    return shutil.copytree(written, tmp_path / "golden")


@pytest.fixture
def bptt(bptt):
    """`bptt vectors`"""

    def run(*arguments):
        code, out, err = bptt("vectors", *arguments)
        return code, out, err.lstrip("\n")  # rich 13 ends a hidden bar with one

    return run


def answers(folder, **subjects):
    """The outputs, gradients and taps of the subjects, from nothing but the files of the set."""
    found = {}
    for entry in read_index(folder).entries:
        pair = subjects.get(entry.pair, REGISTRY[entry.pair])
        tensors = read_tensors(folder / entry.file)
        for case in entry.cases:
            place = f"{entry.part}/{case}"
            options = {
                name: value.tobytes().decode() if value.dtype == np.uint8 else float(value)
                for name, value in within(tensors, f"{place}/option/").items()
            }
            got, cache = pair.forward(within(tensors, f"{place}/input/"), **options)
            if pair.backward:
                gradients = pair.backward(cache, within(tensors, f"{place}/cotangent/"))
                got |= {name: gradients[name] for name in pair.taps}
                got |= {f"d{name}": gradients[name] for name in pair.differentiable}
            found |= {f"{place}/{name}": np.asarray(a) for name, a in got.items()}
    return found


def within(tensors, start):
    return {k.removeprefix(start): a.copy() for k, a in tensors.items() if k.startswith(start)}


def saved(tmp_path, arrays):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(packed(arrays))
    return path


# --- right and wrong ports


def test_our_own_layers_pass_and_every_quantity_of_every_case_is_judged(
    bptt, written, right, tmp_path
):
    code, out, err = bptt("check", written, saved(tmp_path, right), "--json", "r.json")
    assert code == 0, out + err
    assert "PASS" in out
    reports = json.loads((tmp_path / "r.json").read_text("utf-8"))["reports"]
    assert [(r["pair"], r["dtype"]) for r in reports] == [
        (pair, dtype) for pair in PAIRS for dtype in ("float32", "float64")
    ]
    for report in reports:
        names = [row["name"] for row in report["rows"]]
        assert names == [*REGISTRY[report["pair"]].quantities(), "no additional tensors"]
        assert {row["cases"] for row in report["rows"]} == {report["cases"]}
        assert report["cases"] >= 6
    assert any(row["error"] > 0 for row in reports[0]["rows"])


@pytest.mark.parametrize(
    ("text", "wrong", "rows"),
    [
        (
            "dh_next = delta[t] @ W  # Wᵀ δ_t (B, R)",
            "dh_next = np.zeros_like(dh_next)",
            {"delta", "dx", "dh0", "dc0", "dU", "dW", "db"},
        ),
        ("dW = flat(delta).T @ flat(before_h)", "dW = flat(delta).T @ flat(all_h)", {"dW"}),
        ("c[t] = f * c + i * g", "c[t] = c + i * g", None),
    ],
)
def test_a_planted_mistake_is_named_and_its_case_fails_again(
    bptt, written, tmp_path, text, wrong, rows
):
    mistaken = CELLS["lstm"].pair(planted(lstm, text, wrong))
    path = saved(tmp_path, answers(written, lstm=mistaken))
    code, out, _ = bptt("check", written, path, "--json", "r.json")
    assert code == 1
    reports = json.loads((tmp_path / "r.json").read_text("utf-8"))["reports"]
    assert {r["pair"] for r in reports if r["verdict"] == "fail"} == {"lstm"}
    (report,) = [r for r in reports if (r["pair"], r["dtype"]) == ("lstm", "float32")]
    failed = {row["name"] for row in report["rows"] if row["verdict"] == "fail"}
    assert failed == rows or (rows is None and {"h", "c"} <= failed)
    first = "delta" if rows and "delta" in rows else "dW" if rows else "h"
    assert report["first_failure"]["row"] == first
    assert f"lstm float32: {first}  equation (" in out
    assert re.search(r"expected \S+ ± \S+, got \S+ at \(.*\); \d+ of \d+ wrong, the first at", out)
    again = re.search(r"again +bptt vectors (.*)", out)[1]
    assert "--only lstm/float32/" in again
    code, out, _ = bptt(*shlex.split(again))
    assert code == 1
    assert "1 case in" in out


NAN, INF = np.float32("nan"), np.float32("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[0], "expected shape (4, 3, 5), got (3, 5)"),
        (lambda a: a.astype(np.float64), "expected dtype float32, got float64"),
        (lambda a: a.view(np.int32), "expected dtype float32, got int32"),
        (lambda a: np.where(a == a.flat[-1], NAN, a), "got nan at (3, 2, 4); 1 of 60 wrong"),
        (lambda a: np.where(a == a.flat[0], INF, a), "got inf at (0, 0, 0)"),
        (lambda a: a[:0], "expected shape (4, 3, 5), got (0, 3, 5)"),
        (None, "missing: no tensor lstm/float32/distinct-sizes/h"),
    ],
    ids=["shape", "dtype", "integers", "NaN", "infinity", "empty", "missing"],
)
def test_a_tensor_that_is_not_as_asked_fails_and_is_named(
    bptt, written, right, tmp_path, change, message
):
    name = f"{MINE}/distinct-sizes/h"
    arrays = {k: a for k, a in right.items() if k != name}
    if change:
        arrays[name] = change(right[name])
    code, out, _ = bptt("check", written, saved(tmp_path, arrays))
    assert code == 1
    (line,) = [line for line in out.splitlines() if line.startswith("  h: distinct-sizes: ")]
    assert message in line
    assert "all that fail  h\n" in out


@pytest.mark.parametrize("name", [f"{MINE}/distinct-sizes/dV", f"{MINE}/no-such/h", "h"])
def test_a_tensor_that_nobody_asked_for_fails_and_is_named(bptt, written, right, tmp_path, name):
    path = saved(tmp_path, {**right, name: np.zeros(3, np.float32)})
    code, out, _ = bptt("check", written, path)
    assert code == 1
    assert f"no additional tensors: 1 that the set does not ask for: {name}" in out


def test_a_name_that_speaks_to_the_terminal_is_quoted(bptt, written, right, tmp_path):
    path = saved(tmp_path, {**right, "\x1b[2Jx\n": np.zeros(3, np.float32)})
    code, out, _ = bptt("check", written, path)
    assert code == 1
    assert "the set does not ask for: '\\x1b[2Jx\\n'\n" in out
    assert "\x1b" not in out


def test_what_has_a_dtype_of_its_own_is_named(bptt, written, right, tmp_path):
    content = saved(tmp_path, right).read_bytes()
    (tmp_path / "odd.safetensors").write_bytes(content.replace(b'"F32"', b'"U32"', 1))
    code, out, _ = bptt("check", written, "odd.safetensors")
    assert code == 1
    assert "got dtype U32" in out


def test_a_part_is_judged_when_asked_for_and_the_rest_is_not_passed_over(
    bptt, written, right, tmp_path
):
    some = {k: a for k, a in right.items() if k.startswith(f"{MINE}/")}
    path = saved(tmp_path, some)
    code, out, _ = bptt("check", written, path)
    assert code == 1
    assert "missing: no tensor rnn/float32/" in out
    assert "missing: no tensor lstm/float64/" in out
    assert bptt("check", written, path, "--only", "lstm")[0] == 1
    assert bptt("check", written, path, "--only", MINE)[0] == 0
    assert bptt("check", written, path, "--only", f"{MINE}/one-step", f"{MINE}/long")[0] == 0
    code, out, _ = bptt("check", written, saved(tmp_path, right), "--only", MINE)
    assert code == 0
    assert f"not judged: {len(right) - len(some)} tensors outside of {MINE}" in out
    for part in ("lstn", "lstm/float3", f"{MINE}/one-step/h"):
        code, _, err = bptt("check", written, path, "--only", part)
        assert code == 2
        assert f"only: expected a part of {written} (rnn/float32, " in err


def test_bands_too_wide_to_tell_anything_are_inconclusive(bptt, tmp_path):
    (tmp_path / "blind.py").write_text(
        "from bptt_verify import Pair\n"
        "f = lambda i: {'y': (i['x'] + 1e20) - 1e20}\n"
        "pair = Pair(name='blind', inputs={'x': 'D'}, outputs={'y': 'D'},\n"
        "            forward=lambda i: (f(i), None), twin=f)\n"
    )
    assert bptt("write", "set", "--pair", "blind.py", "--random", 2, "--dtype", "float64")[0] == 0
    (entry,) = read_index(tmp_path / "set").entries
    mine = {
        f"{entry.part}/{case}/y": vectors["y"].value
        for case, vectors in read_vectors(tmp_path / "set", entry).items()
    }
    code, out, _ = bptt("check", "set", saved(tmp_path, mine))
    assert code == 3
    assert "every band was wider than 1 % of its entry" in out


# --- what is in a set


def test_inputs_values_and_bands_are_those_of_verify(written):
    told_apart = 0
    for entry in read_index(written).entries:
        pair, dtype = REGISTRY[entry.pair], np.dtype(entry.dtype)
        tensors = read_tensors(written / entry.file)
        oracle = Oracle(pair, multiplier(dtype))
        for name, vectors in read_vectors(written, entry).items():
            case = draw.parse(pair, entry.cases[name])
            drawn = draw.realise(pair, case, dtype)
            for group, arrays in (("input", drawn.inputs), ("cotangent", drawn.cotangents)):
                found = within(tensors, f"{entry.part}/{name}/{group}/")
                assert {k: (a.dtype, a.shape, a.tobytes()) for k, a in found.items()} == {
                    k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()
                }
            answer = oracle.answer(case, drawn, dtype)
            assert set(vectors) == set(pair.quantities()) == set(answer.quantities)
            for quantity, (value, band) in vectors.items():
                expected = answer.quantities[quantity]
                np.testing.assert_array_equal(value, expected.value)
                np.testing.assert_array_equal(band, multiplier(dtype) * expected.sigma)
                for off in (0, 0.5, -0.5, 2, -2):  # the same verdict on either side
                    got = np.asarray(value + off * band, dtype)
                    theirs = compare(got, expected, dtype)
                    assert compare_in_band(got, value, band, dtype) == theirs
                    if (band > 8 * np.spacing(np.abs(value.astype(dtype)))).all():
                        assert theirs.ok == (abs(off) < 1)
                        told_apart += 1
    assert told_apart > 500


def test_edges_are_there_by_name(written):
    (entry,) = [e for e in read_index(written).entries if e.part == MINE]
    assert list(entry.cases) == [
        *("distinct-sizes", "square-sizes", "one-step", "one-sequence", "one-unit", "long"),
        *("forget_offset-1.0", "zero-cotangents", "single-cotangent", "saturated-gates"),
        *("tiny-scales", "huge-scales", "random-1"),
    ]
    sizes = {k: draw.parse(REGISTRY["lstm"], v).sizes for k, v in entry.cases.items()}
    assert len(set(sizes["distinct-sizes"].values())) == 4
    assert len(set(sizes["square-sizes"].values())) == 1
    assert (sizes["one-step"]["T"], sizes["one-sequence"]["B"], sizes["one-unit"]["H"]) == (1, 1, 1)
    assert sizes["long"]["T"] == 64
    tensors = read_tensors(written / entry.file)
    counts = {
        case: sum(
            np.count_nonzero(a) for a in within(tensors, f"{MINE}/{case}/cotangent/").values()
        )
        for case in ("zero-cotangents", "single-cotangent")
    }
    assert counts == {"zero-cotangents": 0, "single-cotangent": 1}
    vectors = read_vectors(written, entry)
    assert not vectors["zero-cotangents"]["dW"].value.any()
    assert not vectors["zero-cotangents"]["dW"].band.any()
    gates = np.abs(vectors["saturated-gates"]["h"].value)
    assert (gates > 0.7).any()
    assert np.abs(tensors[f"{MINE}/tiny-scales/input/x"]).max() < 1e-4
    assert np.abs(tensors[f"{MINE}/huge-scales/input/x"]).max() > 1e2


def test_the_same_seed_writes_the_same_bytes(written, tmp_path):
    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    pairs = [REGISTRY["readout"], REGISTRY["update"]]
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        write(tmp_path / name, pairs, ["float32"], seed=seed, random=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, other = (read_index(tmp_path / name).entries for name in ("one", "other"))
    for mine, theirs in zip(one, other, strict=True):
        assert not set(mine.cases.values()) & set(theirs.cases.values())
        assert mine.sha256 != theirs.sha256


def test_the_index_names_files_hashes_and_versions(written):
    data = json.loads((written / "index.json").read_text("utf-8"))
    assert (data["format"], data["seed"]) == (1, 0)
    assert {"numpy", "jax", "manual-bptt", "safetensors", "python"} <= set(data["versions"])
    assert {f["file"]: f["sha256"] for f in data["files"]} == {
        path.name: digest(path.read_bytes()) for path in written.glob("*.safetensors")
    }


def test_a_case_without_a_verdict_is_left_out_and_said(bptt, tmp_path):
    words = ("--pair", "update", "--dtype", "float16", "--random", 1, "--json", "set.json")
    code, out, _ = bptt("write", "set", *words)
    assert code == 0
    why = "a value on the way is beyond the range of float16"
    assert f"  left out  huge-scales: {why}\n" in out
    (entry,) = read_index(tmp_path / "set").entries
    assert dict(entry.left_out) == {"huge-scales": why}
    index = json.loads((tmp_path / "set" / "index.json").read_text("utf-8"))
    said = json.loads((tmp_path / "set.json").read_text("utf-8"))
    assert said == {"command": "vectors write", "set": "set", **index}
    assert "huge-scales" not in entry.cases
    assert read_tensors(tmp_path / "set" / entry.file).keys().isdisjoint({"huge-scales"})


def test_a_case_without_a_verdict_is_drawn_again(tmp_path):
    def f(i):
        return {"y": i["x"] * 60.0}

    pair = Pair(
        name="times",
        inputs={"x": "D"},
        outputs={"y": "D"},
        forward=lambda i: (f(i), None),
        twin=f,
    )
    (entry,) = write(tmp_path / "set", [pair], ["float16"], random=0).entries
    chances = [str(case) for case in dict(tries(pair, 0, 0))["huge-scales"]]
    assert entry.cases["huge-scales"] in chances[1:]


def test_a_set_in_bfloat16(bptt, tmp_path):
    assert bptt("write", "set", "--pair", "update", "--dtype", "bfloat16", "--random", 1)[0] == 0
    (entry,) = read_index(tmp_path / "set").entries
    mine = {
        f"{entry.part}/{case}/{name}": vector.value.astype(ml_dtypes.bfloat16)
        for case, vectors in read_vectors(tmp_path / "set", entry).items()
        for name, vector in vectors.items()
    }
    assert bptt("check", "set", saved(tmp_path, mine))[0] == 0


def test_the_docs_list_every_pair_with_its_shapes():
    page = (Path(__file__).parents[2] / "docs" / "vectors.md").read_text("utf-8")
    for pair in REGISTRY.values():
        inputs = {
            k: spec if isinstance(spec, str) else spec.shape for k, spec in pair.inputs.items()
        }
        groups = (inputs, pair.outputs, pair.probes, pair.taps if pair.backward else {})
        cells = [", ".join(f"{k} ({shape})" for k, shape in group.items()) for group in groups]
        row = [pair.name, cells[0], ", ".join(pair.options), *cells[1:]]
        assert f"| {' | '.join(row)} |" in page


# --- whole or not at all


def test_an_interrupted_set_leaves_nothing(bptt, tmp_path, monkeypatch):
    contents = iter([b"first"])

    def interrupted(arrays):
        try:
            return next(contents)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(sys.modules["bptt_verify.vectors.write"], "packed", interrupted)
    code, _, err = bptt("write", "set", "--pair", "update", "--random", 0)
    assert code == 130
    assert err == "bptt: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_is_left_as_it_is(bptt, tmp_path, there):
    path = tmp_path / "set"
    if there == "folder":
        path.mkdir()
        (path / "mine").write_text("mine")
    elif there == "file":
        path.write_text("mine")
    else:
        path.symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = bptt("write", path, "--pair", "update")
    assert (code, err) == (2, f"bptt: cannot write {path}: File exists\n")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["write", "no/where", "--pair", "update"], "cannot write no/where: No such file or direc"),
        (["write", "set", "--pair", "lstn"], "expected a pair (rnn, rnn-index"),
        (["write", "set", "--pair", "rnn", "rnn"], "pair 'rnn': expected names that differ"),
        (["write", "set", "--seed", "-1"], "--seed: expected at least 0, got -1"),
        (["write", "set", "--random", "-1"], "--random: expected at least 0, got -1"),
        (["write", "set", "--pair", "odd.py"], "pair '../x': expected a name of letters, digits"),
        (["write", "set", "--pair", "none.py"], "options['how']: expected numbers or text, got No"),
        (["check", "nowhere", "x"], "nowhere/index.json: No such file or directory"),
        (["check", "nowhere", "x", "--json", "no/where"], "cannot write no/where"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(bptt, tmp_path, arguments, message):
    pair = "from bptt_verify import Pair\nf = lambda i, **o: {{'y': i['x']}}\n" + (
        "pair = Pair(name={!r}, inputs={{'x': 'D'}}, outputs={{'y': 'D'}}, options={},\n"
        "            forward=lambda i, **o: (f(i), None), twin=f)\n"
    )
    (tmp_path / "odd.py").write_text(pair.format("../x", "{}"))
    (tmp_path / "none.py").write_text(pair.format("x", "{'how': [None]}"))
    code, _, err = bptt(*arguments)
    assert code == 2
    assert err.startswith("bptt: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "set").exists()


# --- damaged and hostile files

LSTM = "lstm-float32.safetensors"


def of_index(change):
    """A damage: the index as data, changed."""

    def damage(folder):
        path = folder / "index.json"
        data = json.loads(path.read_text("utf-8"))
        change(data)
        path.write_text(json.dumps(data), "utf-8")

    return damage


def of_entry(**fields):
    return of_index(lambda data: data["files"][2].update(fields))


def of_content(change, file=LSTM, *, hashed=False):
    """A damage: the bytes of a file, changed; with the right hash, where someone meant it."""

    def damage(folder):
        path = folder / file
        content = change(path.read_bytes())
        path.write_bytes(content)
        if hashed:
            of_entry(sha256=digest(content))(folder)

    return damage


def of_tensors(change):
    """A damage: the tensors of a file, changed, with the right hash."""

    def damage(folder):
        arrays = {k: a.copy() for k, a in read_tensors(folder / LSTM).items()}
        change(arrays)
        of_content(lambda _: packed(arrays), hashed=True)(folder)

    return damage


def spoilt(number):
    def change(arrays):
        arrays[f"{MINE}/long/band/dW"].flat[3] = number

    return of_tensors(change)


def with_header(change):
    """A safetensors file whose header was changed, its length as well."""

    def changed(content):
        length = int.from_bytes(content[:8], "little")
        header = change(content[8 : 8 + length])
        return len(header).to_bytes(8, "little") + header + content[8 + length :]

    return changed


def twice(header):
    """The first tensor of a header under its name once more."""
    first = re.search(rb'"[^"]+/[^"]+":\{"dtype.*?\}', header)[0]
    return header.replace(first, first + b"," + first, 1)


ABSURD = (2**63).to_bytes(8, "little")
NO_FILE = "no safetensors file, or damaged: "
MARKED = b'"bptt-vectors":"1"'
DAMAGES = {
    "tensors of a newer format": (
        of_content(lambda c: c.replace(MARKED, b'"bptt-vectors":"2"'), hashed=True),
        f"{LSTM}: expected format 1 in its metadata, got 2",
    ),
    "tensors of no format": (
        of_content(lambda c: c.replace(MARKED, b'"bptt-numbers":"1"'), hashed=True),
        f"{LSTM}: expected format 1 in its metadata, got None",
    ),
    "no index": (lambda folder: (folder / "index.json").unlink(), "index.json: No such file"),
    "index is a folder": (
        lambda folder: ((folder / "index.json").unlink(), (folder / "index.json").mkdir()),
        "index.json: expected a file",
    ),
    "index truncated": (of_content(lambda c: c[:-10], "index.json"), "index.json: damaged: "),
    "index in no code": (of_content(lambda c: b"\xff" + c, "index.json"), "index.json: damaged: "),
    "index too deep": (
        of_content(lambda c: b"[" * 100_000, "index.json"),
        "index.json: damaged: nested too deeply",
    ),
    "index of a list": (of_content(lambda c: b"[]", "index.json"), "expected an object, got []"),
    "key twice": (
        of_content(lambda c: c.replace(b'"seed"', b'"seed": 0, "seed"', 1), "index.json"),
        "damaged: 'seed' is there twice",
    ),
    "newer": (of_index(lambda d: d.update(format=2)), "format 2 is newer than 1"),
    "older than any": (of_index(lambda d: d.update(format=0)), "expected at least 1, got 0"),
    "no format": (of_index(lambda d: d.pop("format")), "damaged: no format"),
    "format of no number": (
        of_index(lambda d: d.update(format="1")),
        "format: expected a whole number, got '1'",
    ),
    "entry of no object": (of_index(lambda d: d["files"].append(7)), "expected an object, got 7"),
    "file twice": (
        of_index(lambda d: d["files"].append(d["files"][2])),
        f"damaged: {MINE} is there twice",
    ),
    "path away": (of_entry(file="../../secret"), f"file: expected {LSTM}, got '../../secret'"),
    "path in a name": (of_entry(pair="../lstm"), "pair: expected a name of letters, digits"),
    "path in a case": (of_entry(cases={"../x": ""}), "cases: expected names of letters, digits"),
    "case of no text": (of_entry(cases={"x": 1}), "cases: expected texts on one line, got 1"),
    "case that speaks to the terminal": (of_entry(cases={"x": "\x1b[2J"}), r"got '\x1b[2J'"),
    "quantity that does": (of_entry(quantities=["\x1b[2J"]), r"got '\x1b[2J'"),
    "unknown dtype": (of_entry(dtype="int8"), "dtype: expected float64 or float32"),
    "quantity twice": (of_entry(quantities=["h", "h"]), "quantities: expected each once"),
    "quantity of no text": (of_entry(quantities=[["h"]]), "quantities: expected texts"),
    "no cases": (of_index(lambda d: d.update(files=[])), "a set without cases"),
    "no such file": (lambda folder: (folder / LSTM).unlink(), f"{LSTM}: No such file"),
    "truncated": (of_content(lambda c: c[:-1]), f"{LSTM}: damaged: its SHA-256 is not the one"),
    "a byte changed": (of_content(lambda c: c[:-9] + b"\x7f" + c[-8:]), "its SHA-256 is not"),
    "another hash": (of_entry(sha256="0" * 64), "its SHA-256 is not the one in index.json"),
    "a case too many": (
        of_index(lambda d: d["files"][2]["cases"].update(more="T=1")),
        f"{MINE}/more/expected/h: expected a tensor F64",
    ),
    "truncated, hashed": (of_content(lambda c: c[:-1], hashed=True), f"{LSTM}: {NO_FILE}"),
    "absurd header": (of_content(lambda c: ABSURD + c[8:], hashed=True), f"{LSTM}: {NO_FILE}"),
    "name twice": (
        of_content(with_header(twice), hashed=True),
        f"{LSTM}: {NO_FILE}",
    ),
    "band infinite": (spoilt(np.inf), f"{MINE}/long/band/dW: expected finite numbers"),
    "band NaN": (spoilt(np.nan), f"{MINE}/long/band/dW: expected finite numbers"),
    "band negative": (spoilt(-1e-9), f"{MINE}/long/band/dW: expected finite numbers"),
    "band gone": (
        of_tensors(lambda a: a.pop(f"{MINE}/long/band/dW")),
        f"{MINE}/long/band/dW: expected a tensor F64",
    ),
    "band of another shape": (
        of_tensors(lambda a: a.update({f"{MINE}/long/band/dW": np.ones(3)})),
        f"{MINE}/long/band/dW: expected finite numbers of at least 0, one for each value",
    ),
    "band of no float64": (
        of_tensors(lambda a: a.update({f"{MINE}/long/band/dW": np.ones(3, np.float32)})),
        f"{MINE}/long/band/dW: expected a tensor F64",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_one_line_and_exit_2(bptt, golden, right, tmp_path, damage):
    spoil, message = DAMAGES[damage]
    spoil(golden)
    code, out, err = bptt("check", golden, saved(tmp_path, right))
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith(f"bptt: {golden}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: b"", NO_FILE),
        (lambda c: c[:7], NO_FILE),
        (lambda c: c[:1000], NO_FILE),
        (lambda c: c[:-1], NO_FILE),
        (lambda c: c + b"\0", NO_FILE),
        (lambda c: ABSURD + c[8:], NO_FILE),
        (lambda c: (2**40).to_bytes(8, "little") + c[8:], NO_FILE),
        (with_header(lambda h: h[:-20]), NO_FILE),
        (with_header(lambda h: b"[" * 5000), NO_FILE),
        (with_header(twice), "is there twice"),
        (lambda c: b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07pickled\x94.", NO_FILE),
        (None, "mine.safetensors: expected a file, got something else"),
    ],
)
def test_a_damaged_file_of_a_port_is_one_line_and_exit_2(
    bptt, written, right, tmp_path, change, message
):
    path = saved(tmp_path, right)
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    else:
        path.mkdir()
    code, out, err = bptt("check", written, path)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
