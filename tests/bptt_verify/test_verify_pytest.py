"""The pytest plugin, `assert_verified` and `verified`, as a user's own test run sees them."""

import subprocess
import sys
from pathlib import Path

import pytest

from bptt_pytest import Defaults, defaults
from bptt_verify import Pair, assert_verified, verified
from users_pair import right, wrong

pytest_plugins = ["pytester"]

USERS = Path(__file__).with_name("users_pair.py")


@pytest.fixture
def run(pytester):
    """Run pytest in a process of its own, warnings as errors, on one test file."""

    def run(code, *arguments):
        pytester.makepyfile(users_pair=USERS.read_text(encoding="utf-8"))
        pytester.makepyfile(
            "import pytest\n"
            "from bptt_verify import assert_verified, verified\n"
            "from users_pair import right, wrong\n" + code
        )
        return pytester.runpytest_subprocess("-W", "error", *arguments)

    return run


@pytest.fixture
def blind():
    """A pair of which nothing can be told."""

    def lossy(i):
        return {"y": (i["x"] + 1e20) - 1e20}

    return Pair(
        name="blind",
        inputs={"x": "D"},
        outputs={"y": "D"},
        forward=lambda i: (lossy(i), None),
        twin=lossy,
    )


def test_the_plugin_is_loaded_and_does_not_bring_jax(pytester):
    (pytester.path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    loaded = {name.split('.')[0] for name in sys.modules}\n"
        "    print('loaded:', *sorted(loaded & {'bptt_pytest', 'bptt_verify', 'jax', 'rich'}))\n"
    )
    found = pytester.runpytest_subprocess("--co", "-s")
    found.stdout.fnmatch_lines(["loaded: bptt_pytest"])


def test_importing_the_plugin_imports_neither_numpy_nor_pytest():
    script = "import sys, bptt_pytest; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "bptt_pytest" in loaded
    assert not {"jax", "numpy", "rich", "pytest", "bptt_verify"} & set(loaded)


def test_a_wrong_pair_fails_with_the_report_and_none_of_our_frames(run):
    found = run("def test_wrong():\n    assert_verified(wrong)\n", "--bptt-cases", "7")
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            ">*assert_verified(wrong)",
            "E *AssertionError: wrong: fail",
            "E *eq. * what * float64 * float32 * cases * verdict*",
            "E *dx * 14 * fail*",
            "E *FAIL  14 cases in * s, seed 0",
            "E *wrong float64: dx",
            "E * smallest case  B=1 D=1 H=1 seed=0",
            "E * again          verify(pair, dtype='float64', case='B=1 D=1 H=1 seed=0')",
            "E *wrong float32: dx",
            "E *numpy 2*",
        ]
    )
    found.stdout.no_fnmatch_line("*testing.py*")


def test_the_seed_of_the_command_line_and_what_a_test_says_itself(run):
    found = run(
        "def test_wrong():\n    assert_verified(wrong, cases=3, dtypes=['float32'])\n",
        *("--bptt-seed", "5", "--bptt-cases", "9"),
    )
    found.stdout.fnmatch_lines(["E *FAIL  3 cases in * s, seed 5"])


@pytest.mark.parametrize(("option", "low"), [("cases", 1), ("seed", 0)])
def test_an_option_that_is_too_small_is_one_error(run, option, low):
    found = run("", f"--bptt-{option}", str(low - 1))
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    message = f"ERROR: --bptt-{option}: expected at least {low}, got {low - 1}"
    assert found.stderr.lines.count(message) == 1


def test_decorated_tests_with_parameters_fixtures_and_xdist(run):
    found = run(
        "@verified\n"
        "@pytest.mark.parametrize('pair', [right, wrong], ids=['right', 'wrong'])\n"
        "def test_one(pair, tmp_path):\n"
        "    return pair\n"
        "@verified\n"
        "def test_several():\n"
        "    yield right\n"
        "    yield wrong\n",
        *("-n2", "--bptt-cases", "4"),
    )
    found.assert_outcomes(passed=1, failed=2)
    found.stdout.no_fnmatch_line("*testing.py*")
    found.stdout.fnmatch_lines(["*FAIL  8 cases*"])
    found.stdout.fnmatch_lines_random(["FAILED *::test_one?wrong?*", "FAILED *::test_several*"])


def test_hypothesis_may_draw_the_pair(run):
    found = run(
        "from hypothesis import HealthCheck, given, settings, strategies as st\n"
        "@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))\n"
        "@given(st.sampled_from([right, wrong]))\n"
        "@verified\n"
        "def test_drawn(pair):\n"
        "    return pair\n",
        *("--bptt-cases", "4"),
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*AssertionError: wrong: fail"])


@verified
def test_a_right_pair_passes_here_too():
    return right


@pytest.mark.parametrize("returned", [None, [], [right, None], 3])
def test_a_decorated_test_that_returns_no_pair_is_an_error(returned):
    @verified
    def nothing():
        return returned

    with pytest.raises(TypeError, match="nothing: expected a Pair or several, got"):
        nothing()


def test_inconclusive_fails_and_says_so(blind):
    with pytest.raises(AssertionError) as failed:
        assert_verified(blind, cases=3, dtypes=["float64"])
    text = str(failed.value)
    assert text.startswith("blind: inconclusive, which is not a pass\n")
    assert "blind float64: inconclusive\n  y: every band was wider than 1 %" in text


def test_a_single_case_has_to_agree_but_may_be_blunt(blind):
    assert_verified(blind, case="D=2 seed=0")
    assert_verified(right, case="B=2 seed=1")
    with pytest.raises(AssertionError, match="wrong: fail"):
        assert_verified(wrong, case="B=2 seed=1")


def test_a_single_case_that_is_given_up_is_no_pass():
    too_large = Pair(
        name="too-large",
        inputs={"x": "D"},
        outputs={"y": "D"},
        forward=lambda i: ({"y": i["x"] * i["x"].dtype.type(1e30) * 1e30}, None),
        twin=lambda i: {"y": i["x"] * 1e30 * 1e30},
    )
    with pytest.raises(AssertionError, match="y: never compared"):
        assert_verified(too_large, case="D=1", dtypes=["float32"])


def test_without_pytest_the_defaults_are_those_of_verify():
    script = (
        "from bptt_verify import assert_verified\n"
        "from users_pair import wrong\n"
        "try:\n"
        "    assert_verified(wrong, dtypes=['float32'])\n"
        "except AssertionError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert "FAIL  200 cases in" in ended.stdout
    assert ", seed 0" in ended.stdout


@pytest.mark.parametrize("dtypes", [[], "float32"])
def test_dtypes_are_a_sequence(dtypes):
    with pytest.raises(ValueError, match="dtypes: expected a sequence of at least one dtype"):
        assert_verified(right, dtypes=dtypes)


def test_a_session_inside_a_session_leaves_the_defaults_alone(pytester):
    before = list(defaults)
    pytester.makepyfile(
        "from bptt_pytest import defaults\ndef test(): assert defaults[-1].cases == 31\n"
    )
    pytester.runpytest_inprocess("--bptt-cases", "31").assert_outcomes(passed=1)
    assert defaults == before
    assert defaults[0] == Defaults(200, 0)
