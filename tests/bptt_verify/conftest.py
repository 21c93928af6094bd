import pytest

from bptt_verify import cli


@pytest.fixture
def bptt(monkeypatch, capsys, tmp_path):
    """Run the command line in a folder of its own: exit code, output, complaints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run
