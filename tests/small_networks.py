"""One network of every family, with weights that come quickly, and images as small as it takes."""

import numpy as np

from tinycnn import models


def cheapest():
    """The cheapest architecture that each builder makes."""
    found = {}
    for name in models.names():
        known = models.architecture(name)
        builder = getattr(known.build, "func", known.build)
        if builder not in found or known.macs < models.architecture(found[builder]).macs:
            found[builder] = name
    return list(found.values())


FAMILIES = cheapest()


def made(name, dtype="float32", seed=0, **options):
    """A network with weights of He's variance and statistics off 0 and 1, quickly."""
    rng = np.random.default_rng(seed)
    model = models.create(name, initialize=False, **options).astype(dtype)
    tile = rng.standard_normal(99_991)
    for p in model.parameters():
        scale = np.sqrt(2 / np.prod(p.shape[1:])) if len(p.shape) > 1 else 0.3
        p.data[...] = np.resize(tile * scale + (len(p.shape) == 1), p.shape)
    for key, value in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            value[...] = rng.uniform(0.5, 1.5, value.shape)
    return model


def images(name, dtype="float32", N=2):
    """Small ones, at least large enough for the features."""
    C, H, _ = models.architecture(name).input_shape
    size = {224: 64, 227: 99, 299: 96}.get(H, H // 2 if "net" in name and "lenet" not in name else H)
    return np.random.default_rng(1).standard_normal((N, C, size, size)).astype(dtype)
