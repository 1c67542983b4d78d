"""What to learn from: every data set by its name, as uint8 images with labels."""

from typing import Any

from dlapps.datasets import (
    cifar10,
    folders,
    imagenet,
    mnist,
    mnist_m,
    photo_patches,
    photos,
    scenes,
)
from dlapps.datasets.image_set import DatasetError, ImageSet, check_size, check_split
from dlapps.datasets.mnist_m import build as build_mnist_m
from dlapps.datasets.mnist_m import load_photographs

_LOADERS = {
    "mnist": mnist.load,
    "mnist-5000": mnist.load_5000,
    "mnist-m": mnist_m.load,
    "mnist-m-5000": mnist_m.load_5000,
    "cifar-10": cifar10.load,
    "15-scene": scenes.load,
    "photo-patches": photo_patches.load,
    "imagenet-25": imagenet.load,
    "photos": photos.load,
}
NAMES = tuple(_LOADERS)


def load(name: str, split: str = "train", size: int | None = None, **options: Any) -> ImageSet:
    """Return the data set `name` as an ImageSet.

    name: one of NAMES, or "folder:PATH" for the images in any folder.
    split: "train" or "test".
    size: the images' side in pixels; None is the data set's own.
    options: those of the data set's loader, for instance `seed` and `binarised` of "mnist-m" or
        `mode` of a folder.
    Raises ValueError for an unknown name, split or size, DatasetError for data that are missing,
    damaged or incomplete.
    """
    check_split(split)
    if size is not None:
        check_size(size)
    if isinstance(name, str) and name.startswith("folder:"):
        return folders.load(name.removeprefix("folder:"), split, size, **options)
    if name not in NAMES:
        raise ValueError(
            f"name is {name!r}, expected one of {', '.join(NAMES)}, or folder:PATH for a folder"
        )
    return _LOADERS[name](split, size, **options)
