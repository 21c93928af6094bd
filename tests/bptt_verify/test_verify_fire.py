"""The verifier under fire: whatever a subject does ends in a clear row, and the run goes on."""

import collections
import contextlib
import ctypes
import dataclasses
import faulthandler
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bptt_verify import Pair, cli, draw, guard, verify
from bptt_verify.judge import MOST_OVER_TIME, Judge
from bptt_verify.raised import SHOWN
from bptt_verify.subject import AGAIN, ALIVE, STATE, TIME, UNCHANGED
from dense import PAIR, backward, forward

CASES = 6

pytestmark = pytest.mark.usefixtures("hearing")


SCALAR = Pair(
    name="sum",
    inputs={"x": "D"},
    outputs={"y": ""},
    forward=lambda i: ({"y": i["x"].sum()}, i["x"]),
    backward=lambda x, d: {"x": np.full_like(x, d["y"])},
    twin=lambda i: {"y": i["x"].sum()},
)


@pytest.fixture(autouse=True)
def _no_compilation(monkeypatch):
    """What XLA makes of the twin is not the question here, and takes most of the time."""
    monkeypatch.setattr(Judge, "twin_by_xla", lambda *_: {})


def changed(**fields):
    return dataclasses.replace(PAIR, **fields)


def first(act, backward=backward):
    """A backward that acts, and then does what is right."""

    def acts(cache, d):
        act()
        return backward(cache, d)

    return changed(backward=acts)


def spoilt(f):
    """The right gradients, with one thing done to dw."""

    def wrong(cache, d):
        g = backward(cache, d)
        return {**g, "w": f(g["w"])}

    return changed(backward=wrong)


def failing(report):
    data = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert len(data["rows"]) == len(report.rows)
    data["rows"] = [row["note"] for row in data["rows"]]
    assert "\n" not in "".join(data["rows"])
    assert all(len(note) < 2 * SHOWN for note in data["rows"])
    return {row.name: row.note for row in report.rows if row.verdict == "fail"}


def fails(pair, row, note, cases=CASES, **arguments):
    report = verify(pair, cases=cases, **arguments)
    assert report.verdict == "fail"
    assert report.cases == cases
    assert report.first_failure is not None
    assert note in failing(report)[row]
    return report


# --- raising


class Mute(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("not even a text")


def recurse():
    recurse()


def throw(error):
    def act(*_):
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "note"),
    [
        (throw(ValueError("no")), "raised ValueError: no"),
        (throw(SystemExit(0)), "raised SystemExit: 0"),
        (throw(GeneratorExit()), "raised GeneratorExit"),
        (throw(KeyboardInterrupt()), "raised KeyboardInterrupt"),
        (throw(KeyboardInterrupt("own")), "raised KeyboardInterrupt: own"),
        (throw(BaseException("base")), "raised BaseException: base"),
        (throw(Mute()), "raised Mute: (its text cannot be had: RuntimeError)"),
        (throw(ValueError("a\nb\x1b[2J\udc80")), "raised ValueError: a b [2J "),
        (throw(ValueError("x" * 10**7)), "x" * SHOWN),
        (throw(KeyError(("a", 1))), "raised KeyError: ('a', 1)"),
        (recurse, "raised RecursionError"),
        (lambda: np.zeros(10**15), "MemoryError"),
        (lambda: pytest.fail("no"), "raised Failed: no"),
    ],
)
@pytest.mark.parametrize("isolate", [False, True])
def test_whatever_is_raised_is_a_row(act, note, isolate):
    report = fails(first(act), "backward", note, cases=3, isolate=isolate)
    assert report.first_failure.row == "backward"
    report.to_json().encode()


def test_a_second_call_that_raises_is_a_row():
    calls = itertools.count()
    flaky = first(lambda: next(calls) % 2 and throw(ValueError("used up"))())
    fails(flaky, AGAIN, "backward raised ValueError: used up")


# --- Ctrl-C


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def swallowed():
    with contextlib.suppress(BaseException):
        ctrl_c()


@pytest.mark.parametrize("act", [ctrl_c, swallowed])
def test_the_users_interrupt_stops_the_run_also_when_the_subject_swallows_it(act):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        verify(first(act), cases=CASES)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_users_interrupt_goes_to_the_users_handler():
    class Stop(Exception):  # noqa: N818
        pass

    def handle(*_):
        raise Stop

    before = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(Stop):
            verify(first(ctrl_c), cases=CASES)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_users_interrupt_ends_an_isolated_run():
    def interrupt():
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(100)

    with pytest.raises(KeyboardInterrupt):
        verify(first(interrupt), cases=CASES, isolate=True)


