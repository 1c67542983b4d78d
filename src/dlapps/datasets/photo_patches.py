"""The quick stand-in for 15-Scene: each of 15 photographs is a class, its patches the images."""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from dlapps.datasets import photos
from dlapps.datasets.image_set import ImageSet, balanced_labels, resize, title

CLASSES = tuple(name for name in photos.PHOTOGRAPHS if name != "hubble")
ROWS, COLUMNS = 5, 4  # patches of a photograph, a split
GAP = 8  # columns of pixels between the regions of the two splits
SMALLEST_SIDE = 96


def load(split: str = "train", size: int | None = None) -> ImageSet:
    """Return 15 classes of 20 grey patches each, 128x128 or `size`.

    Training patches come from the left half of a photograph, test patches from its right half;
    no pixel lies in both (see `patch_boxes`).
    """
    images = []
    for name in CLASSES:
        photograph = _grey(photos.photograph_named(name))
        for top, left, side in patch_boxes(*photograph.shape[1:], split):
            patch = photograph[None, :, top : top + side, left : left + side]
            images.append(resize(patch, size or 128))
    labels = balanced_labels([ROWS * COLUMNS] * len(CLASSES))
    name = title("15 photographs' patches (quick stand-in for 15-Scene),", split)
    return ImageSet(torch.cat(images), labels, CLASSES, name)


def patch_boxes(height: int, width: int, split: str) -> list[tuple[int, int, int]]:
    """Return the (top, left, side) of the patches that `split` takes from one photograph.

    They lie on a regular grid over the left half ("train") or the right half ("test"), with GAP
    columns between the halves that no patch touches. The side is a quarter of the photograph's
    shorter side, and at least SMALLEST_SIDE. Raises ValueError if the photograph is too small.
    """
    side = max(SMALLEST_SIDE, min(height, width) // 4)
    middle = width // 2
    start, stop = {
        "train": (0, middle - GAP // 2),
        "test": (middle + GAP // 2, width),
    }[split]
    if height < side or stop - start < side:
        raise ValueError(
            f"height and width are {height} and {width}, "
            f"expected at least {side} and {2 * side + GAP + 1}"
        )
    tops = np.linspace(0, height - side, ROWS).astype(int).tolist()
    lefts = np.linspace(start, stop - side, COLUMNS).astype(int).tolist()
    return [(top, left, side) for top in tops for left in lefts]


def _grey(photograph):
    """Return the luminance (ITU-R 601) of uint8 (1 or 3, H, W) as uint8 (1, H, W)."""
    if len(photograph) == 1:
        return photograph
    image = Image.fromarray(photograph.permute(1, 2, 0).numpy())
    return transforms.pil_to_tensor(image.convert("L"))
