"""Practical 2, what becomes of fooling images: other networks see them, defences repair them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from dlapps.models.pretrained import resize
from dlapps.visualization.attacks import scores_of
from dlapps.visualization.intervals import mean_interval

SIGNS = "random signs"


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
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Return which images' predictions change, by who made and who sees them.

    photos: uint8 (N, 1 or 3, H, W). Each network's images are made by each of the `attacks`, whose
    goal is any other class, and resized for the network that sees them; so are `random_signs` on
    each network's own images, as a control. {(attack, network that it was computed for): {network
    that sees: Booleans (N,)}}, all by name.
    """
    clean = {name: network.prepare(photos) for name, network in networks.items()}
    made = {
        (title, source): attack(network, clean[source], predict(network, clean[source])).images
        for source, network in networks.items()
        for title, attack in attacks.items()
    }
    made |= {(SIGNS, source): random_signs(clean[source], seed=seed) for source in networks}
    seen = {
        (source, victim): predict(network, clean[source])
        for source in networks
        for victim, network in networks.items()
    }
    return {
        (title, source): {
            victim: (predict(network, images) != seen[source, victim]).numpy()
            for victim, network in networks.items()
        }
        for (title, source), images in made.items()
    }


def shares_of(changed: dict) -> pd.DataFrame:
    """Return what `transfer` returns as shares of images: a row per maker, a column per viewer.

    Of the random signs, the row of the first network stands for all.
    """
    first = next(source for title, source in changed if title == SIGNS)
    rows = {
        (title, source): {victim: hit.mean() for victim, hit in by_victim.items()}
        for (title, source), by_victim in changed.items()
        if title != SIGNS or source == first
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["attack", "made for"])


def to_others(changed: dict, seed=0) -> pd.DataFrame:
    """Return how often images fool networks that they were not made for: a row per attack.

    "share": the mean over the images and over all pairs of two networks; "more than random signs":
    the mean of the difference, image by image. Both are (mean, low, high), with the bootstrap
    interval (95 %) over the images. "least" and "most": over the pairs.
    """
    by_attack = {}
    for (title, source), by_victim in changed.items():
        by_attack.setdefault(title, []).extend(
            hit for victim, hit in by_victim.items() if victim != source
        )
    per_image = {title: np.mean(pairs, axis=0) for title, pairs in by_attack.items()}
    rows = {
        title: {
            "share": mean_interval(values, seed=seed),
            "more than random signs": mean_interval(values - per_image[SIGNS], seed=seed),
            "least": float(np.min([pair.mean() for pair in by_attack[title]])),
            "most": float(np.max([pair.mean() for pair in by_attack[title]])),
        }
        for title, values in per_image.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("attack")


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
