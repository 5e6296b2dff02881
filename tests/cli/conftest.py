"""Running commands in-process."""

import json

import pytest

from tinycnn.cli import main


class Command:
    """What a command said and returned."""

    def __init__(self, capfd):
        self.capfd = capfd

    def __call__(self, *arguments):
        self.capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        self.out, self.err = self.capfd.readouterr()
        assert "Traceback" not in self.err
        return code

    def refused(self, *arguments):
        """Expect bad input: code 2, nothing on standard output, one line on standard error, which is returned."""
        assert self(*arguments) == 2
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("tinycnn: error: ")
        return line

    def json(self):
        """Return the last line of standard output, decoded."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def command(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYCNN_DATA", raising=False)
    return Command(capfd)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run folder: two epochs of LeNet-5 on digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--epochs", "2", "--out", str(folder), "--quiet", "--json", "--seed", "4"]) == 0
    return folder
