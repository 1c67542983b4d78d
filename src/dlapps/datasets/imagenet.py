"""ImageNet: its 1,000 class names, and 25 of its validation images, the data of practical 2."""

import numpy as np
import torch
from torchvision.models import SqueezeNet1_1_Weights

from dlapps.datasets import download
from dlapps.datasets.image_set import DatasetError, ImageSet, resize

CLASSES = tuple(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])
FILE = "imagenet_val_25.npz"
URLS = (f"https://github.com/rdfia/rdfia.github.io/raw/master/data/3-b/{FILE}",)
SHA256 = "35141609d22457c791e8fbe10c2d3b09ed0d6a04b669173e9fbebb0b4915cd3c"
COUNT = 25


def load(split: str = "train", size: int | None = None) -> ImageSet:
    """Return 25 ImageNet validation images with their labels, RGB, 224x224 or `size`.

    They serve to look at a trained network, so both splits are the same images.
    Raises DatasetError if the file cannot be had or is not, to the bit, the one known here.
    """
    path = download.fetch(URLS, download.archive_path(FILE), f"sha256:{SHA256}")
    # The file holds its class names as a pickled object, which is left alone: torchvision has them.
    with np.load(path, allow_pickle=False) as arrays:
        pixels, labels = arrays["X"], arrays["y"]
    if pixels.shape != (COUNT, 224, 224, 3) or labels.shape != (COUNT,):
        raise DatasetError(f"{path} holds {pixels.shape} pixels, expected ({COUNT}, 224, 224, 3)")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(labels.astype(np.int64))
    return ImageSet(resize(images, size), labels, CLASSES, f"{COUNT} ImageNet validation images")
