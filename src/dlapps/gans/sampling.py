"""Noise and labels for a generator, and what it makes of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps.checks import check_uint8_images


def check_classes(labels: Tensor | None, classes: int | None) -> None:
    """Raise ValueError unless labels, or None, are numbers of classes, if there are classes."""
    if labels is not None and classes is not None and len(labels):
        low, high = labels.min().item(), labels.max().item()
        if low < 0 or high >= classes:
            raise ValueError(f"labels has values in [{low}, {high}], expected 0 to {classes - 1}")


def fixed_inputs(
    generator: nn.Module, count: int = 80, seed: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Return (z (count, latent), labels (count,) or None): noise to watch a training by.

    Labels run through the classes, so that in rows of as many images each column is one class.
    """
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    labels = None if generator.classes is None else torch.arange(count) % generator.classes
    return z, labels


def label_grid(generator: nn.Module, columns: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (z, labels) for a grid with one noise vector per column and one label per row.

    Both have one row for each image, row by row of the grid: z (classes * columns, latent), normal,
    and labels (classes * columns,). Raises ValueError for a generator without labels.
    """
    if generator.classes is None:
        raise ValueError("generator takes no labels, expected a conditional one")
    z = torch.randn(columns, generator.latent, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(generator.classes).repeat_interleave(columns)
    return z.repeat(generator.classes, 1), labels


def interpolate(start: Tensor, end: Tensor, steps: int = 10, spherical: bool = False) -> Tensor:
    """Return z(s), (steps, latent), on the way from z0 = `start` to z1 = `end`, both (latent,).

        z(s) = (1 - s) z0 + s z1, s from 0 to 1 in equal steps,

    or, on the great circle if `spherical` (Shoemake, SIGGRAPH 1985), with a the angle of z0 and z1,

        z(s) = (sin((1 - s) a) z0 + sin(s a) z1) / sin(a).

    Raises ValueError for vectors of other shapes, and if `spherical` for a = 0 or 180°.
    """
    if steps < 2 or start.shape != end.shape or start.ndim != 1:
        raise ValueError(
            f"start {tuple(start.shape)}, end {tuple(end.shape)} and steps {steps}: expected two "
            "vectors of one length and at least 2 steps"
        )
    s = torch.linspace(0, 1, steps)[:, None]
    if not spherical:
        return torch.lerp(start, end, s)
    a = torch.arccos(F.cosine_similarity(start, end, dim=0).clamp(-1, 1))
    if a.sin() < 1e-4:
        raise ValueError("start and end lie on one line through 0, expected an angle between them")
    return (((1 - s) * a).sin() * start + (s * a).sin() * end) / a.sin()


def generate(
    generator: nn.Module, z: Tensor, labels: Tensor | None = None, batch_size: int = 500
) -> Tensor:
    """Return uint8 images (N, C, 32, 32) on the CPU for noise (N, latent), in eval mode.

    In eval mode batch norm uses its running statistics: an image does not depend on its batch.
    Raises ValueError for labels that are no classes.
    """
    check_classes(labels, generator.classes)
    device = next(generator.parameters()).device
    was_training = generator.training
    generator.eval()
    batches = []
    with torch.inference_mode():
        for first in range(0, len(z), batch_size):
            part = slice(first, first + batch_size)
            y = None if labels is None else labels[part].to(device)
            images = generator(z[part].to(device), y)
            batches.append((images * 255).round().to(torch.uint8))
    generator.train(was_training)
    return torch.cat(batches).cpu().contiguous()


def spread(images: Tensor, labels: Tensor | None = None) -> float:
    """Return how much uint8 images (N, C, H, W) differ: 0 if all are equal, at most 0.5.

    The standard deviation of a pixel over the images, in [0, 1], averaged over the pixels. With
    `labels` (N,) it is taken within each class and averaged over the classes. A generator whose
    images spread much less than the real ones has collapsed onto a few.
    """
    check_uint8_images(images)
    groups = [images] if labels is None else [images[labels == y] for y in labels.unique()]
    return torch.stack([_deviations(group).mean() for group in groups]).mean().item()


def _deviations(images):
    """Return the standard deviation of each pixel over uint8 images, in [0, 1]."""
    mean = sum((part.double() / 255).sum(0) for part in images.split(1000)) / len(images)
    squares = sum((part / 255 - mean).square().sum(0) for part in images.split(1000))
    return (squares / len(images)).sqrt()
