"""Generators and discriminators: DCGAN, and conditional on a label, cDCGAN and cGAN.

Images are in [0, 1] on both sides: a generator ends in (tanh + 1) / 2, a discriminator begins with
2x - 1. Networks without labels ignore `labels`, so that one training loop serves both.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps.checks import check_image_form

SIZES = 32, 64


def _up(inputs, outputs, first=False):
    """Return a transposed convolution, 1×1 -> 4×4 if `first`, else doubling; batch norm; ReLU."""
    stride, padding = (1, 0) if first else (2, 1)
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _down(inputs, outputs):
    """Return a convolution that halves the size, batch norm, LeakyReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


def _check_noise(z, latent):
    if z.ndim != 2 or z.shape[1] != latent or not len(z):
        raise ValueError(f"z has shape {tuple(z.shape)}, expected (N, {latent}) with N at least 1")


def _check_pixels(images, channels, size):
    check_image_form(images, channels)
    if images.shape[2:] != (size, size):
        raise ValueError(
            f"images has shape {tuple(images.shape)}, expected (N, {channels}, {size}, {size})"
        )


def _check_labels(labels, count):
    if labels is None or labels.shape != (count,) or labels.dtype != torch.int64:
        kind = None if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"labels is {kind}, expected int64 ({count},)")


def _one_hot(labels, classes, z):
    """Return labels (N,) as rows (N, classes) of the type of z."""
    _check_labels(labels, len(z))
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(z.dtype)


def _apply_joined(body, maps, class_maps, labels):
    """Return body(torch.cat([maps, class_maps[labels]], 1)), for one row of maps per class.

    The body begins with a convolution, and that of joined maps is the sum of the convolutions of
    both. The second is the same for all images of a label and is computed once for each class: of a
    batch of 128 digits that saves nearly half the multiplications.
    """
    convolution = body[0][0]
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    weights = convolution.weight.split((maps.shape[1], class_maps.shape[1]), 0 if transposed else 1)
    options = {"stride": convolution.stride, "padding": convolution.padding}
    of_classes = convolve(class_maps, weights[1], **options)
    convolved = convolve(maps, weights[0], **options) + of_classes.index_select(0, labels)
    return body[1:](body[0][1:](convolved))


def _check_size(size):
    if size not in SIZES:
        raise ValueError(f"size is {size}, expected one of {', '.join(map(str, SIZES))}")


