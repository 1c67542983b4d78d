"""BSDS500's photographs, the backgrounds of MNIST-M.

Arbelaez, Maire, Fowlkes and Malik, Contour Detection and Hierarchical Image Segmentation, 2011.
"""

from pathlib import Path

from dlapps import runtime
from dlapps.datasets import download, folders
from dlapps.datasets.image_set import DatasetError

URLS = tuple(
    f"{host}.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
    for host in ("https://www2", "https://www", "http://www2", "http://www")
)
SHA256 = "28dd4917eb4fcf4c271a123a59610423f4a732da14ec6813be4e4cb1713477ee"  # of the photographs
ARCHIVE = "BSR_bsds500.tgz"
UNPACKED = "BSDS500"  # where the downloaded archive is unpacked
IN_ARCHIVE = "BSR/BSDS500/data/images/train"
FOLDERS = (
    "BSDS500/images/train",
    "BSDS500/data/images/train",
    IN_ARCHIVE,
    f"{UNPACKED}/{IN_ARCHIVE}",
)
COUNT = 200


def training_photographs() -> list[Path]:
    """Return the paths of BSDS500's 200 training photographs, in the order of their names.

    Read from BSDS500/images/train or the unpacked archive in the data folder, else downloaded.
    Raises DatasetError if they cannot be had or one is missing.
    """
    folder = download.find(*FOLDERS)
    if folder is None:
        root = runtime.writable_data_root()
        archive = download.archive_path(ARCHIVE)
        download.fetch_archive(URLS, archive, root / UNPACKED, _check, folders.SUFFIXES)
        folder = root / UNPACKED / IN_ARCHIVE
    return _list(folder)


def _check(root):
    folder = root / IN_ARCHIVE
    if not folder.is_dir():
        raise DatasetError(f"{root} holds no folder {IN_ARCHIVE}")
    folders.compare_content(_list(folder), SHA256, "BSDS500")


def _list(folder):
    paths = folders.list_images(folder)
    if len(paths) != COUNT:
        raise DatasetError(
            f"{folder} holds {len(paths)} photographs, expected {COUNT}. "
            "Replace it with a whole copy, or delete it to download it again."
        )
    return paths
