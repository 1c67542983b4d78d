"""Practical 1: networks from scratch, trained until they know their training images by heart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models import vgg, vgg16_bn

from dlapps import runtime, supervised
from dlapps.checks import check_counts, check_positive
from dlapps.datasets import ImageSet
from dlapps.datasets.image_set import resize

LABELS = ("true", "random")
SMALL = (16, "M", 32, "M", 64, 64, "M", 128, 128, "M")  # maps of 3 x 3 convolutions, max-pooling
TITLES = {"vgg16": "VGG16 with batch norm", "small_vgg": "small VGG (6 convolutions)"}


@dataclass(frozen=True)
class Settings:
    """How a network of TITLES is trained from random weights, by Adam along a cosine.

    Without random views, dropout or weight decay: what keeps a network from learning images by
    heart is left out. `size` is the side of the images in pixels; accuracies are measured after
    every `watch_every` epochs.
    """

    network: str = "small_vgg"
    size: int = 64
    epochs: int = 30
    watch_every: int = 1
    batch_size: int = 25
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self):
        if self.network not in TITLES:
            raise ValueError(f"network is {self.network!r}, expected one of {', '.join(TITLES)}")
        check_counts(**{k: getattr(self, k) for k in ("size", "epochs", "watch_every")})
        check_counts(batch_size=self.batch_size)
        check_positive(learning_rate=self.learning_rate)


class Normalised(nn.Module):
    """A network of K scores for grey or colour images in [0, 1], which it takes as -1 to 1."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores (N, K) of images (N, 1 or 3, H, W) in [0, 1]."""
        return self.body(2 * images.expand(-1, 3, -1, -1) - 1)


def build(network: str, classes: int) -> Normalised:
    """Return a network of TITLES with random weights.

    "vgg16" is torchvision's VGG16 with a batch norm after each convolution, without which it does
    not learn from random weights in so few steps (Ioffe, Szegedy, ICML 2015), and without dropout.
    "small_vgg" is of the same kind with fewer maps and one fully connected layer, of 4 x 4 of them.
    """
    if network == "vgg16":
        return Normalised(vgg16_bn(num_classes=classes, dropout=0.0))
    head = nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(SMALL[-2] * 4 * 4, classes)
    return Normalised(nn.Sequential(vgg.make_layers([*SMALL], batch_norm=True), *head))


def with_random_labels(data: ImageSet, seed: int = 0) -> ImageSet:
    """Return an ImageSet whose labels are dealt out anew, as many of each class as before.

    Nothing in an image then tells its label: to know it is to know the image by heart (Zhang et
    al.: "Understanding deep learning requires rethinking generalization", ICLR 2017).
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return replace(data, labels=data.labels[order], name=f"{data.name}, labels at random")


def accuracy(network: nn.Module, data: ImageSet, batch_size: int = 64) -> float:
    """Return the share of an ImageSet's images that `network` classifies as labelled.

    In evaluation mode; the network's own mode is kept.
    """
    device, mode = next(network.parameters()).device, network.training
    with torch.inference_mode():
        network.eval()
        batches = data.images.split(batch_size)
        found = torch.cat([network(batch.to(device) / 255).argmax(1).cpu() for batch in batches])
        network.train(mode)
    return (found == data.labels).double().mean().item()


def train(
    data: ImageSet, test: ImageSet, settings: Settings, checkpoint: Path | None = None
) -> dict[int, tuple[float, float]]:
    """Train a network from random weights; return {epoch: accuracy on `data` and on `test`}.

    The images of both are shown as they are, resized to `settings.size`; nothing depends on
    `test`. `checkpoint`: see `training.run`. Raises ValueError if the images are fewer than a
    batch, FloatingPointError for a loss that is not finite.
    """
    if len(data) < settings.batch_size:
        raise ValueError(f"data has {len(data)} images for batches of {settings.batch_size}")
    data, test = (replace(part, images=resize(part.images, settings.size)) for part in (data, test))
    torch.manual_seed(settings.seed)
    model = build(settings.network, len(data.classes))
    per_epoch = len(data) // settings.batch_size
    watched = [*range(settings.watch_every, settings.epochs, settings.watch_every), settings.epochs]
    result = supervised.train(
        model, data.images, data.labels, epochs=settings.epochs, batch_size=settings.batch_size,
        seed=settings.seed, learning_rate=settings.learning_rate,
        watch=lambda t: (accuracy(model, data), accuracy(model, test)),
        watch_at=tuple(epoch * per_epoch for epoch in watched), checkpoint=checkpoint,
        made_from=[asdict(settings), test.images, test.labels, train, build],
        description=f"{TITLES[settings.network]}, seed {settings.seed}",
    )  # fmt: skip
    return {epoch: result.watched[epoch * per_epoch] for epoch in watched}


def compare_labels(
    data: ImageSet, test: ImageSet, settings: Settings, seeds: Sequence[int], checkpoint: Path
) -> pd.DataFrame:
    """Train with the true labels and with random ones, once per seed; return a tidy DataFrame.

    Columns: `labels` (of LABELS), `seed`, `epoch`, `train` and `test`: accuracies on the training
    images, with the labels trained on, and on the test images, with the true ones. `checkpoint`
    names the file of each training but for its ending.
    """
    run = partial(_labelled_run, data, test, settings, checkpoint)
    jobs = [*product(LABELS, seeds)]
    tables = runtime.run_each(run, jobs, TITLES[settings.network])
    return pd.concat(tables, ignore_index=True)


def _labelled_run(data, test, settings, checkpoint, job):
    labels, seed = job
    if labels == "random":
        data = with_random_labels(data, seed)
    path = checkpoint.with_name(f"{checkpoint.stem}-{labels}-{seed}.pt")
    curve = train(data, test, replace(settings, seed=seed), path)
    rows = [(labels, seed, epoch, *both) for epoch, both in curve.items()]
    return pd.DataFrame(rows, columns=["labels", "seed", "epoch", "train", "test"])


def final_accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the last epoch of each run of `compare_labels`: `labels`, `seed`, `train`, `test`.

    With the column `gap`, by how much the accuracy on training images exceeds that on test images.
    """
    last = runs[runs["epoch"] == runs["epoch"].max()].drop(columns="epoch")
    return last.assign(gap=last["train"] - last["test"]).reset_index(drop=True)


def learning_curves(runs: pd.DataFrame, labels: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {images: (epochs (E,), accuracies (runs, E))} of `compare_labels` for `labels`."""
    part = runs[runs["labels"] == labels]
    curves = {}
    for name, column in {"training images": "train", "test images": "test"}.items():
        by_epoch = part.pivot(index="seed", columns="epoch", values=column)
        curves[name] = by_epoch.columns.to_numpy(), by_epoch.to_numpy()
    return curves