def test_the_command_line_exits_130_on_an_interrupt(tmp_path):
    ended = command(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    assert ended.returncode == 130
    assert "interrupted" in ended.stderr
    ended = command(tmp_path, "raise KeyboardInterrupt")
    assert ended.returncode == 1
    assert "raised KeyboardInterrupt" in ended.stdout


def command(folder, act, *arguments):
    """`bptt verify` of a file whose forward acts first, in a process of its own."""
    text = f"""
        from bptt_verify import Pair, cli, guard
        guard.MARGIN = 0.1

        def forward(i):
        {textwrap.indent(act, " " * 12).strip()}
            return {{"y": i["x"] * 1.5}}, None

        pair = Pair(name="one", inputs={{"x": "D"}}, outputs={{"y": "D"}}, forward=forward,
                    twin=lambda i: {{"y": i["x"] * 1.5}})
        if __name__ == "__main__":
            cli.main(["verify", __file__, "--cases", "4", "--dtype", "float64", *{arguments}])
    """
    lines = textwrap.dedent(text).replace("def forward(i):\n", "def forward(i):\n    ", 1)
    (folder / "acts.py").write_text(lines)
    return subprocess.run(
        [sys.executable, "acts.py"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# --- hanging


def busy():
    while True:
        pass


def stubborn():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def forgives():
    with contextlib.suppress(BaseException):
        busy()


class Endless(dict):
    def __iter__(self):
        busy()


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("act", [busy, lambda: time.sleep(1000), stubborn, forgives])
def test_a_hanging_subject_is_a_row_and_after_three_cases_the_run_stops(act, isolate):
    report = verify(first(act), cases=50, limit=0.2, isolate=isolate)
    assert failing(report) == {
        TIME: f"backward did not end within 0.2 s; nor in {MOST_OVER_TIME} cases, "
        "after which no more were run"
    }
    assert report.cases == MOST_OVER_TIME
    assert report.first_failure.row == TIME


def test_a_hang_in_the_outputs_themselves_is_a_row():
    hangs = changed(forward=lambda i: (Endless(y=1), None))
    fails(hangs, TIME, "forward did not end within 0.2 s", cases=2, limit=0.2)


def test_a_hang_of_the_second_call_is_a_row():
    calls = itertools.count()
    hangs = first(lambda: next(calls) % 2 and busy())
    fails(hangs, TIME, "backward did not end within 0.2 s", cases=2, limit=0.2)


def test_a_hang_is_not_shrunk():
    calls = []

    def counts():
        calls.append(0)
        busy()

    verify(first(counts), cases=50, limit=0.2)
    assert len(calls) == MOST_OVER_TIME


def test_shrinking_ends_when_its_time_is_up(monkeypatch):
    def smallest(seconds):
        monkeypatch.setattr(sys.modules["bptt_verify.verify"], "SHRINKING", seconds)
        report = verify(changed(backward=wrong), cases=20)
        return sum(draw.parse(PAIR, report.first_failure.case).sizes.values())

    def wrong(cache, d):  # for more than one sequence
        return {k: v * (1 - 2 * (len(d["y"]) > 1)) for k, v in backward(cache, d).items()}

    assert smallest(60.0) == 4
    assert smallest(-1.0) > 4


def test_a_timer_and_a_handler_of_the_users_own_are_put_back():
    def handle(*_):
        raise AssertionError

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        verify(PAIR, cases=CASES)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
        assert signal.getsignal(signal.SIGALRM) is handle
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def loop_in_c():
    collections.deque(itertools.repeat(0), maxlen=0)  # holds the interpreter's lock


def deadlock_in_c():
    mutex = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


@pytest.mark.parametrize("act", [loop_in_c, deadlock_in_c])
def test_a_hang_in_c_is_a_row_of_an_isolated_run(act, monkeypatch):
    monkeypatch.setattr(guard, "MARGIN", 0.1)
    note = "did not end within 0.2 s, nor when interrupted: killed"
    fails(first(act), TIME, note, cases=2, limit=0.2, isolate=True)


def test_a_hang_in_c_ends_the_process_with_a_message(tmp_path):
    act = """\
import ctypes
mutex = ctypes.create_string_buffer(256)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
ctypes.CDLL(None).pthread_mutex_lock(mutex)"""
    ended = command(tmp_path, act, "--limit", "1")
    assert ended.returncode == 1
    assert "forward did not end within 1 s and cannot be interrupted" in ended.stderr
    assert "--isolate" in ended.stderr


def test_a_hang_in_c_that_holds_the_interpreter_ends_the_process_with_a_traceback(tmp_path):
    act = "import collections, itertools\ncollections.deque(itertools.repeat(0), maxlen=0)"
    ended = command(tmp_path, act, "--limit", "1")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "in forward" in ended.stderr


# --- crashing


@pytest.mark.parametrize(
    ("act", "note"),
    [
        (lambda: ctypes.string_at(0), "crashed by SIGSEGV"),
        (os.abort, "crashed by SIGABRT"),
        (lambda: os._exit(0), "exit code 0"),
        (lambda: os.closerange(3, 1000), ""),
    ],
)
def test_a_crash_is_a_row_of_an_isolated_run(act, note):
    report = fails(first(act), ALIVE, note, cases=2, isolate=True)
    assert "isolate=True" in report.first_failure.reproduce


def test_a_crash_says_where(tmp_path):
    ended = command(tmp_path, "import ctypes\nctypes.string_at(0)")
    assert ended.returncode == -signal.SIGSEGV
    assert "in forward" in ended.stderr
    ended = command(tmp_path, "import ctypes\nctypes.string_at(0)", "--isolate")
    assert ended.returncode == 1
    assert "crashed by SIGSEGV" in ended.stdout
    assert "--isolate" in ended.stdout


def test_what_an_isolated_subject_starts_ends_with_it():
    reading, writing = os.pipe()
    verify(
        first(lambda: subprocess.Popen(["sleep", "100"], pass_fds=[writing])), case="", isolate=True
    )
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody is left who could write
    os.close(reading)


def test_an_isolated_run_says_the_same_as_any_other():
    pair = changed(without={"results stay"})  # what was returned is out of reach there
    assert verify(pair, cases=CASES).rows == verify(pair, cases=CASES, isolate=True).rows
    assert verify(SCALAR, cases=CASES, isolate=True).ok
    for f in (np.negative, np.ndarray.tolist, lambda g: g[None]):
        wrong = spoilt(f)
        assert verify(wrong, cases=3).rows == verify(wrong, cases=3, isolate=True).rows


# --- what comes back


class Hostile(dict):
    def __getitem__(self, key):
        raise RuntimeError("mine")


class Masked(np.ndarray):
    def __eq__(self, other):
        raise RuntimeError("compared")

    def copy(self, *_):
        raise RuntimeError("copied")


@pytest.mark.parametrize(
    ("f", "note"),
    [
        (lambda g: None, "got None"),
        (np.ndarray.tolist, "got list"),
        (lambda g: 1.0, "got float"),
        (lambda g: "text", "got str"),
        (lambda g: g.T[None], "expected shape"),
        (lambda g: g.astype(">f8"), "expected dtype float64, got >f8"),
        (lambda g: g.astype(object), "expected dtype float64, got object"),
        (lambda g: g.astype(np.float16), "expected dtype float64, got float16"),
        (lambda g: g * np.nan, "got nan"),
        (lambda g: g + np.inf, "got inf"),
        (lambda g: np.ma.masked_array(g, g > 0), "MaskedArray"),
        (lambda g: g.view(Masked), "test_verify_fire.Masked"),
        (np.asmatrix, "matrix"),
        (jnp.asarray, "of dtype float64, got jax"),
        (torch.tensor, "of dtype float64, got torch.Tensor"),
        (lambda g: (x for x in g), "got generator"),
        (lambda g: np.broadcast_to(0.0, (10**7, 10**7)), "expected shape"),
        (lambda g: np.zeros(10**8), "expected shape"),
    ],
)
def test_a_gradient_of_another_kind_fails_in_its_row_alone(f, note):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix
        assert list(failing(fails(spoilt(f), "dw", note))) == ["dw"]


def test_a_python_float_is_no_scalar_since_it_has_no_dtype():
    note = "expected an array () or NumPy scalar of dtype float32, got float"
    python = dataclasses.replace(SCALAR, forward=lambda i: ({"y": float(i["x"].sum())}, i["x"]))
    fails(python, "y", note, dtype="float32")
    assert verify(SCALAR, cases=CASES, dtype="float32").ok


@pytest.mark.parametrize(
    ("returned", "note"),
    [
        (lambda i: None, "expected (outputs, cache), got NoneType"),
        (lambda i: ([1], None), "outputs: expected a dict, got list"),
        (lambda i: ((x for x in "y"), None), "outputs: expected a dict, got generator"),
        (lambda i: ({"z": 1}, None), "outputs: missing y; unexpected z"),
        (lambda i: ({**forward(i)[0], **dict.fromkeys(range(10**6))}, None), "unexpected 0, 1"),
        (lambda i: (Hostile(y=1), None), "raised RuntimeError: mine"),
    ],
)
def test_outputs_of_another_kind_are_a_row(returned, note):
    fails(changed(forward=returned), "forward", note, cases=2)


def test_gradients_in_one_buffer_that_is_used_again_pass_where_they_are_right():
    buffer = np.empty(2 * 16 * 8)  # a property doubles the batch

    def reuses(cache, d):
        g = backward(cache, d)
        views = {"x": buffer[: g["x"].size], "w": buffer[-g["w"].size :]}
        for k, v in views.items():
            v[...] = g[k].ravel()
        return {k: v.reshape(g[k].shape) for k, v in views.items()}

    assert set(failing(verify(changed(backward=reuses), cases=30))) == {"results stay"}
    assert verify(changed(backward=reuses, without={"results stay"}), cases=30).ok


def test_gradients_that_share_one_array_are_seen_in_their_values():
    def shares(cache, d):
        g = backward(cache, d)
        both = np.zeros(max(g["x"].size, g["w"].size))
        views = {k: both[: v.size].reshape(v.shape) for k, v in g.items()}
        for k, v in views.items():
            v[...] = g[k]
        return views

    assert set(failing(verify(changed(backward=shares), cases=CASES))) == {"dx"}


# --- what is changed


def writes(name):
    def wrong(cache, d):
        g = backward(cache, d)
        {"x": cache[0], "y": cache[2], "dy": d["y"]}[name][...] = 7
        return g

    return changed(backward=wrong)


def reshapes(cache, d):
    g = backward(cache, d)
    d["y"].shape = (-1,)
    return g


@pytest.mark.parametrize(
    ("pair", "note"),
    [
        (writes("x"), "modified x"),
        (writes("y"), "modified the output y"),
        (writes("dy"), "modified the cotangent of y"),
        (changed(backward=reshapes), "modified the cotangent of y"),
    ],
)
def test_inputs_outputs_and_cotangents_are_to_be_left_alone(pair, note):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of setting a shape
        fails(pair, UNCHANGED, note)


def test_state_between_calls_is_a_row():
    calls = itertools.count(1)
    fails(spoilt(lambda g: g * next(calls)), AGAIN, "differs in dw")


def leave_thread():
    threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda: np.seterr(all="raise"), "NumPy's error handling"),
        (lambda: os.chdir("/"), "the working directory"),
        (lambda: os.environ.update(FIRE=str(time.time())), "environment variables"),
        (lambda: os.environ.clear(), "environment variables"),
        (lambda: sys.setrecursionlimit(12345), "the recursion limit"),
        (lambda: jax.config.update("jax_enable_x64", True), "JAX's configuration"),
        (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), "signal handlers"),
        (lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN), "signal handlers"),
        (leave_thread, "threads, left running"),
    ],
)
@pytest.mark.parametrize("isolate", [False, True])
def test_global_state_that_is_changed_is_a_row_and_put_back(act, what, isolate):
    def state():
        kept = guard._state()
        del kept["threads, left running"]
        return kept, [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGALRM)]

    before = state()
    report = fails(first(act), STATE, f"changed {what}", isolate=isolate)
    assert set(failing(report)) == {STATE}
    assert state() == before


