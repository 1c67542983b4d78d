"""CIFAR-10: the original batches, or a copy of it as a folder of JPEG files."""

import torch
from torchvision.datasets import CIFAR10

from dlapps import runtime
from dlapps.datasets import download, folders
from dlapps.datasets.archives import extract
from dlapps.datasets.image_set import DatasetError, ImageSet, balanced_labels, resize, title

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
COUNTS = {"train": 50_000, "test": 10_000}
UNPACKED = "CIFAR-10"  # where the downloaded archive is unpacked
JPEG_COPY = "CIFAR-10-images"


def load(split: str = "train", size: int | None = None) -> ImageSet:
    """Return CIFAR-10: 50,000 training or 10,000 test images, RGB, 32x32 unless `size` is given.

    Read from the original batches in the data folder; where there are none, from a JPEG copy
    CIFAR-10-images/{train,test}/CLASS/*.jpg, whose name says so and which may hold fewer images;
    else downloaded.
    Raises DatasetError if the data cannot be had or are damaged.
    """
    batches = download.find(CIFAR10.base_folder, f"{UNPACKED}/{CIFAR10.base_folder}")
    copy = download.find(f"{JPEG_COPY}/{split}")
    if batches is None and copy is not None:
        return _read_copy(copy, split, size)
    root = batches.parent if batches else runtime.writable_data_root() / UNPACKED
    if batches is None:
        archive = download.archive_path(CIFAR10.filename)
        download.fetch([CIFAR10.url], archive, f"md5:{CIFAR10.tgz_md5}")
        extract(archive, root, _read_batches)
    images, labels = _read_batches(root, split)
    return ImageSet(resize(images, size), labels, CLASSES, title("CIFAR-10", split))


def _read_batches(root, split="train"):
    """Return images and labels of the batches in `root`; raise DatasetError if these are wrong."""
    folder = root / CIFAR10.base_folder
    try:
        # torchvision compares each file's MD5 with its own list before it unpickles one.
        batches = CIFAR10(root, train=split == "train")
    except RuntimeError as error:
        raise DatasetError(
            f"{folder} is incomplete or damaged ({error}). Delete it and run again."
        ) from error
    images = torch.from_numpy(batches.data).permute(0, 3, 1, 2).contiguous()
    if len(images) != COUNTS[split]:
        raise DatasetError(f"{folder} holds {len(images):,} images, expected {COUNTS[split]:,}")
    return images, torch.tensor(batches.targets)


def _read_copy(folder, split, size):
    classes = folders.list_classes(folder)
    counts = {name: len(paths) for name, paths in classes.items()}
    if tuple(classes) != CLASSES or len(set(counts.values())) != 1 or not all(counts.values()):
        raise DatasetError(
            f"{folder} holds {counts or 'nothing'}, expected as many images in each of the "
            f"folders {', '.join(CLASSES)}"
        )
    paths = [path for paths in classes.values() for path in paths]
    images = resize(folders.read_images(paths, folder, 32, "RGB"), size)
    labels = balanced_labels(list(counts.values()))
    return ImageSet(images, labels, CLASSES, title(f"CIFAR-10 (JPEG copy, {len(paths):,})", split))
