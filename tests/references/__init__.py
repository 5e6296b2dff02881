"""Architectures once more, in PyTorch, one family per file, written from the papers; nothing here comes from tinycnn.

Names of parameters are the same, so that one state dict fits both.
"""

import torch
from torch import nn


def count(module, image):
    """(parameters, multiply-adds of convolutions and linear layers) of a module for one image (C, H, W).

    Build the module under ``with torch.device("meta")``: then nothing is computed, whatever its size.
    """
    macs = 0

    def add(layer, inputs, y):
        nonlocal macs
        per_output = layer.weight[0].numel()
        macs += y[0].numel() * per_output

    hooks = [m.register_forward_hook(add) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    device = next(module.parameters()).device
    module.eval()(torch.zeros(1, *image, device=device))
    for hook in hooks:
        hook.remove()
    return sum(p.numel() for p in module.parameters()), macs
