"""Labelled images in memory, the form in which every data set is handed out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torchvision.transforms.v2 import functional as transforms

SPLITS = ("train", "test")


class DatasetError(RuntimeError):
    """Data that are missing, damaged or not what they should be; says what to do about it."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, their labels and what a figure's title calls them.

    images: uint8 (N, C, H, W), C = 1 (grey) or 3 (RGB).
    labels: int64 (N,), each an index into `classes`.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}, "
                "expected torch.uint8 of shape (N, 1 or 3, H, W)"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, "
                f"expected torch.int64 of shape ({len(images)},)"
            )
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise ValueError(
                f"labels go from {labels.min()} to {labels.max()}, "
                f"expected indices of the {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | torch.Tensor) -> "ImageSet":
        """Return the images at `indices` (integers, or a Boolean mask) as an ImageSet.

        If that leaves images out, the name says so. Raises IndexError for an index out of range.
        """
        indices = torch.as_tensor(indices)
        indices = indices if indices.dtype == torch.bool else indices.long()
        labels = self.labels[indices]
        name = self.name
        if len(labels) != len(self):
            name = f"{name} ({len(labels):,} of {len(self):,})"
        return replace(self, images=self.images[indices], labels=labels, name=name)


def check_split(split: str) -> None:
    """Raise ValueError if `split` is not "train" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")


def check_size(size: int) -> None:
    """Raise ValueError if `size`, an image's side in pixels, is no integer from 1 to 1,024."""
    if not isinstance(size, Integral) or isinstance(size, bool) or not 1 <= size <= 1024:
        raise ValueError(f"size is {size!r}, expected a whole number of pixels from 1 to 1024")


def title(data: str, split: str) -> str:
    """Return the name of one half of a data set, for instance "MNIST training set"."""
    return f"{data} {'training' if split == 'train' else 'test'} set"


def resize(images: torch.Tensor, size: int | None) -> torch.Tensor:
    """Resize uint8 images (N, C, H, W) to (N, C, size, size): bilinear, antialiased.

    `size` None keeps them as they are.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    resized = images.new_empty(*images.shape[:2], size, size)
    # In parts, because the interpolation works on a copy in float32.
    for part, place in zip(images.split(2048), resized.split(2048), strict=True):
        place.copy_(transforms.resize(part, [size, size], antialias=True))
    return resized


def balanced_labels(counts: Sequence[int]) -> torch.Tensor:
    """Return int64 labels: `counts[0]` zeros, then `counts[1]` ones, and so on."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
