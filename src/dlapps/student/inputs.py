"""What students' functions are tried on: small, drawn anew and alike each time, on the device."""

import numpy as np
import torch
from torch import Tensor, nn

from dlapps import runtime


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return a tensor of standard normal numbers on the device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(runtime.device())


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Return a tensor of numbers in [0, 1] on the device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator).to(runtime.device())


def tensor(values) -> Tensor:
    """Return values as a tensor on the device."""
    return torch.as_tensor(values).to(runtime.device())


def numbers(values: Tensor) -> np.ndarray:
    """Return a tensor as a NumPy array of doubles."""
    return values.detach().double().cpu().numpy()


def linear(inputs: int, outputs: int, seed: int) -> nn.Linear:
    """Return a linear layer with standard normal weights on the device."""
    layer = nn.Linear(inputs, outputs, device=runtime.device())
    with torch.no_grad():
        layer.weight.copy_(normal(outputs, inputs, seed=seed))
        layer.bias.copy_(normal(outputs, seed=seed + 1))
    return layer
