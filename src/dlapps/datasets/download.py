"""Files from the network: fetched once, verified, and whole or not there at all."""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pooch
from tqdm import tqdm

from dlapps import runtime
from dlapps.datasets.archives import extract
from dlapps.datasets.image_set import DatasetError
from dlapps.files import atomic_path, leftovers, remove, scratch_path

TIMEOUT = 30  # seconds without an answer
STAND_INS = {
    (b"<!doctype", b"<html", b"<?xml"): "a web page",
    (b"version https://git-lfs",): "a Git LFS pointer",
}

pooch.get_logger().setLevel("WARNING")  # a bar says what it downloads


def find(*relative_paths: str) -> Path | None:
    """Return the first of the paths in the folders of data, downloads and archives, or None."""
    folders = runtime.data_root(), runtime.writable_data_root(), runtime.archives_root()
    candidates = (folder / path for path in relative_paths for folder in folders)
    return next((path for path in candidates if path.exists()), None)


def archive_path(name: str) -> Path:
    """Return where the downloaded file `name` lies, or will lie if it is nowhere yet."""
    return find(name) or runtime.archives_root() / name


def fetch(urls: Iterable[str], destination: Path | str, checksum: str | None = None) -> Path:
    """Download the first of `urls` that serves the file to `destination`, unless it is there.

    checksum: "sha256:…" or "md5:…"; None where it is not known beforehand. Then the one counts that
        `fetch_archive` wrote beside the file at an earlier download.
    A download that broke off is gone on with the next time, if there is a checksum to tell whether
    both ends fit.
    Raises DatasetError, naming each address and its reason, if none serves it; then, and when
    interrupted, nothing is left at `destination`. Raises it too if the file that is already there
    has another checksum.
    """
    destination = Path(destination)
    checksum = checksum or _recorded_checksum(destination)
    if destination.exists():
        verify(destination, checksum)
        return destination
    part = _part_of(destination)
    if not checksum:
        remove(part)
    downloader = partial(_download, part=part, kept=checksum is not None)
    reasons = {}
    for url in [*urls] * (1 + part.exists()):  # again from the start, if the part does not fit
        try:
            with scratch_path(destination) as folder:
                folder.mkdir()
                path = pooch.retrieve(
                    url, checksum, destination.name, folder, downloader=downloader
                )
                Path(path).replace(destination)
                return destination
        except (OSError, ValueError, DatasetError) as error:  # those of requests are OSErrors
            reasons[url] = f"  {url}: {type(error).__name__}: {error}\n"
    raise DatasetError(
        f"{destination.name} could not be downloaded:\n{''.join(reasons.values())}"
        f"Try again later, or put the file there by hand: {destination} ({checksum or 'any'})"
    )


def fetch_archive(
    urls: Iterable[str],
    archive: Path,
    destination: Path,
    check: Callable[[Path], object],
    keep: tuple[str, ...] | None = None,
) -> None:
    """Download an archive whose checksum is not known beforehand and unpack it to `destination`.

    `check` and `keep` are those of `extract`. The checksum is recorded only once `check` has found
    the content right; an archive just downloaded whose content is wrong is deleted.
    Raises DatasetError, as `fetch` and `extract` do.
    """
    if destination.exists() and any(destination.iterdir()):
        try:
            check(destination)
        except DatasetError as error:
            hint = "It is in the way of a download: complete it, move it or delete it."
            raise DatasetError(f"{error}. {hint}") from None
        return
    downloaded = not archive.exists()
    fetch(urls, archive)

    def check_and_record(folder: Path) -> None:
        check(folder)
        ours = runtime.archives_root(), runtime.writable_data_root()
        if any(archive.is_relative_to(root) for root in ours):
            with atomic_path(_record(archive)) as temporary:
                temporary.write_text(f"{pooch.file_hash(str(archive))}  {archive.name}\n")

    try:
        extract(archive, destination, check_and_record, keep)
    except DatasetError as error:
        # An error of the operating system, a full disk for instance, says nothing of the archive.
        if downloaded and not getattr(error.__cause__, "errno", None):
            archive.unlink()
        raise


def verify(path: Path, checksum: str | None) -> None:
    """Raise DatasetError if the file's checksum ("sha256:…" or "md5:…", or None) is another."""
    algorithm, _, expected = (checksum or "").partition(":")
    if checksum and (found := pooch.file_hash(str(path), alg=algorithm)) != expected:
        raise DatasetError(
            f"{path}: its {algorithm} is {found}, expected {expected}: it is damaged, or not the "
            "file that this program knows. Delete it and run again to download it."
        )


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _recorded_checksum(path: Path) -> str | None:
    words = _record(path).read_text().split() if _record(path).exists() else []
    return f"sha256:{words[0]}" if words else None


def _part_of(destination: Path) -> Path:
    """Return where the part of a download lies, after looking for what killed processes left."""
    part = destination.with_name(f".{destination.name}.part")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # another process was faster
        for file in (file for folder in leftovers(destination) for file in folder.iterdir()):
            file.replace(part)
    return part


def _download(url: str, output_file: str, _pooch: object, part: Path, kept: bool) -> None:
    """A downloader of pooch that goes on from `part` and, if `kept`, leaves it if it breaks off."""
    path = Path(output_file)  # no other process writes to it
    with suppress(FileNotFoundError):
        part.replace(path)
    try:
        with path.open("ab") as file:
            _append(url, file, part.name[1:].removesuffix(".part"))
    except BaseException:
        if kept and path.stat().st_size:
            path.replace(part)
        raise
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    what = next((what for signs, what in STAND_INS.items() if start.startswith(signs)), None)
    if what or not start:
        raise DatasetError(f"the server sent {what or 'an empty file'} instead of the file")


def _append(url: str, file: BinaryIO, description: str) -> None:
    """Append what `file` lacks; replace its content by the whole where the server does not."""
    have = file.tell()

    def begin(answer, **_):
        nonlocal have
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status_code in (200, 206, 416) and not goes_on:
            have = file.truncate(0)

    # Some servers send a .gz file as a compressed transfer, which would be unpacked on arrival.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    options = {"timeout": TIMEOUT, "headers": headers, "hooks": {"response": begin}}
    # pooch asks whether there is a bar, which tqdm answers by its total, and sets the true total.
    with tqdm(desc=description, total=1, unit="B", unit_scale=True, file=sys.stdout) as bar:
        pooch.HTTPDownloader(bar, 2**16, **options)(url, file, None)
    if bar.total and file.tell() != have + bar.total:  # some versions of requests do not tell
        raise OSError(f"the connection ended after {file.tell():,} of {have + bar.total:,} bytes")