def test_a_module_that_is_imported_late_may_set_things_up():
    done = []

    def late():
        if not done:
            done.append(os.environ.setdefault("FIRE", "1"))

    assert verify(first(late), cases=CASES).ok


def quiet_state():
    return sys.stdout, sys.stderr, list(warnings.filters), signal.getitimer(signal.ITIMER_REAL)


def stop_output():
    print("last words")
    sys.stdout.close()
    sys.stderr = None


def test_a_subject_that_closes_its_output_cannot_print_again_but_the_report_can():
    before = quiet_state()
    fails(first(stop_output), "backward", "I/O operation on closed file")
    assert quiet_state() == before


def seed():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


@pytest.mark.parametrize(
    "act",
    [
        seed,
        lambda: signal.alarm(1000),
        lambda: warnings.simplefilter("error"),
        lambda: warnings.warn("careful", stacklevel=1),
        lambda: np.float64(1) / np.zeros(1),
    ],
)
def test_what_does_no_harm_is_put_back_without_a_word(act):
    before = quiet_state()
    assert verify(first(act), cases=CASES).ok
    assert quiet_state() == before


def test_warnings_that_the_user_makes_errors_are_not_errors_of_the_subject():
    def warns():
        warnings.warn("careful", stacklevel=1)
        np.exp(np.full(3, 1000.0))

    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        assert verify(first(warns), cases=30, dtype="float32").ok


