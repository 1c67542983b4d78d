"""Batch norm in two domains: whose statistics a network normalises by."""

import copy
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_averages(network, kept=True):
    """Normalise by batches without a change of batch norm's averages, unless `kept` is False."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    try:
        for module in norms:
            module.track_running_stats = not kept
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


def adapt_batch_norm(network, images, count=10_000, batch_size=500):
    """Return a copy whose batch norms have the averages of uint8 images (N, C, 28, 28).

    Of `count` of them at most, evenly spaced. The weights stay as they are; labels are not needed
    (Li et al.: "Revisiting Batch Normalization for Practical Domain Adaptation", 2016).
    """
    other = copy.deepcopy(network).eval()
    for module in other.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = True  # a teacher's does not
            module.reset_running_stats()
            module.momentum = None  # the plain mean of all batches
            module.train()
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).long()
    device = next(other.parameters()).device
    with torch.no_grad():
        for batch in images[chosen].split(batch_size):
            if len(batch) > 1:
                other(batch.to(device) / 255)
    for module in other.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.1
    return other.train(network.training)
