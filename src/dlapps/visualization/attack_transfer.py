"""Practical 2, what becomes of fooling images: other networks see them, defences repair them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from dlapps.models.pretrained import resize
from dlapps.visualization.attacks import scores_of


def random_signs(images: Tensor, epsilon=8 / 255, seed=0) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1], each value moved by +-epsilon at random: a control.

    The signs are the same for each image.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    signs = torch.randn(1, *images.shape[1:], generator=generator).sign().to(images)
    return (images + epsilon * signs).clamp(0, 1)


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Return the classes (N,) that a network predicts for images of any size, on the CPU."""
    return scores_of(network, resize(network, images)).argmax(1).cpu()


def transfer(
    networks: dict[str, nn.Module], photos: Tensor, attacks: dict[str, Callable], seed=0
) -> pd.DataFrame:
    """Return the shares of images whose prediction changes, by who made and who sees them.

    photos: uint8 (N, 1 or 3, H, W). Each network's images are made by each of the `attacks`, whose
    goal is any other class, and resized for the network that sees them. Rows: (attack, network that
    it was computed for), and `random_signs` for the first network's images; columns: networks, all
    by name.
    """
    clean = {name: network.prepare(photos) for name, network in networks.items()}
    first = next(iter(networks))
    made = {
        (attack, source): attacks[attack](network, clean[source], predict(network, clean[source]))
        for source, network in networks.items()
        for attack in attacks
    }
    changed = {key: found.images for key, found in made.items()}
    changed["random signs", first] = random_signs(clean[first], seed=seed)
    seen = {
        (source, victim): predict(network, clean[source])
        for source in networks
        for victim, network in networks.items()
    }
    rows = {
        (attack, source): {
            victim: (predict(network, images) != seen[source, victim]).double().mean().item()
            for victim, network in networks.items()
        }
        for (attack, source), images in changed.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["attack", "made for"])


def to_others(table: pd.DataFrame, attack: str) -> np.ndarray:
    """Return the shares of a `transfer` table for one attack, seen by networks of another name."""
    square = table.loc[attack]
    return square.to_numpy()[square.index.to_numpy()[:, None] != square.columns.to_numpy()]


def _jpeg(images: Tensor) -> Tensor:
    levels = (255 * images).round().byte().cpu()
    return torch.stack([transforms.jpeg(image, 75) for image in levels]).to(images) / 255


DEFENCES = {
    "as it is": lambda images: images,
    "8 bits": lambda images: (255 * images).round() / 255,
    "JPEG, quality 75": _jpeg,
    "blur, σ = 1": lambda images: transforms.gaussian_blur(images, 7, 1.0).clamp(0, 1),
}


def survival(network: nn.Module, changed: dict[str, Tensor], labels: Tensor) -> pd.DataFrame:
    """Return the shares of images that are classified as the photographs were, (N,) `labels`.

    A row for each of the changed images, {title: (N, 3, H, W)}; a column for each of `DEFENCES`.
    """
    return pd.DataFrame.from_dict(
        {
            title: {
                defence: (predict(network, repair(images)) == labels.cpu()).double().mean().item()
                for defence, repair in DEFENCES.items()
            }
            for title, images in changed.items()
        },
        orient="index",
    )
