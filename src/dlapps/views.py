"""Random views of images (N, C, H, W) in [0, 1]: another one of each image in every step.

They draw from the generator of the images' device, and wait for nothing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_affine(images: Tensor, degrees=10.0, scales=(0.9, 1.1), shift=2.0) -> Tensor:
    """Return each image rotated, scaled and shifted at random.

    degrees: by so many at most, in either direction; scales: the range of the factor; shift: by so
    many pixels at most along each axis. What comes into view continues the border.
    """
    count, (height, width) = len(images), images.shape[2:]
    angle, scale = (
        _draw(images, low, high, count)
        for low, high in ((-math.radians(degrees), math.radians(degrees)), scales)
    )
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x, y = (_draw(images, -shift, shift, count) * 2 / side for side in (width, height))
    rows = torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)
    return _sample(images, torch.stack(rows, 1), (height, width))


def random_colours(images: Tensor) -> Tensor:
    """Return each image with other colours: each channel inverted or not, stretched and moved.

    Inverted with a probability of 1/2, multiplied by 0.7 to 1.3, moved by up to 0.15, and clipped
    to [0, 1].
    """
    shape = *images.shape[:2], 1, 1
    images = torch.where(_draw(images, 0, 1, *shape) < 0.5, 1 - images, images)
    images = images * _draw(images, 0.7, 1.3, *shape) + _draw(images, -0.15, 0.15, *shape)
    return images.clamp(0, 1)


def random_crops(images: Tensor, size: int, area=0.5, ratio=4 / 3) -> Tensor:
    """Return a random crop of each image as (N, C, size, size), mirrored in half of the cases.

    A crop has the share `area` of the image or more, up to all of it, and a shape from 1:`ratio`
    to `ratio`:1 of the image's, as far as it fits (Szegedy et al., CVPR 2015, section 6).
    """
    count = len(images)
    share = _draw(images, area, 1, count)
    shape = _draw(images, -math.log(ratio), math.log(ratio), count).exp()
    width, height = ((share * r).sqrt().clamp(max=1) for r in (shape, 1 / shape))
    x, y = ((1 - side) * _draw(images, -1, 1, count) for side in (width, height))
    width = torch.where(_draw(images, 0, 1, count) < 0.5, -width, width)
    zero = torch.zeros_like(x)
    rows = torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)
    return _sample(images, torch.stack(rows, 1), (size, size))


def _draw(images, low, high, *shape):
    return low + (high - low) * torch.rand(shape, dtype=images.dtype, device=images.device)


def _sample(images, matrices, size):
    grid = F.affine_grid(matrices, (*images.shape[:2], *size), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
