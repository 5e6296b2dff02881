"""``tinycnn train --tune`` and ``--algorithms``."""

import json

import pytest

from tinycnn.kernels.conv.plan import ALGORITHMS

QUICK = ("--epochs", 1, "--batch-size", 500, "--out")


@pytest.fixture
def measured(command, tmp_path):
    """The folder of a run that has measured, and what it found."""
    assert command("train", "--tune", *QUICK, "a") == 0
    return json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["algorithms"]


def test_measured_once_and_taken_again(command, tmp_path, measured):
    assert list(measured) == ["conv1", "conv2"]
    assert set(measured.values()) <= set(ALGORITHMS)
    lines = [line for line in command.out.splitlines() if "measured" in line]
    assert lines in (
        [f"convolutions as measured: {measured['conv1']} ×2"],
        [f"convolutions as measured: {measured['conv1']} ×1, {measured['conv2']} ×1"],
    )
    assert command("train", "--algorithms", "a", *QUICK, "b", "--json") == 0
    assert command.json()["algorithms"] == measured
    for name in ("last", "best"):
        one, other = (tmp_path / folder / f"{name}.safetensors" for folder in "ab")
        assert one.read_bytes() == other.read_bytes()


def test_refused(command, tmp_path, measured):
    assert "--tune cannot be given with --resume" in command.refused("train", "--tune", "--resume", "a")
    assert "--algorithms cannot be given with --resume" in command.refused(
        "train", "--algorithms", "a", "--resume", "a"
    )
    assert "--tune cannot be given with --algorithms" in command.refused("train", "--tune", "--algorithms", "a")
    assert "nowhere: there is no such folder" in command.refused("train", "--algorithms", "nowhere")
    other = command.refused("train", "--algorithms", "a", "--model", "lenet5_1998")
    assert "no convolution at 'conv1'" in other
    assert command("train", *QUICK, "c", "--quiet") == 0
    assert "c: this run has measured no algorithms: name one made with --tune" in command.refused(
        "train", "--algorithms", "c"
    )
    assert not (tmp_path / "runs").exists()
