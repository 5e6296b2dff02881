"""``tinycnn train``: results, refusals, failures."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from small_runs import assert_equal_weights, weights

from tinycnn import data, parallel
from tinycnn.train import checkpoint

QUICK = ("--epochs", 1, "--batch-size", 500)


# ---- results -----------------------------------------------------------------------------------------------


def test_plain_lines_and_one_line_of_json_last(command, tmp_path):
    assert command("train", "--epochs", 2, "--out", "a", "--json") == 0
    assert len(command.out.splitlines()) == 1, "with --json nothing else is on standard output"
    result = command.json()
    assert 0.8 < result["test_accuracy"] <= 1
    assert 0.8 < result["val_accuracy"] <= 1
    assert (result["epochs"], result["parameters"], result["run"]) == (2, 61_706, "a")
    assert result["seconds"] > 0
    assert "\x1b" not in command.err, "no colours and no moving bar in a file"
    lines = command.err.splitlines()
    assert "lenet5 (61,706 parameters) on digits: 1,294 training, 144 validation, 359 test images" in lines[0]
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    for word in ("loss", "acc", "img/s", "left", "val"):
        assert word in lines[2]
    assert result == json.loads((tmp_path / "a" / "result.json").read_text())


def test_words_for_people_go_to_standard_output(command):
    assert command("train", *QUICK, "--out", "a") == 0
    assert command.err == ""
    assert command.out.splitlines()[-1].startswith("test accuracy ")


def test_quiet(command):
    assert command("train", *QUICK, "--quiet", "--out", "a") == 0
    assert len(command.out.splitlines()) == 1
    assert command.err == ""


def test_default_folder_is_named_after_the_run(command, tmp_path):
    for _ in range(2):
        assert command("train", *QUICK, "--quiet") == 0
    first, second = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert first.startswith("lenet5-digits-20")
    assert first != second


def test_two_runs_begun_in_the_same_second(command, tmp_path, monkeypatch):
    """The second one chooses its folder after the first one has, and before the first one has written to it."""
    from tinycnn.train import Run

    new, begun = Run.new.__func__, []

    def meanwhile(cls, settings, folder, *rest):
        if not begun:
            begun.append(folder)
            assert command("train", *QUICK, "--quiet") == 0
        return new(cls, settings, folder, *rest)

    monkeypatch.setattr("time.strftime", lambda how: "now")
    monkeypatch.setattr(Run, "new", classmethod(meanwhile))
    assert command("train", *QUICK, "--quiet") == 0
    for name in ("lenet5-digits-now", "lenet5-digits-now-2"):
        assert (tmp_path / "runs" / name / "result.json").is_file()


def test_options_reach_the_run(command, tmp_path):
    code = command(
        *("train", "--model", "lenet5_1998", "--optimizer", "sgd", "--lr", 0.01, "--momentum", 0.5, "--seed", 9),
        *("--weight-decay", 0.001, "--schedule", "none", "--shift", 0, "--val-fraction", 0, "--precision", "float64"),
        *("--threads", 1, "--device", "auto", "--out", "a", "--json", *QUICK),
    )
    assert code == 0
    assert parallel.get_num_threads() == 1
    chosen = {
        **{"model": "lenet5_1998", "optimizer": "sgd", "lr": 0.01, "momentum": 0.5, "seed": 9, "weight_decay": 0.001},
        **{"schedule": "none", "shift": 0, "val_fraction": 0.0, "precision": "float64", "batch_size": 500, "epochs": 1},
    }
    result = command.json()
    assert {name: result[name] for name in chosen} == chosen
    settings = json.loads((tmp_path / "a" / "config.json").read_text())["settings"]
    assert {name: settings[name] for name in (*chosen, "data", "algorithms")} == chosen | {
        "data": "digits",
        "algorithms": None,
    }
    assert all(x.dtype == np.float64 for x in weights(tmp_path / "a").values() if x.ndim == 4)


def test_two_runs_with_one_seed_are_equal_on_any_number_of_threads(command, tmp_path):
    for threads in (1, 2):
        assert command("train", "--epochs", 1, "--threads", threads, "--out", threads, "--quiet") == 0
    assert_equal_weights(tmp_path / "1", tmp_path / "2")


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "lenet6"], "unknown model 'lenet6'; did you mean 'lenet5'?"),
        (["--data", "digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        (["--optimizer", "addam"], "unknown optimizer 'addam'; did you mean 'adam'?"),
        (["--schedule", "cosin"], "unknown schedule 'cosin'; did you mean 'cosine'?"),
        (["--optimizer", "adam", "--momentum", "0.9"], "'adam' takes no momentum"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--epochs", "0"], "error: --epochs must be at least 1"),
        (["--batch-size", "0"], "error: --batch-size must be"),
        (["--epochs", "ten"], "--epochs"),
        (["--lr", "-1"], "error: --lr must be a number greater than 0"),
        (["--weight-decay", "-1"], "weight_decay must be a number of at least 0"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--seed", "-1"], "seed must lie in"),
        (["--val-fraction", "0.0001"], "fraction must lie between 0 and 1 and leave examples"),
        (["--data", "mnist"], "mnist: no data directory"),
        (["--data", "mnist", "--data-dir", "nowhere"], "nowhere (data_dir) is not a folder"),
        (["--resume", "nowhere"], "nowhere: there is no such folder"),
        (["--resume", "nowhere", "--batch-size", "3"], "--batch-size cannot be given with --resume"),
        (["--resume", "nowhere", "--out", "a"], "--out cannot be given with --resume"),
        (["--model", "lenet5_1998", "--data", "cifar10"], "cifar10: no data directory"),
        (["--modell", "x"], "--modell"),
        (["extra"], "extra"),
        (["--out", ""], "'--out': an empty name: name a folder"),
        (["--resume", ""], "'--resume': an empty name: name a folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(command, tmp_path, arguments, words):
    assert words in command.refused("train", *arguments)
    assert not list(tmp_path.iterdir())


def test_no_gpu(command, monkeypatch):
    from tinycnn import backend

    monkeypatch.setattr(backend, "cuda_problem", lambda: "CuPy is not installed: do this")
    assert "device 'cuda' cannot be used: CuPy is not installed: do this" in command.refused(
        "train", "--device", "cuda"
    )


def few_digits(monkeypatch, count):
    full = data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: full(*a, **k).subset(np.arange(count)))


def test_on_a_gpu(command, gpu, monkeypatch):
    few_digits(monkeypatch, 48)
    small = ["--epochs", "2", "--batch-size", "8", "--val-fraction", "0", "--device", "cuda"]
    assert command("train", *small, "--out", "a") == 0
    title, *_ = command.out.splitlines()
    assert "cuda (stand-in), float32" in title or "cuda (NVIDIA" in title
    lines = [line for line in command.out.splitlines() if "launched" in line]
    assert len(lines) == 1
    assert lines[0].startswith("steps are launched as one CUDA graph each; ")
    assert "held by the pool" in lines[0]
    assert "by the CUDA graph" in lines[0]
    assert command.err == ""


def test_out_of_a_gpus_memory(command, gpu, monkeypatch):
    few_digits(monkeypatch, 48)
    pool = gpu.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + (1 << 21))
    try:
        code = command("train", "--epochs", "1", "--batch-size", "40", "--device", "cuda", "--out", "a", "--quiet")
    finally:
        pool.set_limit(size=0)
    assert code == 1
    (line,) = command.err.splitlines()
    assert "the GPU is out of memory with 40 images of 1×32×32 in a batch: " in line
    assert "use a smaller batch" in line
    assert line.endswith("go on with tinycnn train --resume a")


def test_precisions_of_gpus_on_a_cpu(command):
    assert "--precision 'bf16' is for networks on a GPU" in command.refused("train", "--precision", "bf16")


def test_an_output_folder_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").write_text("")
    line = command.refused("train", "--out", "file/run")
    assert "file/run" in line
    assert "name a folder" in line
    assert "name a folder" in command.refused("train", "--out", "file")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "Permission denied" in command.refused("train", "--out", "closed/run")
        assert "Permission denied" in command.refused("train", "--out", "closed")


def test_a_disk_that_fills_up_during_training(command, tmp_path, monkeypatch):
    from tinycnn import files

    replace = files.os.replace

    def fail(source, target):
        if "last" in str(target):
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fail)
    assert command("train", *QUICK, "--out", "a", "--quiet") == 1
    (line,) = command.err.splitlines()
    assert "last.safetensors: No space left on device: free some space" in line
    assert line.endswith("go on with tinycnn train --resume a")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command("train", "--resume", "a", "--quiet") == 0


def test_nobody_reads_on(tmp_path):
    """``tinycnn train | head -1`` ends quietly, and what was saved can be gone on with."""
    argv = [
        sys.executable,
        "-m",
        "tinycnn",
        "train",
        "--epochs",
        "3",
        "--batch-size",
        "500",
        "--out",
        str(tmp_path / "a"),
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1
    checkpoint.read(tmp_path / "a", "training state")


def test_an_existing_run_is_refused(command, trained):
    before = {p.name: p.stat().st_mtime_ns for p in trained.iterdir()}
    assert f"continue with tinycnn train --resume {trained}" in command.refused("train", "--out", trained)
    assert {p.name: p.stat().st_mtime_ns for p in trained.iterdir()} == before


def test_damaged_files_of_a_run(command, tmp_path):
    assert command("train", *QUICK, "--out", "a", "--quiet") == 0
    state = tmp_path / "a" / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    assert "training_state.safetensors: truncated" in command.refused("train", "--resume", "a")
    (tmp_path / "a" / "config.json").write_text("{")
    assert "config.json: damaged" in command.refused("train", "--resume", "a")


# ---- failures ----------------------------------------------------------------------------------------------


def test_nan_names_the_layer_and_leaves_no_checkpoint_of_it(command, tmp_path):
    assert command("train", "--lr", "1e9", "--optimizer", "sgd", "--out", "a", "--quiet") == 1
    (line,) = command.err.splitlines()
    assert line.startswith("tinycnn: error: loss became nan at epoch 1, batch ")
    assert "first non-finite value in the output of conv" in line
    assert line.endswith("no epoch was finished; try a lower learning rate (lr was 1e+09)")
    assert not list((tmp_path / "a").glob("[lb]*.safetensors"))


def test_nan_later_keeps_the_last_good_checkpoint(command, tmp_path, monkeypatch):
    from tinycnn.train import Trainer

    step = Trainer.step

    def poisoned(self, x, y, **last):
        if self.epoch == 1 and self.batch == 2:
            self.model["fc2"].weight.data[3, 5] = np.inf
        return step(self, x, y, **last)

    monkeypatch.setattr(Trainer, "step", poisoned)
    assert command("train", "--epochs", 3, "--batch-size", 200, "--out", "a", "--quiet") == 1
    assert "loss became nan at epoch 2, batch 3: first non-finite value in the parameter fc2.weight" in command.err
    assert "the last good checkpoint is a/last.safetensors (epoch 1)" in command.err
    assert all(np.isfinite(x).all() for x in weights(tmp_path / "a").values())
    assert command("eval", "a/last.safetensors") == 0
    assert (tmp_path / "a" / "curves.png").is_file()


def test_the_best_weights_are_lost_before_the_result(command, tmp_path):
    assert command("train", *QUICK, "--out", "a", "--quiet") == 0
    (tmp_path / "a" / "result.json").unlink()
    best = tmp_path / "a" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    assert command("train", "--resume", "a", "--quiet") == 1
    (line,) = command.err.splitlines()
    assert line.startswith("tinycnn: error: a/best.safetensors: truncated")


def test_out_of_memory(command, trained, monkeypatch):
    def too_large(*arguments, **named):
        raise MemoryError("Unable to allocate 61.1 TiB")

    monkeypatch.setattr("tinycnn.train.Trainer.step", too_large)
    assert command("train", *QUICK, "--out", "a", "--quiet") == 1
    assert command.err == "tinycnn: error: out of memory: use a smaller batch, image or network\n"
    monkeypatch.setattr("tinycnn.train.evaluate", too_large)
    assert command("eval", trained) == 1
    assert command.err == "tinycnn: error: out of memory: use a smaller batch, image or network\n"
