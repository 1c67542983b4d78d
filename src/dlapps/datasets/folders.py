"""Image files: listing, decoding in parallel, and any folder of them as a data set."""

import os
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.datasets.image_set import SPLITS, DatasetError, ImageSet, balanced_labels, resize
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint

SUFFIXES = (".jpg", ".jpeg", ".png")
MODES = ("RGB", "L")
PIXEL_LIMIT = 50_000_000  # a photograph of 50 megapixels; above it, most likely a trap
LISTED = 10  # of the images that cannot be read, so many are named


def load(
    folder: Path | str, split: str = "train", size: int | None = None, mode: str = "RGB"
) -> ImageSet:
    """Return the images of a folder, their centre square resized to `size` (default 32) pixels.

    The folder holds one folder per class, or only images (then of one class). If it holds `train`
    and `test`, `split` chooses one of these; if not, all of it is the training set.
    mode: "RGB" for three channels, "L" for grey.
    Raises DatasetError if there is no image, or one that cannot be read; ValueError for a mode
    that is none of the two.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected 'RGB' or 'L'")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; expected a folder of images")
    name = f"Images of {folder.resolve().name}"
    if all((folder / half).is_dir() for half in SPLITS):
        root, name = folder / split, f"{name}, {split}"
    elif split == "train":
        root = folder
    else:
        raise DatasetError(f"{folder} has no folders 'train' and 'test', so there is no test set")
    classes = list_classes(root) or {root.name: list_images(root)}
    for class_name, paths in classes.items():
        if not paths:
            raise DatasetError(f"{root} holds no image ({', '.join(SUFFIXES)}) of {class_name!r}")
    paths = [path for paths in classes.values() for path in paths]
    images = read_images(paths, root, size or 32, mode, crop=True)
    labels = balanced_labels([len(paths) for paths in classes.values()])
    return ImageSet(images, labels, tuple(classes), name)


def list_classes(folder: Path) -> dict[str, list[Path]]:
    """Return {name of a folder in `folder`: its images}, in the order of the names."""
    children = sorted(path for path in folder.iterdir() if _visible(path) and path.is_dir())
    return {child.name: list_images(child) for child in children}


def list_images(folder: Path) -> list[Path]:
    """Return the image files in `folder`, in the order of their names."""
    return sorted(
        path
        for path in folder.iterdir()
        if _visible(path) and path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _visible(path):
    # Archives made on a Mac carry "._image.jpg" and "__MACOSX", which hold no image.
    return not path.name.startswith((".", "__MACOSX"))


def read_images(
    paths: Sequence[Path], root: Path, size: int, mode: str, crop: bool = False
) -> torch.Tensor:
    """Read image files in parallel to uint8 (N, C, size, size), or take them from the cache.

    crop: take the centre square; otherwise the whole picture is resized, whatever its shape.
    The cache lies in the folder for downloads and holds for these names below `root`, byte sizes
    and times. Raises DatasetError if images cannot be read: how many, and what ails each.
    """
    stats = [path.stat() for path in paths]
    listing = [
        [path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns]
        for path, stat in zip(paths, stats, strict=True)
    ]
    key = fingerprint(read_image, resize, mode, size, crop, listing)
    cache = runtime.writable_data_root() / "cache" / f"{root.parent.name}-{root.name}-{key}.pt"
    images = load_checkpoint(cache, key)
    if images is not None:
        return images

    broken = []

    def read(path):
        try:
            return read_image(path, mode, size, crop)
        except DatasetError as error:
            broken.append(str(error))

    images = torch.empty(len(paths), len(mode), size, size, dtype=torch.uint8)
    with ThreadPool(os.cpu_count()) as pool:
        decoded = pool.imap(read, paths, chunksize=8)
        for i, image in enumerate(runtime.progress(decoded, "Reading images", len(paths))):
            if image is not None:
                images[i] = image
    if broken:
        listed = "\n".join(f"  {reason}" for reason in sorted(broken)[:LISTED])
        more = f"\n  and {len(broken) - LISTED} more" if len(broken) > LISTED else ""
        raise DatasetError(
            f"{len(broken)} of {len(paths)} images in {root} cannot be used; replace or delete "
            f"these files:\n{listed}{more}"
        )
    save_checkpoint(cache, key, images)
    return images


def read_image(
    path: Path, mode: str = "RGB", size: int | None = None, crop: bool = False
) -> torch.Tensor:
    """Return one image file as uint8 (3, H, W), or (1, H, W) for mode "L".

    With `size`, resized to it, the centre square alone if `crop`.
    Raises DatasetError, naming the file, if it is damaged, no image or of absurd dimensions.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > PIXEL_LIMIT:
                raise DatasetError(
                    f"{path} is {file.width}x{file.height} pixels, "
                    f"expected at most {PIXEL_LIMIT:,} in all"
                )
            image = transforms.pil_to_tensor(ImageOps.exif_transpose(file).convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as an image: {error}") from error
    if crop:
        image = transforms.center_crop(image, [min(image.shape[1:])] * 2)
    return resize(image[None], size)[0]
