"""Files from the network: fetched once, verified, unpacked safely, whole or not there at all."""

import shutil
import stat
import sys
import tarfile
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch
import requests
from tqdm import tqdm

from dlapps import runtime
from dlapps.datasets.image_set import DatasetError
from dlapps.files import atomic_path, leftovers, remove, scratch_path, temporary_path

TIMEOUT = 30  # seconds without an answer
# Every archive used here unpacks to a fraction of so many bytes and files.
UNPACKED_LIMIT = 2**30
MEMBER_LIMIT = 100_000
NOTE_LIMIT = 2**20  # bytes of a tar archive's long names and other notes, which memory must hold


def find(*relative_paths):
    """Return the first of the paths that exists in the data folder or in that for downloads.

    Returns None if none does.
    """
    roots = dict.fromkeys((runtime.data_root(), runtime.writable_data_root()))
    candidates = (root / path for path in relative_paths for root in roots)
    return next((path for path in candidates if path.exists()), None)


def fetch(urls, destination, checksum=None):
    """Download the first of `urls` that serves the file to `destination`, unless it is there.

    checksum: "sha256:…" or "md5:…"; None where it is not known beforehand. Then the one that
        `record_checksum` wrote beside the file at an earlier download counts.
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
    reasons = []
    for url in urls:
        try:
            _fetch(url, destination, checksum)
            return destination
        except (OSError, DatasetError) as error:  # the errors of requests are OSErrors
            reasons.append(f"  {url}: {type(error).__name__}: {error}")
    raise DatasetError(
        f"{destination.name} could not be downloaded:\n" + "\n".join(reasons) + "\n"
        f"Try again later, or put the file there by hand: {destination}"
        + (f" ({checksum})" if checksum else "")
    )


def fetch_archive(urls, archive, destination, check, keep=None):
    """Download an archive whose checksum is not known beforehand and unpack it to `destination`.

    `check` and `keep` are those of `extract`. The checksum is recorded only once `check` has found
    the content right; an archive just downloaded whose content is wrong is deleted.
    Raises DatasetError, as `fetch` and `extract` do.
    """
    archive, destination = Path(archive), Path(destination)
    if destination.exists() and any(destination.iterdir()):
        try:
            check(destination)
        except DatasetError as error:
            hint = "It is in the way of a download: complete it, move it or delete it."
            raise DatasetError(f"{error}. {hint}") from None
        return
    downloaded = not archive.exists()
    fetch(urls, archive)

    def check_and_record(folder):
        check(folder)
        if archive.is_relative_to(runtime.writable_data_root()):
            record_checksum(archive)

    try:
        extract(archive, destination, check_and_record, keep)
    except DatasetError as error:
        # An error of the operating system, a full disk for instance, says nothing of the archive.
        if downloaded and not getattr(error.__cause__, "errno", None):
            archive.unlink()
        raise


def extract(archive, destination, check, keep=None):
    """Unpack a zip or tar archive to the new folder `destination`, all of it or nothing.

    check: called with the folder before it gets its name; raises DatasetError for wrong content.
    keep: suffixes such as (".jpg",) of the files to unpack; others are left out. None keeps all.
    Raises DatasetError for a damaged archive, for a path that leads out of the folder, for a link
    or a device among the files to unpack, and for more than UNPACKED_LIMIT bytes or MEMBER_LIMIT
    members.
    """
    archive, destination = Path(archive), Path(destination)
    with scratch_path(destination) as temporary:
        try:
            with _open_archive(archive) as members:
                wanted = _safe_members(members, keep)
                for path, source in runtime.progress(wanted, f"Unpacking {archive.name}"):
                    target = temporary / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # Only the bytes are taken: no owner, no permission, nothing to be tricked with.
                    with source() as reader, target.open("xb") as writer:
                        shutil.copyfileobj(reader, writer, 2**20)
            temporary.mkdir(exist_ok=True)  # for an archive that holds nothing
            check(temporary)
            _rename_folder(temporary, destination, check)
        except DatasetError as error:
            text = str(error).replace(str(temporary), f"{archive.name}")
            raise DatasetError(f"{archive}: {text}") from None
        except Exception as error:  # the archive modules raise a dozen types for damaged files
            raise DatasetError(
                f"{archive} could not be unpacked ({type(error).__name__}: {error}). "
                "If it is damaged, delete it and run again to download it."
            ) from error


def verify(path, checksum):
    """Raise DatasetError if the file's checksum ("sha256:…" or "md5:…", or None) is another."""
    if checksum is None:
        return
    algorithm, _, expected = checksum.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected:
        raise DatasetError(
            f"{path}: its {algorithm} is {found}, expected {expected}: it is damaged, or not the "
            "file that this program knows. Delete it and run again to download it."
        )


