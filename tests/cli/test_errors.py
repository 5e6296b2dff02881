"""One line and an exit code for what went wrong; a traceback for what should not have happened."""

import errno
import os
import subprocess
import sys

import pytest

from tinycnn import __version__, cli
from tinycnn.backend import DeviceError
from tinycnn.cli.errors import CommandError, bad_input


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("a: b"), "a: b"),
        (ValueError("two\n  lines"), "two lines"),
        (DeviceError("no GPU"), "no GPU"),
        (PermissionError(13, "Permission denied", "x/y"), "x/y: Permission denied: choose another place, or check"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: No space left on device: free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", ".y.tmp", None, "y"), "y: Disk quota exceeded: free some space"),
        (OSError(errno.EFBIG, "File too large"), "File too large: free some space"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), "x: Not a directory: there is a file where a fo"),
        (FileExistsError(errno.EEXIST, "File exists", "x"), "x: File exists: there is a file where a folder is need"),
        (OSError("odd"), "odd"),
        (MemoryError("Unable to allocate 61.1 TiB"), "out of memory: use a smaller batch, image or network"),
    ],
)
def test_bad_input_becomes_one_line(error, words):
    with pytest.raises(CommandError) as caught, bad_input():
        raise error
    assert str(caught.value).startswith(words)
    assert caught.value.code == 2


@pytest.mark.parametrize("error", [TypeError, KeyError, ZeroDivisionError, AssertionError])
def test_bugs_keep_their_traceback(error):
    with pytest.raises(error), bad_input():
        raise error("a bug")


def test_version_help_and_mistyped_commands(command):
    assert command("--version") == 0
    assert command.out == f"tinycnn {__version__}\n"
    assert command() == 0
    assert command.out.startswith("Usage: tinycnn")
    names = ("train", "eval", "predict", "models", "summary", "gradcheck")
    assert all(name in command.out for name in names)
    assert all(command(name, "--help") == 0 for name in names)
    assert "Did you mean 'train'" in command.refused("trian")


def test_interrupted_before_it_began(command, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("tinycnn.models.names", interrupt)
    assert command("models") == 130
    assert command.err == "tinycnn: interrupted\n"


def test_a_bug_in_a_command_is_not_dressed_up(command, monkeypatch):
    def broken():
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("tinycnn.models.names", broken)
    with pytest.raises(ValueError, match="broadcast"):
        command("models")


def test_as_a_module_and_into_a_closed_pipe():
    argv = [sys.executable, "-m", "tinycnn", "models"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "lenet5" in done.stdout
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


def shell(line, **environment):
    """Run ``tinycnn LINE`` in a shell, and return (exit code, standard output, standard error)."""
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m tinycnn {line}'],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_terminal_without_the_characters():
    code, out, err = shell("models", PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert "1?32?32" in out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_to_a_full_disk():
    code, _, err = shell("models >/dev/full")
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith("tinycnn: error: ")
    assert "No space left on device" in line
    assert shell("summary nothing 2>/dev/full") == (2, "", "")


@pytest.mark.parametrize("closed", [">&-", "--json 2>&-"])
def test_closed_streams(tmp_path, closed):
    assert shell(f"train --epochs 1 --batch-size 500 --out {tmp_path / 'a'} {closed}")[0] == 0
    assert (tmp_path / "a" / "result.json").is_file()


def test_an_error_does_not_go_to_standard_output():
    assert shell("summary nothing 2>&-") == (2, "", "")


def test_main_returns_the_exit_code():
    assert cli.main(["summary", "lenet5", "--json"]) == 0


def test_a_message_says_what_a_terminal_would_obey():
    assert str(CommandError("é.pth:\n no\x1b[2J such\tname ×")) == r"é.pth: no\x1b[2J such name ×"
