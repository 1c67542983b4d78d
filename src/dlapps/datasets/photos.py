"""Photographs that scikit-image and scikit-learn carry: nothing is downloaded for them."""

import numpy as np
import torch
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as transforms

from dlapps.datasets import imagenet
from dlapps.datasets.image_set import ImageSet, resize

# Each photograph's name and what loads it. All these lie in the installed packages themselves;
# scikit-image's other photographs would be downloaded.
_PHOTOGRAPHS = {
    "astronaut": skimage_data.astronaut,
    "brick": skimage_data.brick,
    "camera": skimage_data.camera,
    "cat": skimage_data.chelsea,
    "china": lambda: load_sample_image("china.jpg"),
    "coffee": skimage_data.coffee,
    "coins": skimage_data.coins,
    "flower": lambda: load_sample_image("flower.jpg"),
    "grass": skimage_data.grass,
    "gravel": skimage_data.gravel,
    "hubble": skimage_data.hubble_deep_field,
    "motorcycle": lambda: skimage_data.stereo_motorcycle()[0],
    "page": skimage_data.page,
    "retina": skimage_data.retina,
    "rocket": skimage_data.rocket,
    "tissue": skimage_data.immunohistochemistry,
}
PHOTOGRAPHS = tuple(_PHOTOGRAPHS)

# Photograph, ImageNet class, and the part to look at (top, left, side) where it is not the centre
# square. The labels are ours: the class of ImageNet that comes nearest to what we see. "missile"
# is a rocket here, "moped" a motorcycle, and the space shuttle stands small behind an astronaut.
IMAGENET_LABELS = (
    ("cat", "tabby", None),
    ("coffee", "espresso", None),
    ("camera", "tripod", (150, 150, 362)),
    ("motorcycle", "moped", None),
    ("china", "palace", None),
    ("rocket", "missile", None),
    ("astronaut", "space shuttle", (0, 290, 222)),
)


def load(split: str = "train", size: int | None = None) -> ImageSet:
    """Return the 7 photographs that show a class of ImageNet, RGB, 224x224 or `size`.

    They serve to look at a trained network, so both splits are the same photographs. The labels,
    indices of ImageNet's 1,000 classes, are our own (see IMAGENET_LABELS).
    """
    images = []
    for name, _, part in IMAGENET_LABELS:
        photograph = photograph_named(name)
        if part is None:
            square = transforms.center_crop(photograph, [min(photograph.shape[1:])] * 2)
        else:
            top, left, side = part
            square = photograph[:, top : top + side, left : left + side]
        square = square.expand(3, -1, -1)  # "camera" is grey
        images.append(resize(square[None], size or 224))
    labels = torch.tensor([imagenet.CLASSES.index(label) for _, label, _ in IMAGENET_LABELS])
    name = f"{len(images)} photographs of scikit-image and scikit-learn"
    return ImageSet(torch.cat(images), labels, imagenet.CLASSES, name)


def photograph_named(name: str) -> torch.Tensor:
    """Return one of PHOTOGRAPHS, uint8 (3, H, W), or (1, H, W) where it is grey.

    Raises ValueError for another name.
    """
    if name not in _PHOTOGRAPHS:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(PHOTOGRAPHS)}")
    pixels = torch.from_numpy(np.array(_PHOTOGRAPHS[name]()))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
