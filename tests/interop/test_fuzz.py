"""Thousands of damaged files: each is read, or refused by the one error, at once, in little memory, running nothing."""

import subprocess
import sys

import pytest

MEBIBYTES, CASES = 512, 2500
FUZZ = """
import os, random, resource, sys, time, warnings
import numpy as np
from tinycnn import Linear, interop
from tinycnn.interop import weights

folder, kind, cases, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
warnings.simplefilter("ignore")  # of numbers that overflow in what is read
original = open(f"{folder}/{kind}", "rb").read()
path = f"{folder}/mutated-{kind}"
model = Linear(4, 3)
here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (here + limit, here + limit))
rng = random.Random(kind)
INTERESTING = [0, 1, 127, 128, 255, ord("c"), ord("R"), ord("("), ord("."), ord("b"), ord("Q"), ord("\\x93"), ord("q")]


def mutated(raw):
    raw = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        i, n = rng.randrange(len(raw)), rng.choice([1, 2, 4, 8])
        match rng.randrange(8):
            case 0 | 1: raw[i] = rng.randrange(256)
            case 2: raw[i] ^= 1 << rng.randrange(8)
            case 3: raw[i] = rng.choice(INTERESTING)
            case 4: raw[i : i + n] = rng.choice([b"\\xff", b"\\x00", b"\\x7f"]) * n
            case 5: del raw[i : i + rng.choice([1, 8, 100])]
            case 6: raw[i:i] = raw[rng.randrange(len(raw)) :][: rng.choice([1, 8, 100])]
            case 7: raw[i:i] = b"cos\\nsystem\\nX\\x0c\\x00\\x00\\x00touch canary\\x85R"
        if not raw:
            return b""
    return bytes(raw)


def forbidden(event, arguments):
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "import", "exec", "compile"):
        print("RAN", event, arguments)


interop.read_weights(f"{folder}/{kind}")
sys.addaudithook(forbidden)
read = refused = 0
slowest = 0.0
for case in range(cases):
    with open(path, "wb") as file:
        file.write(mutated(original))
    start = time.perf_counter()
    try:
        found = interop.read_weights(path)
        for x in found.values():
            x.shape, x.dtype, x[(slice(0, 2),) * x.ndim].tolist()
        try:
            interop.load_weights(model, found)
        except interop.CheckpointError as error:
            assert str(error).startswith(path)
        read += 1
    except interop.CheckpointError as error:
        assert str(error).startswith(path) and len(str(error)) < 2000, error
        refused += 1
    slowest = max(slowest, time.perf_counter() - start)
print("done", read, refused, f"{slowest:.3f}")
"""


def write(kind, path):
    import safetensors.torch
    import torch

    import tinycnn

    net = torch.nn.Linear(4, 3)
    state = {**net.state_dict(), "half": torch.arange(6).half().view(2, 3).t(), "brain": torch.ones(3).bfloat16()}
    if kind == "safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path, {"a": "b"})
    elif kind == "native":
        tinycnn.train.checkpoint.write(path, tinycnn.Linear(4, 3).state_dict(), {"kind": "weights"})
    else:
        saved = {"state_dict": state, "epoch": 3, "optimizer": torch.optim.Adam(net.parameters()).state_dict()}
        torch.serialization.set_crc32_options(kind != "zip without checksums")
        try:
            torch.save(saved, path, _use_new_zipfile_serialization=kind != "stream")
        finally:
            torch.serialization.set_crc32_options(True)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by the system")
@pytest.mark.parametrize("kind", ["zip", "zip without checksums", "stream", "safetensors", "native"])
def test_damaged_files_never_crash_hang_run_or_take_memory(kind, tmp_path):
    write(kind, tmp_path / kind)
    command = [sys.executable, "-c", FUZZ, str(tmp_path), kind, str(CASES), str(MEBIBYTES << 20)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    words = done.stdout.split()
    assert "RAN" not in words, done.stdout
    assert words[-4] == "done"
    assert int(words[-2]) > CASES / 4
    assert float(words[-1]) < 1
    assert not (tmp_path / "canary").exists()
    assert {p.name for p in tmp_path.iterdir()} == {kind, f"mutated-{kind}"}
