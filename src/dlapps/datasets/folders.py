"""Image files: listing, decoding in parallel, and any folder of them as a data set."""

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.datasets.image_set import SPLITS, DatasetError, ImageSet, balanced_labels, resize
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
)  # fmt: skip
HALVES = {*SPLITS, "val", "valid", "validation"}  # folders of these names are splits, not classes
NO_CLASSES = ("@eaDir", "__MACOSX")  # what file servers and archives leave beside them
MODES = ("RGB", "L")
PIXEL_LIMIT = 50_000_000  # a photograph of 50 megapixels; above it, most likely a trap
LISTED = 10  # of the images that cannot be read, so many are named


def load(
    folder: Path | str, split: str = "train", size: int | None = None, mode: str = "RGB"
) -> ImageSet:
    """Return the images of a folder, their centre square resized to `size` (default 32) pixels.

    The folder holds one folder per class, or only images (then of one class). If it holds folders
    named `train` and `test`, and no others but those of a validation set, `split` chooses one of
    them, and the classes are numbered over both; if not, all of it is the training set.
    Of animations the first picture is taken; 16 bits per pixel become 8. What is left out, because
    it is no image of a format in SUFFIXES, is said.
    mode: "RGB" for three channels, "L" for grey.
    Raises DatasetError if there is no image of a class, one that cannot be read, or images beside
    folders; ValueError for a mode that is none of the two.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected 'RGB' or 'L'")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; expected a folder of images")
    name = f"Images of {folder.resolve().name}"
    halves = {path.name for path in folder.iterdir() if _visible(path) and path.is_dir()}
    if halves & {*SPLITS} and (halves >= {*SPLITS} or halves <= HALVES):
        if split not in halves:
            raise DatasetError(f"{folder} holds {_and(halves)}, but no folder {split!r}")
        root, name = folder / split, f"{name}, {split}"
        known = {half: _classes(folder / half) for half in SPLITS if half in halves}
        classes = known[split]
        names = sorted({class_name for half in known.values() for class_name in half})
    elif split == "train":
        root, classes = folder, _classes(folder)
        names = list(classes)
    else:
        raise DatasetError(f"{folder} has no folders 'train' and 'test', so there is no test set")
    for class_name, paths in classes.items():
        if not paths:
            raise DatasetError(f"{root} holds no image ({', '.join(SUFFIXES)}) of {class_name!r}")
    paths = [path for paths in classes.values() for path in paths]
    images = read_images(paths, root, size or 32, mode, crop=True)
    labels = balanced_labels([len(classes.get(name, ())) for name in names])
    return ImageSet(images, labels, tuple(names), name)


def _classes(root):
    """Return {class: its images} of a folder of classes, or of images, which are one class."""
    classes, images = list_classes(root), list_images(root)
    if classes and images:
        raise DatasetError(
            f"{root} holds {len(images)} images beside {_and(classes)}; expected images alone, of "
            "one class, or one folder per class and nothing else. Move away what does not belong."
        )
    classes = {name: paths for name, paths in classes.items() if name not in NO_CLASSES}
    return classes or {root.name: images}


def _and(names):
    names = sorted(map(repr, names))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"the folder{'s' if len(names) > 1 else ''} {', '.join(names[:LISTED])}{more}"


def list_classes(folder: Path) -> dict[str, list[Path]]:
    """Return {name of a folder in `folder`: its images}, in the order of the names."""
    children = sorted(path for path in folder.iterdir() if _visible(path) and path.is_dir())
    return {child.name: list_images(child) for child in children}


def list_images(folder: Path) -> list[Path]:
    """Return the image files in `folder`, in the order of their names; say what is left out.

    Links that lead nowhere are among them: reading them says so.
    """
    files = sorted(path for path in folder.iterdir() if _visible(path) and not path.is_dir())
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = sorted({path.suffix.lower() or path.name for path in {*files} - {*images}})
    if others:
        count = len(files) - len(images)
        print(f"{folder}: {count} files are no images of a known format ({', '.join(others)})")
    return images


def _visible(path):
    # Archives made on a Mac carry "._image.jpg" and "__MACOSX", which hold no image.
    return not path.name.startswith((".", "__MACOSX"))


def read_images(
    paths: Sequence[Path], root: Path, size: int, mode: str, crop: bool = False
) -> torch.Tensor:
    """Read image files in parallel to uint8 (N, C, size, size), or take them from the cache.

    crop: take the centre square; otherwise the whole picture is resized, whatever its shape.
    The cache lies in the folder for downloads and holds for the names below `root` and the files'
    bytes. Raises DatasetError if images cannot be read: how many, and what ails each.
    """
    key = _fingerprint_of(paths, root, size, mode, crop)
    words = re.sub("[^A-Za-z0-9]+", "_", f"{root.parent.name}-{root.name}")[-60:]
    cache = runtime.writable_data_root() / "cache" / f"{words}-{key}.pt"
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


def compare_content(paths: Sequence[Path], sha256: str, name: str) -> None:
    """Say so if image files have other names or bytes, in this order, than those known here.

    They are no less usable, but numbers may differ from those recorded.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    if digest.hexdigest() != sha256:
        print(
            f"{name}: these {len(paths):,} photographs are others than those known here "
            f"(SHA-256 {digest.hexdigest()}, known {sha256}); numbers may differ."
        )


def _fingerprint_of(paths, root, size, mode, crop):
    # The clock is not to be trusted: two files may be swapped that have one size and one time.
    def content(path):
        with suppress(OSError):
            return hashlib.sha256(path.read_bytes()).hexdigest()

    with ThreadPool(os.cpu_count()) as pool:
        contents = pool.map(content, paths)
    names = [path.relative_to(root).as_posix() for path in paths]
    return fingerprint(read_image, resize, mode, size, crop, names, contents)


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
            image = _eight_bits(ImageOps.exif_transpose(file), path).convert(mode)
            image = transforms.pil_to_tensor(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as an image: {error}") from error
    if crop:
        image = transforms.center_crop(image, [min(image.shape[1:])] * 2)
    return resize(image[None], size)[0]


def _eight_bits(image, path):
    """Return an image of 16 bits per pixel as one of 8, and any other as it is."""
    if not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65_535:
        raise DatasetError(
            f"{path} has pixels from {pixels.min()} to {pixels.max()} of type {pixels.dtype}, "
            "expected 8 or 16 bits per channel"
        )
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))
