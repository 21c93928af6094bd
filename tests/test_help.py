"""What the terminal says: help whose examples work, and only what suits where it goes."""

import os
import pty
import re
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bptt_verify import cli
from bptt_verify.pairs import REGISTRY
from bptt_verify.vectors import write


def walked(app, *words):
    """Every command there is, as the words that call it, with what its help says."""
    for name in app:
        if name not in (*app.help_flags, *app.version_flags):
            found = app[name]
            if found.default_command is not None:
                yield " ".join((*words, name)), found.help
            yield from walked(found, *words, name)


COMMANDS = dict(walked(cli.app))
EXAMPLES = {name: re.findall(r"Example: `(.*)`", said) for name, said in COMMANDS.items()}
every_command = pytest.mark.parametrize("command", COMMANDS)


def started(words, folder, **environment):
    """Run a command line as a user does who pipes its output: plain text is expected."""
    known = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR")}
    return subprocess.run(
        words,
        cwd=folder,
        env={**known, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_is_walked():
    known = {"new", "verify", "mutants", "bench", "train", "gradients"}
    assert COMMANDS.keys() >= {*known, "vectors write", "vectors check", "--install-completion"}


@every_command
def test_help_shows_examples_of_the_command(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    out = capsys.readouterr().out
    assert not ended.value.code
    assert f"Usage: bptt {command}" in out
    assert re.search(r"^│ +(\S+ +)?--json\b", out, re.M) or command.startswith("-")
    assert EXAMPLES[command]
    for example in EXAMPLES[command]:
        assert f"Example: {example}\n" in re.sub(r" +\n", "\n", out)
        assert f"{example} ".startswith(f"bptt {command} ")


def a_port(folder):
    """Golden vectors, and the answers of a port that is never off."""
    write(folder / "golden", [REGISTRY["lstm"]], ["float32"], random=1)
    tensors = load_file(folder / "golden" / "lstm-float32.safetensors")
    mine = {
        name.replace("/expected/", "/"): array.astype(np.float32)
        for name, array in tensors.items()
        if "/expected/" in name
    }
    save_file(mine, folder / "mine.safetensors")


def a_run(folder):
    """What a command wrote with --json."""
    started(["bptt", "gradients", "--steps", "5", "--json", "run.json"], folder)


GIVEN = {"vectors check": a_port, "report": a_run}
"""What an example finds in its folder."""


@pytest.mark.parametrize(
    ("command", "example"), [(name, each) for name, all_of in EXAMPLES.items() for each in all_of]
)
def test_the_example_works_and_is_plain_text_where_it_is_piped(command, example, tmp_path):
    GIVEN.get(command, lambda folder: None)(tmp_path)
    home = {"HOME": str(tmp_path)} if command.startswith("-") else {}
    ended = started(shlex.split(example), tmp_path, **home)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.strip()
    assert ended.stderr.strip() == ""  # no bar
    assert not {"\x1b", "\r"} & {*ended.stdout, *ended.stderr}


def seen(words, folder, *, stream, **environment):
    """What a terminal gets of one stream, "stdout" or "stderr"; the other one is piped."""
    reader, writer = pty.openpty()
    ended = subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writer},
    )
    os.close(writer)
    text = b""
    try:
        while found := os.read(reader, 65536):
            text += found
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(reader)
    assert ended.wait() == 0
    return text.decode()


VERIFY = ["bptt", "verify", "update", "--cases", "20"]


@pytest.mark.parametrize(
    "words", [VERIFY, ["bptt", "--help"], ["bptt", "gradients", "--steps", "9"]]
)
def test_a_terminal_gets_colours_unless_they_are_not_wanted(words, tmp_path):
    assert "\x1b[" in seen(words, tmp_path, stream="stdout")
    assert "\x1b" not in seen(words, tmp_path, stream="stdout", NO_COLOR="1")


def test_a_terminal_gets_a_bar_with_rate_and_time_left_and_it_goes_away(tmp_path):
    words = ["bptt", "vectors", "write", "golden", "--pair", "update", "--random", "40"]
    bar = seen(words, tmp_path, stream="stderr")
    shown = re.sub(r"\x1b\[[?\d;]*\w", "", bar)
    assert re.search(r"cases .* \d+/\d+ [\d.,]+/s 0:00:\d\d 0:00:\d\d", shown)
    *_, after = bar.split("\x1b[2K")  # which empties the line
    assert re.sub(r"\x1b\[[?\d]*\w|\s", "", after) == ""


@every_command
def test_an_unknown_option_is_one_line_and_exit_2(command, tmp_path):
    ended = started(["bptt", *command.split(), "--nonsense"], tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"bptt: .*--nonsense.*\n", ended.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["new", "cell.txt"],
        ["verify", "nosuch"],
        ["verify", "rnn", "--case", ""],
        ["verify", "--case", "T=2"],
        ["verify", "rnn", "--json", ""],
        ["bench", "--threads", "-1"],
        ["vectors", "write", "golden", "--pair"],
        ["mutants", "--only", "nosuch"],
        ["bench", "--cell", "nosuch"],
        ["train", "nosuch.txt"],
        ["gradients", "--scale", "nan"],
        ["vectors", "write", "golden", "--pair", "nosuch"],
        ["vectors", "check", "nowhere", "mine.safetensors"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_is_one_line_and_exit_2(words, tmp_path):
    ended = started(["bptt", *words], tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"bptt: .+\n", ended.stderr)
    assert list(tmp_path.iterdir()) == []


def loading_jax(running):
    """Wait until it is in the middle of that, however fast the machine is."""
    while running.poll() is None and "jaxlib" not in Path(f"/proc/{running.pid}/maps").read_text():
        time.sleep(0.01)


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("seconds", [None, 2, 8])
@pytest.mark.parametrize(
    "words",
    [["verify"], ["verify", "rnn", "--cases", "9000", "--workers", "2"], ["bench"]],
    ids=" ".join,
)
def test_ctrl_c_ends_the_workers_too_and_says_so_in_a_line(words, seconds, tmp_path):
    running = subprocess.Popen(
        ["bptt", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to all processes of one
    )
    try:
        if seconds is None:
            loading_jax(running)
        else:
            time.sleep(seconds)  # workers start, or are at work
        os.killpg(running.pid, signal.SIGINT)
        out, said = running.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        raise
    assert (running.returncode, out, said) == (130, "", "bptt: interrupted\n")
    patience = time.monotonic() + 20
    while working(running.pid) and time.monotonic() < patience:
        time.sleep(0.1)  # what keeps count of shared resources ends a moment later
    assert working(running.pid) == []


INTERRUPTED = """
import atexit, os, signal
from bptt_verify import Pair

def forward(i):
    os.kill(os.getpid(), signal.SIGINT)
    return {"y": i["x"]}, None

pair = Pair(name="p", inputs={"x": "D"}, outputs={"y": "D"}, forward=forward,
            twin=lambda i: {"y": i["x"]})
atexit.register(os.write, 2, b"late")
"""


@pytest.mark.usefixtures("hearing")
def test_after_ctrl_c_the_interpreter_is_not_taken_down_around_threads_at_work(tmp_path):
    (tmp_path / "mine.py").write_text(INTERRUPTED)
    ended = started(["bptt", "verify", "mine.py"], tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "bptt: interrupted\n")


def working(group):
    """The processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, _, of, *_ = stat.read_text().rpartition(")")[2].split()
            found += [stat.parent.name] * (int(of) == group and state != "Z")
    return found


def test_the_list_of_commands_says_what_each_does(tmp_path):
    for words in ([], ["vectors"]):
        out = started(["bptt", *words, "--help"], tmp_path).stdout
        names = re.findall(r"^│ (\w[\w-]*) +(.*?) *│$", out, re.MULTILINE)
        assert len(names) >= 2
        assert all(said for _, said in names)


def test_the_version_is_that_of_the_package(tmp_path):
    assert started(["bptt", "--version"], tmp_path).stdout.strip() == version("manual-bptt")


COMPLETED = """
. "$HOME/.bashrc"
COMP_WORDS=({words}) COMP_CWORD={last}
_bptt
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_the_tab_key_completes_commands_options_and_values(tmp_path):
    home = {"HOME": str(tmp_path)}
    for _ in range(2):  # once more changes nothing
        words = ["bptt", "--install-completion", "--shell", "bash"]
        assert started(words, tmp_path, **home).returncode == 0
    assert (tmp_path / ".bashrc").read_text("utf-8").count("completions/bptt") == 2  # one line
    for words, found in (
        ("bptt ver", "verify"),
        ("bptt vectors ch", "check"),
        ("bptt verify --reg", "--regression"),
        ("bptt new --from t", "torch"),
    ):
        script = COMPLETED.format(words=words, last=len(words.split()) - 1)
        ended = started(["bash", "-c", script], tmp_path, **home)
        assert (ended.stdout.split(), ended.stderr) == ([found], "")
