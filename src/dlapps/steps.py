"""What the steps of trainings share: batches, updates, averages, learning rates.

Nothing in a step waits for the device: see `dlapps.training`, which calls it.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps import runtime


class Batches:
    """Batches of uint8 images (N, C, H, W), and labels (N,) or None, drawn on the device.

    The images of each epoch come in an order of their own; what fills no batch is left out. There
    are `draws` batches for each of `steps` steps. Which images they hold depends on `seed` and
    `stream` alone, whole numbers of at least 0. All images lie on the device, as bytes, where half
    of its free memory holds them; otherwise those of the next steps do, `load` by `load`.
    """

    def __init__(self, images, labels, size, *, steps, draws=1, seed=0, stream=0):
        self.size, self.steps, self.draws = size, steps, draws
        device = runtime.device()
        order = _shuffled(len(images), size, steps * draws, (seed, stream))
        self.elsewhere, self.loaded = None, None
        self.part = steps  # steps whose images are on the device at once
        if not runtime.fits(images.nbytes, device):
            bytes_per_step = draws * size * images[0].nbytes
            self.part = max(1, runtime.free_memory(device) // (4 * bytes_per_step))
            self.elsewhere = images, labels, order
            room = torch.arange(self.part * draws * size)
            images = images.new_empty(len(room), *images.shape[1:])
            labels = None if labels is None else labels.new_empty(len(room))
            order = room.view(-1, size)
        self.images = images.to(device)
        self.labels = None if labels is None else labels.to(device)
        self.order = order.int().to(device)

    def load(self, step: int) -> int:
        """Make sure that the images of a step are on the device; return the first not loaded."""
        number = step // self.part
        begin, end = number * self.part, min((number + 1) * self.part, self.steps)
        if self.elsewhere and self.loaded != number:
            images, labels, order = self.elsewhere
            chosen = order[begin * self.draws : end * self.draws].flatten()
            for mine, theirs in ((self.images, images), (self.labels, labels)):
                if mine is not None:
                    part = theirs[chosen]
                    part = part.pin_memory() if mine.is_cuda else part
                    mine[: len(part)].copy_(part, non_blocking=True)
            self.loaded = number
        return end

    def __call__(self, t: Tensor, draw: int = 0) -> tuple[Tensor, Tensor | None]:
        """Return float images (B, C, H, W) in [0, 1] and their labels (B,) for the step t, (1,)."""
        row = (t % self.part) * self.draws + draw
        chosen = self.order.index_select(0, row)[0]
        images = self.images.index_select(0, chosen).to(memory_format=torch.channels_last) / 255
        return images, None if self.labels is None else self.labels.index_select(0, chosen)


def _shuffled(count, size, batches, seed):
    """Return the indices (batches, size) of the images in each batch, epoch after epoch."""
    seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    generator = torch.Generator().manual_seed(seed)
    per_epoch = count // size
    epochs = [
        torch.randperm(count, generator=generator)[: per_epoch * size].view(per_epoch, size)
        for _ in range(math.ceil(batches / per_epoch))
    ]
    return torch.cat(epochs)[:batches]


def to_device(network: nn.Module) -> nn.Module:
    """Move a network to the device that trains, in the layout that is faster there; return it."""
    return network.to(runtime.device(), memory_format=torch.channels_last).train()


def optimizer(kind: type, network: nn.Module, **options) -> torch.optim.Optimizer:
    """Return an optimiser of a network whose steps stay on the device; `run` sets its rate."""
    if kind is not torch.optim.SGD:  # which is always so
        options["capturable"] = next(network.parameters()).is_cuda
    return kind(network.parameters(), fused=True, **options)


def update(optimizer: torch.optim.Optimizer, loss: Tensor, of: nn.Module | None = None) -> None:
    """Take one step of an optimiser down a loss; with `of` no other network gets gradients."""
    optimizer.zero_grad()
    loss.backward(inputs=list(of.parameters()) if of else None)
    optimizer.step()


def supervised_step(network, optimizer, x: Tensor, y: Tensor, smoothing=0.0) -> dict[str, Tensor]:
    """Update a classifier on images x and labels y (N,); return loss (nats) and accuracy.

        L = -mean over n of log p(y_n | x_n),

    with `smoothing` of y spread evenly over the classes (Szegedy et al., CVPR 2016, section 7).
    """
    scores = network(x)
    L = F.cross_entropy(scores, y, label_smoothing=smoothing)
    update(optimizer, L)
    return {"loss": L, "accuracy": (scores.argmax(1) == y).float().mean()}


def ema(average: nn.Module, network: nn.Module, weight: float | Tensor) -> None:
    """Move an exponential moving average by the share `weight` towards the network.

        w' <- w' + weight (w - w'), weight = 1 - decay,

    for parameters; what is none, such as batch norm's averages, is taken over as it is
    (Tarvainen, Valpola: "Mean teachers are better role models", NeurIPS 2017, eq. 2).
    """
    with torch.no_grad():
        for mine, theirs in zip(average.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, weight)
        for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


def cosine(t: int, steps: int, peak: float) -> float:
    """Return the learning rate after t of `steps` steps: from `peak` to 0 along half a cosine.

    Loshchilov, Hutter: "SGDR", ICLR 2017, eq. 5.
    """
    return peak * (1 + math.cos(math.pi * t / steps)) / 2


def one_cycle(t: int, steps: int, peak: float, rise=0.2) -> float:
    """Return the learning rate after t of `steps` steps: up to `peak` and down, by half cosines.

    It rises from peak / 25 in the share `rise` of the steps and falls to 0 in the rest (Smith,
    Topin: "Super-Convergence", 2018).
    """
    if t < rise * steps:
        return peak - (peak - peak / 25) * (1 + math.cos(math.pi * t / (rise * steps))) / 2
    return cosine(t - rise * steps, (1 - rise) * steps, peak)
