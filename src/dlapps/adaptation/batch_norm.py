"""Batch norm in two domains: whose statistics a network normalises by."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def frozen_averages(network: nn.Module) -> Iterator[None]:
    """Normalise by batches without a change of batch norm's running averages."""
    norms = batch_norms(network)
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def adapt_batch_norm(
    network: nn.Module, images: torch.Tensor, count: int = 2_000, batch_size: int = 500
) -> nn.Module:
    """Return a copy whose batch norms have the averages of uint8 images (N, C, 28, 28).

    Of `count` of them at most, drawn at random. The weights stay as they are; labels are not needed
    (Li et al.: "Revisiting Batch Normalization for Practical Domain Adaptation", 2016).
    """
    other = copy.deepcopy(network).eval()
    for norm in batch_norms(other):
        norm.track_running_stats = True  # a teacher's does not
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    # Not evenly spaced: the digits may come in an order, 0 to 9 and again.
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    device = next(other.parameters()).device
    with torch.no_grad():
        for batch in images[chosen].split(batch_size):
            if len(batch) > 1:
                other(batch.to(device) / 255)
    for norm in batch_norms(other):
        norm.momentum = 0.1
    return other.train(network.training)
