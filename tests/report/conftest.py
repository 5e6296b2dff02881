"""Runs to report on."""

import numpy as np
import pytest
from PIL import Image
from small_runs import settings

from tinycnn.train import Run

HARMFUL = "<script>alert(1)"
QUOTED = "\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Two epochs of LeNet-5 on digits: a folder that tests leave as it is."""
    run = Run.new(settings(epochs=2), tmp_path_factory.mktemp("finished") / "run")
    assert run.fit()
    run.finish()
    return run.folder


@pytest.fixture(scope="session")
def coloured_run(tmp_path_factory):
    """One epoch on photographs, in folders whose names are markup."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 6)):
        for name, bright in ((HARMFUL, 60), (QUOTED, 180)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(bright - 60, bright + 60, (40, 36, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    run = Run.new(settings(epochs=1, data="imagefolder", batch_size=4), root / "run", data_dir=str(root))
    assert run.fit()
    run.finish()
    return run.folder
