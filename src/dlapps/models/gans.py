"""Generators and discriminators of 32×32 images: DCGAN, and conditional on a label (cDCGAN).

Images are in [0, 1] on both sides: a generator ends in (tanh + 1) / 2, a discriminator begins with
2x - 1. Networks without labels ignore `labels`, so that one training loop serves both.
"""

import torch
from torch import nn
from torch.nn import functional as F

from dlapps.models.checks import check_images


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


def _one_hot_maps(labels, classes, count):
    """Return labels (N,) as maps (N, classes, 1, 1)."""
    if labels is None or labels.shape != (count,) or labels.dtype != torch.int64:
        kind = None if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"labels is {kind}, expected int64 ({count},)")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels has values in [{labels.min()}, {labels.max()}], expected 0 to {classes - 1}"
        )
    return F.one_hot(labels, classes).float()[:, :, None, None]


class DCGANGenerator(nn.Module):
    """z (N, latent) -> images (N, channels, 32, 32) in [0, 1] (Radford et al., ICLR 2016)."""

    classes = None

    def __init__(self, latent=100, width=32, channels=1):
        super().__init__()
        self.latent = latent
        self.body = nn.Sequential(
            _up(latent, 4 * width, first=True),
            _up(4 * width, 2 * width),
            _up(2 * width, width),
            nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z, labels=None):
        """Return images (N, channels, 32, 32) in [0, 1] for noise (N, latent)."""
        _check_noise(z, self.latent)
        return (self.body(z[:, :, None, None]) + 1) / 2


class DCGANDiscriminator(nn.Module):
    """Images (N, channels, 32, 32) in [0, 1] -> logits (N,) of "real"."""

    def __init__(self, width=32, channels=1):
        super().__init__()
        self.channels = channels
        self.body = nn.Sequential(
            _down(channels, width),
            _down(width, 2 * width),
            _down(2 * width, 4 * width),
            nn.Conv2d(4 * width, 1, 4, bias=False),
        )

    def forward(self, images, labels=None):
        """Return logits (N,) for images (N, channels, 32, 32) in [0, 1]."""
        check_images(images, self.channels)
        return self.body(2 * images - 1).flatten()


class ConditionalDCGANGenerator(nn.Module):
    """(z (N, latent), labels (N,)) -> images (N, channels, 32, 32) in [0, 1].

    Noise and one-hot label are each brought to `width` maps of 4×4 and joined (Mirza and Osindero,
    2014, with DCGAN's convolutions).
    """

    def __init__(self, latent=100, classes=10, width=256, channels=1):
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

    def forward(self, z, labels):
        """Return images in [0, 1] for noise (N, latent) and int64 labels (N,)."""
        _check_noise(z, self.latent)
        y = _one_hot_maps(labels, self.classes, len(z))
        joined = torch.cat([self.noise_branch(z[:, :, None, None]), self.label_branch(y)], 1)
        return (self.body(joined) + 1) / 2


class ConditionalDCGANDiscriminator(nn.Module):
    """(images (N, channels, 32, 32) in [0, 1], labels (N,)) -> logits (N,) of "real"."""

    def __init__(self, classes=10, width=64, channels=1):
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

    def forward(self, images, labels):
        """Return logits (N,) for images in [0, 1] and int64 labels (N,)."""
        check_images(images, self.channels)
        y = _one_hot_maps(labels, self.classes, len(images))
        y = y.expand(-1, -1, *images.shape[2:])
        joined = torch.cat([self.image_branch(2 * images - 1), self.label_branch(y)], 1)
        return self.body(joined).flatten()


def init_weights(module):
    """Draw weights as in DCGAN: convolutions N(0, 0.02), batch norm N(1, 0.02) with bias 0.

    For `network.apply(init_weights)`. (A batch norm drawn around 0 would switch its channels off.)
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)