def record_checksum(path):
    """Write the file's SHA-256 beside it, to <file>.sha256: a later download must have it too."""
    with atomic_path(_record(path)) as temporary:
        temporary.write_text(f"{pooch.file_hash(str(path))}  {path.name}\n")


def _recorded_checksum(path):
    record = _record(path)
    words = record.read_text().split() if record.exists() else []
    return f"sha256:{words[0]}" if words else None


def _record(path):
    return path.with_name(path.name + ".sha256")


def _fetch(url, destination, checksum):
    with _part_of(destination, kept=checksum is not None) as part:
        for resumed in (part.exists(), False):
            try:
                _download(url, part, destination.name)
                _refuse_stand_in(part)
                verify(part, checksum)
                break
            except DatasetError as error:
                part.unlink()
                if not resumed:
                    raise DatasetError(str(error).replace(f"{part}: ", "")) from None
        part.replace(destination)


@contextmanager
def _part_of(destination, kept):
    """Yield a path that holds what an earlier download of the file left, or does not exist.

    If the block breaks off and `kept`, what is there then is left for the next one. Each process
    has a path of its own, so that two never write to the same.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    left = destination.with_name(f".{destination.name}.part")
    mine = temporary_path(left)
    for other in [left, *leftovers(left)]:
        if kept and not mine.exists():
            with suppress(FileNotFoundError):  # another process took it
                other.replace(mine)
        else:
            remove(other)
    try:
        yield mine
    except BaseException:
        if kept and mine.exists() and mine.stat().st_size:
            mine.replace(left)
        raise
    finally:
        remove(mine)


def _download(url, path, description):
    have = path.stat().st_size if path.exists() else 0
    # Some servers send a .gz file as a compressed transfer, which would be unpacked on arrival.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # there is no more
        answer.raise_for_status()
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the file from the start
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            total=total, initial=have, desc=description, unit="B", unit_scale=True, file=sys.stdout
        )
        with bar, path.open("ab") as file:
            file.truncate(have)
            for chunk in answer.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))
    found = path.stat().st_size
    if total not in (None, found):
        raise OSError(f"the connection ended after {found:,} of {total:,} bytes")


def _refuse_stand_in(path):
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        raise DatasetError("the server sent an empty file")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DatasetError("the server sent a web page instead of the file")
    if start.startswith(b"version https://git-lfs"):
        raise DatasetError("the server sent a Git LFS pointer instead of the file")


@contextmanager
def _open_archive(path):
    """Yield an iterator of (name, size, kind, open) over the members of a zip or tar archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield (
                (i.filename, i.file_size, _zip_kind(i), lambda i=i: archive.open(i))
                for i in archive.infolist()
            )
        return
    try:
        archive = tarfile.open(path, tarinfo=_TarHeader)  # noqa: SIM115 - closed below
    except tarfile.TarError as error:
        raise DatasetError(
            f"it is no zip or tar archive ({error}); delete it and run again to download it"
        ) from None
    with archive:
        yield ((m.name, m.size, _tar_kind(m), lambda m=m: archive.extractfile(m)) for m in archive)


class _TarHeader(tarfile.TarInfo):
    """A header that declares no absurd size, refused before anything of that size is read."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        header = super().frombuf(buf, encoding, errors)
        limit = UNPACKED_LIMIT if header.type in tarfile.REGULAR_TYPES else NOTE_LIMIT
        if not 0 <= header.size <= limit:
            raise DatasetError(
                f"refused: its member {header.name!r} declares {header.size:,} bytes, "
                f"more than the {limit:,} allowed"
            )
        return header


def _zip_kind(member):
    mode = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir():
        return "folder"
    return "file" if mode in (0, stat.S_IFREG) else "link or device"


def _tar_kind(member):
    return "file" if member.isreg() else "folder" if member.isdir() else "link or device"


def _safe_members(members, keep):
    """Return the (path, open) of the files to unpack; raise DatasetError for a dangerous one."""
    wanted, total = [], 0
    for count, (name, size, kind, source) in enumerate(members, start=1):
        path, windows = PurePosixPath(name.replace("\\", "/")), PureWindowsPath(name)
        if path.is_absolute() or windows.drive or ".." in path.parts:
            raise DatasetError(f"refused: its member {name!r} leads out of the folder")
        total += size
        if size < 0 or total > UNPACKED_LIMIT:
            raise DatasetError(f"refused: it unpacks to more than {UNPACKED_LIMIT:,} bytes")
        if count > MEMBER_LIMIT:
            raise DatasetError(f"refused: it holds more than {MEMBER_LIMIT:,} files")
        if kind == "folder" or (keep and path.suffix.lower() not in keep):
            continue
        if kind != "file":
            raise DatasetError(f"refused: its member {name!r} is a link or a device")
        wanted.append((path, source))
    return wanted


def _rename_folder(temporary, destination, check):
    try:
        temporary.rename(destination)
    except OSError:
        if not destination.exists():
            raise
        check(destination)  # another process was faster