# --- printing


def print_megabytes():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        stream.write("word " * 10**5)
    os.write(1, b"past Python " * 1000)
    os.write(2, b"past Python " * 1000)
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    sys.__stdout__.write("waits in its buffer")


@pytest.mark.parametrize("isolate", [False, True])
def test_nothing_that_the_subject_prints_comes_out(capfd, isolate, monkeypatch):
    with open(1, "w", encoding="utf-8", closefd=False) as buffered:
        monkeypatch.setattr(sys, "__stdout__", buffered)
        buffered.write("before\n")
        assert verify(first(print_megabytes), cases=3, isolate=isolate).ok
        buffered.write("after\n")
    assert capfd.readouterr() == ("before\nafter\n", "")


# --- threads, the command line


def test_verify_runs_in_another_thread_where_there_are_no_signals():
    found = []
    thread = threading.Thread(target=lambda: found.append(verify(PAIR, cases=CASES)))
    thread.start()
    thread.join()
    assert found[0].ok


def test_a_thread_left_running_does_not_keep_the_command(tmp_path):
    act = "import threading\nthreading.Thread(target=threading.Event().wait).start()"
    ended = command(tmp_path, act)
    assert ended.returncode == 1
    assert "threads, left running" in ended.stdout


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (0, ValueError, "limit: expected seconds, above 0 and at most 1e.06, got 0"),
        (float("nan"), ValueError, "limit: expected seconds"),
        (float("inf"), ValueError, "limit: expected seconds"),
        ("1", TypeError, "limit: expected a number, got str"),
    ],
)
def test_a_wrong_limit_is_named(limit, error, message):
    with pytest.raises(error, match=message):
        verify(PAIR, limit=limit)