class DCGANGenerator(nn.Module):
    """z (N, latent) -> images (N, channels, size, size) in [0, 1] (Radford et al., ICLR 2016).

    At 64 pixels there is one more block, of 8 `width` maps, before the others.
    """

    classes = None

    def __init__(self, latent: int = 100, width: int = 32, channels: int = 1, size: int = 32):
        super().__init__()
        _check_size(size)
        self.latent = latent
        maps = [width * size // 8 // 2**k for k in range((size // 8).bit_length())]
        self.body = nn.Sequential(
            _up(latent, maps[0], first=True),
            *(_up(before, after) for before, after in pairwise(maps)),
            nn.ConvTranspose2d(maps[-1], channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images (N, channels, size, size) in [0, 1] for noise (N, latent)."""
        _check_noise(z, self.latent)
        return (self.body(z[:, :, None, None]) + 1) / 2


class DCGANDiscriminator(nn.Module):
    """Images (N, channels, size, size) in [0, 1] -> logits (N,) of "real"."""

    def __init__(self, width: int = 32, channels: int = 1, size: int = 32):
        super().__init__()
        _check_size(size)
        self.channels, self.size = channels, size
        maps = [width * 2**k for k in range((size // 8).bit_length())]
        self.body = nn.Sequential(
            _down(channels, maps[0]),
            *(_down(before, after) for before, after in pairwise(maps)),
            nn.Conv2d(maps[-1], 1, 4, bias=False),
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits (N,) for images (N, channels, size, size) in [0, 1]."""
        _check_pixels(images, self.channels, self.size)
        return self.body(2 * images - 1).flatten()


class ConditionalDCGANGenerator(nn.Module):
    """(z (N, latent), labels (N,)) -> images (N, channels, 32, 32) in [0, 1].

    Noise and one-hot label are each brought to `width` maps of 4×4 and joined (Mirza and Osindero,
    2014, with DCGAN's convolutions).
    """

    def __init__(self, latent: int = 100, classes: int = 10, width: int = 256, channels: int = 1):
        super().__init__()
        self.latent, self.classes = latent, classes
        self.noise_branch = _up(latent, width, first=True)
        self.label_branch = _up(classes, width, first=True)
        self.body = nn.Sequential(
            _up(2 * width, width),
            _up(width, width // 2),
            nn.ConvTranspose2d(width // 2, channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images in [0, 1] for noise (N, latent) and int64 labels (N,)."""
        _check_noise(z, self.latent)
        y = _one_hot(labels, self.classes, z)
        of_noise = self.noise_branch(z[:, :, None, None])
        # Batch norm makes the maps of a label depend on the batch, yet equal within it: the first
        # image of each label stands for all of them. (Where there is none, nothing asks for it.)
        of_label = self.label_branch(y[:, :, None, None])
        of_class = of_label.index_select(0, y.argmax(0))
        return (_apply_joined(self.body, of_noise, of_class, labels) + 1) / 2


class ConditionalDCGANDiscriminator(nn.Module):
    """(images (N, channels, 32, 32) in [0, 1], labels (N,)) -> logits (N,) of "real"."""

    def __init__(self, classes: int = 10, width: int = 64, channels: int = 1):
        super().__init__()
        self.classes, self.channels = classes, channels
        self.image_branch, self.label_branch = (
            nn.Sequential(nn.Conv2d(inputs, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2))
            for inputs in (channels, classes)
        )
        self.body = nn.Sequential(
            _down(2 * width, 4 * width),
            _down(4 * width, 8 * width),
            nn.Conv2d(8 * width, 1, 4, bias=False),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return logits (N,) for images in [0, 1] and int64 labels (N,)."""
        _check_pixels(images, self.channels, 32)
        _check_labels(labels, len(images))
        classes = torch.eye(self.classes, dtype=images.dtype, device=images.device)[
            :, :, None, None
        ]
        of_class = self.label_branch(classes.expand(-1, -1, *images.shape[2:]))
        of_images = self.image_branch(2 * images - 1)
        return _apply_joined(self.body, of_images, of_class, labels).flatten()


def _layer(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.LeakyReLU(0.2)
    )


class ConditionalGANGenerator(nn.Module):
    """(z (N, latent), labels (N,)) -> images (N, channels, 32, 32) in [0, 1], fully connected.

    Noise and one-hot label are each brought to `width` units and joined (Mirza and Osindero, 2014);
    two more layers of twice and four times as many lead to the pixels.
    """

    def __init__(self, latent: int = 100, classes: int = 10, width: int = 256, channels: int = 1):
        super().__init__()
        self.latent, self.classes, self.channels = latent, classes, channels
        self.noise_branch, self.label_branch = _layer(latent, width), _layer(classes, width)
        self.body = nn.Sequential(
            _layer(2 * width, 2 * width),
            _layer(2 * width, 4 * width),
            nn.Linear(4 * width, channels * 32 * 32),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images in [0, 1] for noise (N, latent) and int64 labels (N,)."""
        _check_noise(z, self.latent)
        y = _one_hot(labels, self.classes, z)
        joined = torch.cat([self.noise_branch(z), self.label_branch(y)], 1)
        return (self.body(joined).unflatten(1, (self.channels, 32, 32)) + 1) / 2


class ConditionalGANDiscriminator(nn.Module):
    """(images (N, channels, 32, 32) in [0, 1], labels (N,)) -> logits (N,), fully connected.

    Image and one-hot label are each brought to 4 `width` units and joined; layers of 2 `width` and
    `width` units lead to the logit.
    """

    def __init__(self, classes: int = 10, width: int = 256, channels: int = 1):
        super().__init__()
        self.classes, self.channels = classes, channels
        self.image_branch, self.label_branch = (
            nn.Sequential(nn.Linear(inputs, 4 * width), nn.LeakyReLU(0.2))
            for inputs in (channels * 32 * 32, classes)
        )
        self.body = nn.Sequential(
            nn.Linear(8 * width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return logits (N,) for images in [0, 1] and int64 labels (N,)."""
        _check_pixels(images, self.channels, 32)
        y = _one_hot(labels, self.classes, images)
        pixels = self.image_branch((2 * images - 1).flatten(1))
        return self.body(torch.cat([pixels, self.label_branch(y)], 1)).flatten()


def init_weights(module: nn.Module) -> None:
    """Draw weights as in DCGAN: N(0, 0.02) with bias 0, those of batch norm N(1, 0.02).

    For `network.apply(init_weights)`. (A batch norm drawn around 0 would switch its channels off.)
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)
