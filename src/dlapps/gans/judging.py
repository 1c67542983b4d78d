"""Training a classifier to judge generated images, and what it sees in them."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dlapps import supervised, views
from dlapps.checks import check_counts, check_uint8_images


def train_judge(
    judge: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 6,
    batch_size: int = 128,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    description: str = "judge",
) -> None:
    """Train a classifier in place on uint8 images (N, C, 32, 32), turned and shifted a little.

    Adam, whose rate of 0.002 falls to 0 along half a cosine. `checkpoint`: see `training.run`.
    Raises ValueError for labels of another number and for fewer images than a batch.
    """
    check_uint8_images(images)
    check_counts(epochs=epochs, batch_size=batch_size)

    def turned(x, _):
        return views.random_affine(x, shift=0.07 * x.shape[-1])

    supervised.train(
        judge, images, labels, epochs=epochs, batch_size=batch_size, seed=seed, change=turned,
        checkpoint=checkpoint, made_from=[train_judge], description=description,
    )  # fmt: skip
    judge.eval()


def features_and_classes(
    judge: nn.Module, images: Tensor, batch_size: int = 500
) -> tuple[Tensor, Tensor]:
    """Return features (N, D) and the most likely class (N,) of uint8 images (N, C, 32, 32)."""
    check_uint8_images(images)
    device = next(judge.parameters()).device
    judge.eval()
    features = []
    with torch.inference_mode():
        for batch in images.split(batch_size):
            features.append(judge.features(batch.to(device) / 255))
        features = torch.cat(features)
        classes = judge.head(features).argmax(1)
    return features.cpu(), classes.cpu()


def accuracy(judge: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images (N, C, 32, 32) that the judge classifies as labelled."""
    return (features_and_classes(judge, images)[1] == labels).double().mean().item()