def test_a_wrong_limit_is_a_wrong_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", "rnn", "--limit", "0"])
    assert ended.value.code == 2
    assert "--limit: expected seconds, above 0" in capsys.readouterr().err


def test_leaving_by_the_back_door_is_a_row():
    report = verify(changed(backward=lambda c, d: os._exit(0)), cases=2)
    assert report.verdict == "fail"
    assert any("os._exit(0)" in row.note for row in report.rows)
    assert os._exit.__name__ == "_exit"


def misbehaving_at(calls, how):
    """A right backward pass but in these calls."""
    count = iter(range(1, 10**9))

    def wrong(kept, d):
        found = backward(kept, d)
        return how(found) if next(count) in calls else found

    return changed(backward=wrong)


@pytest.mark.parametrize(
    "how",
    [
        lambda g: {**g, "w": g["w"] * np.nan},
        lambda g: {**g, "w": g["w"] * 1.5},
        lambda g: {**g, "w": g["w"][:0]},
        lambda g: 1 / 0,
    ],
)
@pytest.mark.parametrize("at", [{101}, {100}, {301}])
def test_a_failure_that_does_not_come_again_is_one(at, how):
    report = verify(misbehaving_at(at, how), cases=200, dtype="float64")
    assert report.verdict == "fail"


def test_a_subject_that_hangs_now_and_then_is_compared_elsewhere():
    def now_and_then(i):
        if i["x"].shape[0] == 3:
            time.sleep(5)
        return forward(i)

    report = verify(changed(forward=now_and_then), cases=60, limit=0.5)
    assert report.verdict == "fail"
    (row,) = (row for row in report.rows if row.name == "y")
    assert row.cases > MOST_OVER_TIME
    assert row.verdict == "pass"


# --- a subject that forks


