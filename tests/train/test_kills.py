"""A training that is killed again and again, at moments that nobody chose, and one whose disk is full."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_runs import assert_equal_runs, settings

from tinycnn.train import Run, checkpoint

KILLS = int(os.environ.get("TINYCNN_KILLS", "3"))
"""How many; more of them by hand."""

CHILD = """
import sys
from pathlib import Path
from tinycnn.train import Run, Settings
folder = Path(sys.argv[1])
if (folder / "config.json").exists():
    run = Run.resume(folder, None, None)
else:
    run = Run.new(Settings.choose(epochs=3, batch_size=128, optimizer="momentum", ema=0.9, accumulate=2, save_every=1,
                                  schedule="cosine", seed=7), folder)
print("go", flush=True)
assert run.fit()
run.finish()
"""


def begin(folder, **options):
    command = [sys.executable, "-c", CHILD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    return process, process.stdout.readline()


def end(process):
    _, said = process.communicate()
    return process.returncode, said


def place(folder):
    """Batches done, by the state, which has to be whole; and so has whatever else is there."""
    for path in folder.glob("*.safetensors"):
        checkpoint.read(path, "training state" if "state" in path.name else "weights")
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    trainer = checkpoint.read(folder, "training state").metadata["trainer"]
    return trainer["epoch"] * 1000 + trainer["batch"]


def test_killed_at_any_moment_it_comes_to_the_same_end(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process, _ = begin(whole)
    start = time.monotonic()
    assert end(process) == (0, "")
    duration = time.monotonic() - start
    rng, places = np.random.default_rng(), [0]
    for _ in range(KILLS):
        process, _ = begin(killed)
        time.sleep(rng.uniform(0, duration / 2))
        process.send_signal(signal.SIGKILL)
        code, said = end(process)
        assert code in (-signal.SIGKILL, 0), said
        places.append(place(killed))
    assert places == sorted(places)
    process, _ = begin(killed)
    assert end(process) == (0, "")
    assert_equal_runs(whole, killed)


@pytest.mark.skipif(os.name != "posix", reason="the system cannot limit a file's size")
def test_a_full_disk_leaves_the_state_before_it_and_says_so(tmp_path):
    import resource

    folder = tmp_path / "run"
    run = Run.new(settings(save_every=1, ema=0.9), folder)
    run.trainer.after_batch.append(lambda t: t.stop() if t.batch == 2 else None)
    assert not run.fit()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limit = len(before["training_state.safetensors"]) // 2
    command = [sys.executable, "-m", "tinycnn", "train", "--resume", str(folder)]
    failed = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert "training_state.safetensors: File too large: free some space, or choose another place" in line
    assert f"what was saved before is whole: go on with tinycnn train --resume {folder}" in line
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "metrics.jsonl"}
    assert after == {name: content for name, content in before.items() if name != "metrics.jsonl"}
    subprocess.run([*command, "--quiet"], check=True)
    assert json.loads((folder / "result.json").read_text())["epochs"] == 3
