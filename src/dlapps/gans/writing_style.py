"""The style of writing: what images of digits hold beside their labels."""

import torch
from torch import Tensor

from dlapps.checks import check_uint8_images


def handwriting(images: Tensor) -> dict[str, Tensor]:
    """Return {"ink", "slant", "width"}: (N,) each, of uint8 images of digits (N, 1, H, W).

    From the moments of the brightness b over rows y and columns x: ink, its mean, in [0, 1];
    slant, cov(x, y) / var(y), the columns by which a stroke moves to the right from one row to the
    one above it; width, the standard deviation of x in pixels. An image without ink is NaN in the
    last two.
    """
    check_uint8_images(images)
    b = images[:, 0].double() / 255
    y, x = (torch.arange(side).double() for side in b.shape[1:])
    weights = b / b.sum((1, 2), keepdim=True)
    rows, columns = weights.sum(2), weights.sum(1)
    from_y = y - (rows * y).sum(1, keepdim=True)
    from_x = x - (columns * x).sum(1, keepdim=True)
    covariance = torch.einsum("nyx,ny,nx->n", weights, from_y, from_x)
    return {
        "ink": b.mean((1, 2)),
        "slant": -covariance / (rows * from_y.square()).sum(1),
        "width": (columns * from_x.square()).sum(1).sqrt(),
    }


def explained_variance(values: Tensor) -> float:
    """Return the share of the variance of values (rows, columns) that the columns explain.

    Each row's mean is taken off first. By chance it is (columns - 1) / (rows * columns - 1) on
    average, as each column's mean follows its own rows (eta squared of an analysis of variance).
    """
    centred = values - values.mean(1, keepdim=True)
    return (centred.mean(0).square().mean() / centred.square().mean()).item()
