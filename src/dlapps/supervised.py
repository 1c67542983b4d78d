"""Training a classifier: the one way of all that are trained on images as they are, or on views."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dlapps import steps, training


def train(
    network: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, batch_size: int, seed: int,
    learning_rate: float = 2e-3, change: Callable | None = None, watch: Callable | None = None,
    watch_at: tuple = (), checkpoint: str | Path | None = None, made_from=(),
    description: str = "classifier",
) -> training.Result:  # fmt: skip
    """Train a classifier in place on uint8 images (N, C, H, W) with labels (N,).

    Adam, whose rate falls from `learning_rate` to 0 along half a cosine. change: a function of a
    batch (B, C, H, W) in [0, 1] and its labels, which returns the images that the network sees.
    watch, watch_at: see `training.Plan`; checkpoint, made_from: see `training.run`, `made_from`
    being what differs beside these arguments. Raises ValueError for labels of another number and
    for fewer images than a batch, FloatingPointError for a loss that is not finite.
    """
    if len(labels) != len(images) or len(images) < batch_size:
        raise ValueError(
            f"images has {len(images)} rows and labels {len(labels)}, expected as many of both, "
            f"and at least {batch_size}"
        )
    count = epochs * (len(images) // batch_size)
    steps.to_device(network)
    optimizer = steps.optimizer(torch.optim.Adam, network)
    batches = steps.Batches(images, labels, batch_size, steps=count, seed=seed)

    def step(at):
        x, y = batches(at.t)
        return steps.supervised_step(network, optimizer, change(x, y) if change else x, y)

    rate = {"learning_rate": lambda t: steps.cosine(t, count, learning_rate)}
    plan = training.Plan(count, ("loss", "accuracy"), rate, seed, watch=watch, watch_at=watch_at)
    state = training.State({"network": network}, {"network": optimizer}, (batches,))
    data = [epochs, batch_size, learning_rate, images, labels]
    made_from = [*data, train, type(network), *made_from]
    return training.run(
        step, state, plan, checkpoint=checkpoint, made_from=made_from, description=description
    ).check()
