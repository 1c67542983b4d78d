"""Weights that differ in the seventh digit, to measure what rounding does to a notebook's numbers.

Another processor, another number of threads or another version of a library rounds otherwise. How
far a number moves under changes as small as that is how far it may move there.
"""

import os

import torch

from dlapps import replacements, training
from dlapps.models import pretrained

SIZE = 1e-6  # relative; neighbouring numbers of float32 differ by 0.6e-7 to 1.2e-7
SEED = "PERTURBATION_SEED"  # an environment variable, which other processes inherit

_run, _load = training.run, pretrained.load


def install():
    """From now on, perturb the weights with which any training begins, and all pretrained ones.

    In the processes to which work is passed on as well (see `replacements.carrying`).
    """
    replacements.install("dlapps.training.run", run)
    replacements.install("dlapps.models.pretrained.load", load)


def run(step, state, plan, **options):
    """Train as `training.run` does, from perturbed weights."""
    for network in state.networks.values():
        perturb(network)
    return _run(step, state, plan, **options)


def load(name):
    """Load as `pretrained.load` does, and perturb the weights."""
    return perturb(_load(name))


@torch.no_grad()
def perturb(network):
    """Multiply each weight by 1 + SIZE times a normal number of the seed; return the network."""
    generator = torch.Generator().manual_seed(int(os.environ[SEED]))
    for weight in network.parameters():
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        weight.mul_(1 + SIZE * noise)
    return network
