"""Checks of the images that networks are given, and of numbers in settings."""

import math
from numbers import Integral

import torch


def check_counts(**values) -> None:
    """Raise TypeError or ValueError unless each value is a whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, expected a whole number")
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")


def check_positive(**values) -> None:
    """Raise ValueError unless each value is a finite number above 0."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected a positive number")


def check_images(images, channels: int = 3, name: str = "images") -> None:
    """Raise unless `images` is a float tensor (N, channels, H, W) in [0, 1], with N at least 1.

    Raises TypeError for another type, ValueError for another shape or range (NaN included); `name`
    is what the message calls the images. A GPU is waited for: what is called in a loop, and every
    network, checks the form alone (`check_image_form`).
    """
    check_image_form(images, channels, name)
    with torch.no_grad():
        low, high = (bound.item() for bound in images.aminmax())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(f"{name} has values in [{low:g}, {high:g}], expected [0, 1]")


def check_image_form(images, channels: int = 3, name: str = "images") -> None:
    """Raise as `check_images` does for another type or shape, without a look at the values."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"{name} is {kind}, expected a float tensor with values in [0, 1]")
    _check_shape(images, (channels,), name)


def check_uint8_images(images, channels: tuple[int, ...] = (1, 3)) -> None:
    """Raise unless `images` is a uint8 tensor (N, C, H, W) with C in `channels`, N at least 1."""
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"images is {kind}, expected a uint8 tensor")
    _check_shape(images, channels, "images")


def check_sizes(sizes) -> None:
    """Raise ValueError unless `sizes` are whole numbers of pixels, at least one of them."""
    if not sizes or not all(type(size) is int and size >= 1 for size in sizes):
        raise ValueError(f"sizes is {sizes}, expected at least one whole number of pixels")


def _check_shape(images, channels, name):
    wanted = f"(N, {' or '.join(map(str, channels))}, H, W) with N at least 1"
    if images.ndim != 4 or images.shape[1] not in channels or images.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(images.shape)}, expected {wanted}")