FORKS = """
import dataclasses, multiprocessing, os, sys
from bptt_verify import verify
from dense import PAIR


def multiprocess():
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join()
    assert child.exitcode == 0


def leave(how, status):
    child = os.fork()
    if child == 0:
        how()
    else:
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended == status, ended


def forward(i):
    {act}
    outputs, kept = PAIR.forward(i)
    return {{"y": {factor} * outputs["y"]}}, kept


pair = dataclasses.replace(PAIR, forward=forward)
print(verify(pair, cases=2, isolate={isolate}).verdict)
"""


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(("factor", "verdict"), [(1, "pass"), (2, "fail")])
@pytest.mark.parametrize(
    "act",
    [
        "multiprocess()",
        "leave(lambda: os._exit(3), 3)",
        "leave(sys.exit, 0)",
        "leave(lambda: sys.exit(4), 4)",
        "leave(lambda: 1 / 0, 1)",
        "leave(lambda: None, 0)",
    ],
)
def test_a_child_of_the_subject_s_ends_as_it_wants_to_and_never_judges(
    act, factor, verdict, isolate
):
    ended = subprocess.run(
        [sys.executable, "-c", FORKS.format(act=act, factor=factor, isolate=isolate)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
    )
    assert (ended.returncode, ended.stdout) == (0, f"{verdict}\n"), ended.stderr


def test_a_limit_that_passes_as_the_call_ends_raises_no_more(monkeypatch):
    """What would run then is the clean-up, which must not be cut short."""
    own = os.getpid()

    def late():
        signal.raise_signal(signal.SIGALRM)
        return own

    with guard.Guard() as guarded, guarded.case(), guarded.call():
        monkeypatch.setattr(os, "getpid", late)
    assert guarded.over == ""


def test_between_two_cases_signals_are_for_whoever_handled_them_before():
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append("alarm"))
    try:
        with guard.Guard() as guarded:
            with guarded.case(), guarded.call():
                pass
            signal.raise_signal(signal.SIGALRM)
            assert heard == ["alarm"]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_who_takes_over_signals_between_two_cases_keeps_them_and_the_subject_is_not_blamed():
    before = signal.getsignal(signal.SIGINT)
    heard = []

    def handle(number, frame):
        heard.append((number, frame is not None))

    try:
        with guard.Guard() as guarded:
            signal.signal(signal.SIGINT, handle)
            with guarded.case():
                with guarded.call():
                    pass
                os.kill(os.getpid(), signal.SIGINT)
                assert heard == []  # nothing is left half done
            assert heard == [(signal.SIGINT, True)]
            assert guarded.changed == []
            signal.signal(signal.SIGINT, signal.default_int_handler)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_alarm_of_the_users_own_is_not_lost_in_a_case():
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append("alarm"))
    try:
        with guard.Guard() as guarded, guarded.case():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with guarded.call():
                time.sleep(0.1)
            time.sleep(0.01)
            assert heard == []  # nothing is left half done
        assert heard == ["alarm"]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_guard_that_is_interrupted_as_it_begins_leaves_nothing_behind(monkeypatch):
    def state():
        return os._exit, faulthandler.is_enabled(), signal.getsignal(signal.SIGINT)

    def interrupted(*_):
        raise KeyboardInterrupt

    before, threads = state(), threading.active_count()
    monkeypatch.setattr(guard.Guard, "_take_over", interrupted)
    with pytest.raises(KeyboardInterrupt), guard.Guard():
        pass
    assert (state(), threading.active_count()) == (before, threads)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGINT])
def test_a_signal_that_ended_the_process_before_still_does(number):
    script = (
        "import signal; from bptt_verify.guard import Guard\n"
        f"signal.signal({number:d}, signal.SIG_DFL)\n"
        f"with Guard(): signal.raise_signal({number:d})"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert ended.returncode == -number


def test_what_an_isolated_subject_sets_up_on_its_first_call_silences_nothing():
    done = []  # in every process by itself

    def sets_up(i):
        if not done:
            done.append(True)
            os.environ["SET_UP_ONCE"] = "1"
        return forward(i)

    report = verify(changed(forward=sets_up), cases=30, isolate=True)
    assert report.verdict == "pass"
    assert report.silent == ("results stay",)


def test_a_call_that_never_ended_says_nothing_else_and_its_limit_is_in_the_command(tmp_path):
    report = verify(first(lambda: time.sleep(60)), cases=4, limit=0.05)
    said = {row.name: row.verdict for row in report.rows}
    assert said[TIME] == "fail"
    assert UNCHANGED not in said
    assert AGAIN not in said
    assert "limit=0.05" in report.first_failure.reproduce
