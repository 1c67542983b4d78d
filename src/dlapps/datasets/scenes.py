"""15-Scene, the data of practical 1: grey photographs of 15 kinds of places.

Lazebnik, Schmid and Ponce, Beyond Bags of Features, CVPR 2006; the course's split of it.
"""

import re

from dlapps import runtime
from dlapps.datasets import download, folders
from dlapps.datasets.image_set import SPLITS, DatasetError, ImageSet, balanced_labels, title

CLASSES = (
    "Bedroom", "Coast", "Forest", "Highway", "Industrial", "InsideCity", "Kitchen", "LivingRoom",
    "Mountain", "Office", "OpenCountry", "Store", "Street", "Suburb", "TallBuilding",
)  # fmt: skip
COUNTS = {"train": 1_500, "test": 2_985}
URLS = ("https://github.com/rdfia/rdfia.github.io/raw/master/data/3-a/15ScenesData.zip",)
ARCHIVE = "15ScenesData.zip"
SHA256 = "0e05e527e1493a163b414b2ada5e94d97c6f515b86e17ac61fae803937c57b80"  # of the photographs
FOLDERS = ("15-Scene", "15ScenesData", "15SceneData")  # where to look, the first for downloads
DEPTH = 3  # how many folders an archive may put around `train` and `test`


def load(split: str = "train", size: int | None = None) -> ImageSet:
    """Return 15-Scene: 1,500 training or 2,985 test photographs, grey, 224x224 or `size`.

    The whole picture is resized, whatever its shape. The classes are in the order of `CLASSES`,
    however the folders spell them. Read from 15-Scene/{train,test}/CLASS/*.jpg in the data
    folder, at any depth of it, else downloaded.
    Raises DatasetError if the data cannot be had, an image is damaged or one is missing.
    """
    root = next((r for name in FOLDERS if (r := _split_root(download.find(name)))), None)
    if root is None:
        data = runtime.writable_data_root()
        archive = download.archive_path(ARCHIVE)
        download.fetch_archive(URLS, archive, data / FOLDERS[0], _check, folders.SUFFIXES)
        root = _split_root(data / FOLDERS[0])
    classes = _list_split(root, split)
    paths = [path for paths in classes.values() for path in paths]
    images = folders.read_images(paths, root, size or 224, "L")
    labels = balanced_labels([len(paths) for paths in classes.values()])
    return ImageSet(images, labels, CLASSES, title("15-Scene", split))


def canonical_class(folder_name: str) -> str | None:
    """Return the class that a folder's name spells, or None: "MITtallbuilding" → "TallBuilding"."""
    letters = re.sub(r"[^a-z]", "", folder_name.lower())
    by_letters = {name.lower(): name for name in CLASSES}
    return by_letters.get(letters) or by_letters.get(re.sub(r"^(mit|cal|par)", "", letters))


def _split_root(folder):
    """Return the folder in `folder` (or itself) that holds `train` and `test`, or None."""
    level = [folder] if folder else []
    for _ in range(DEPTH):
        for candidate in level:
            if all((candidate / split).is_dir() for split in SPLITS):
                return candidate
        level = sorted(p for parent in level if parent.is_dir() for p in parent.iterdir())
    return None


def _list_split(root, split):
    """Return {class: image files} in the order of `CLASSES`; raise DatasetError if any lacks."""
    found = folders.list_classes(root / split)
    classes = {canonical_class(name): paths for name, paths in found.items()}
    if len(found) != len(CLASSES) or set(classes) != set(CLASSES):
        raise DatasetError(
            f"{root / split} holds the folders {', '.join(found) or 'none'}; "
            f"expected the {len(CLASSES)} classes {', '.join(CLASSES)}"
        )
    count = sum(map(len, classes.values()))
    if count != COUNTS[split] or not all(classes.values()):
        raise DatasetError(
            f"{root / split} holds {count:,} images "
            f"({', '.join(f'{name} {len(classes[name])}' for name in CLASSES)}); "
            f"expected {COUNTS[split]:,}. Replace it with a whole copy, or delete it to "
            "download it again."
        )
    return {name: classes[name] for name in CLASSES}


def _check(folder):
    root = _split_root(folder)
    if root is None:
        raise DatasetError(f"{folder} holds no folders 'train' and 'test'")
    classes = [_list_split(root, split) for split in SPLITS]
    paths = [path for half in classes for paths in half.values() for path in paths]
    folders.compare_content(paths, SHA256, "15-Scene")
