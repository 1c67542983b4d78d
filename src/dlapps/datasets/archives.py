"""Archives from the network, unpacked as what they are: strangers' files."""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from dlapps import runtime
from dlapps.datasets.image_set import DatasetError
from dlapps.files import scratch_path

# Every archive used here unpacks to a fraction of so many bytes and files.
UNPACKED_LIMIT = 2**30
MEMBER_LIMIT = 100_000
NOTE_LIMIT = 2**20  # bytes of a tar archive's long names and other notes, which memory must hold


def extract(
    archive: Path,
    destination: Path,
    check: Callable[[Path], object],
    keep: tuple[str, ...] | None = None,
) -> None:
    """Unpack a zip or tar archive to the new folder `destination`, all of it or nothing.

    check: called with the folder before it gets its name; raises DatasetError for wrong content.
    keep: suffixes such as (".jpg",) of the files to unpack; others are left out. None keeps all.
    Raises DatasetError for a damaged archive, for a path that leads out of the folder, for a link
    or a device among the files to unpack, and for more than UNPACKED_LIMIT bytes or MEMBER_LIMIT
    members. (pooch's Unzip and Untar refuse none of these, and leave half of what breaks off.)
    """
    with scratch_path(destination) as temporary:
        temporary.mkdir()
        try:
            _unpack(archive, temporary, keep)
            check(temporary)
            try:
                temporary.rename(destination)
            except OSError:
                if not destination.exists():
                    raise
                check(destination)  # another process was faster
        except DatasetError as error:
            text = str(error).replace(str(temporary), archive.name)
            raise DatasetError(f"{archive}: {text}") from None
        except Exception as error:  # the archive modules raise a dozen types for damaged files
            raise DatasetError(
                f"{archive} could not be unpacked as a zip or tar archive "
                f"({type(error).__name__}: {error}). "
                "If it is damaged, delete it and run again to download it."
            ) from error


def _unpack(archive: Path, folder: Path, keep: tuple[str, ...] | None) -> None:
    is_zip = zipfile.is_zipfile(archive)
    with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive, tarinfo=_TarHeader) as file:
        # No owner and no permission is taken over, where Python has this filter.
        file.extraction_filter = getattr(tarfile, "data_filter", None)
        wanted = _wanted(file.infolist() if is_zip else file, keep)
        file.extractall(folder, runtime.progress(wanted, f"Unpacking {archive.name}"))


def _wanted(members: Iterable, keep: tuple[str, ...] | None) -> list:
    """Return the members to unpack; raise DatasetError for a dangerous one."""
    wanted, total = [], 0
    for count, member in enumerate(members, start=1):
        name, size, is_folder, is_file = _facts(member)
        path, total = PurePosixPath(name.replace("\\", "/")), total + size
        if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
            raise DatasetError(f"refused: its member {name!r} leads out of the folder")
        if size < 0 or total > UNPACKED_LIMIT:
            raise DatasetError(f"refused: it unpacks to more than {UNPACKED_LIMIT:,} bytes")
        if count > MEMBER_LIMIT:
            raise DatasetError(f"refused: it holds more than {MEMBER_LIMIT:,} files")
        if is_folder or (keep and path.suffix.lower() not in keep):
            continue
        if not is_file:
            raise DatasetError(f"refused: its member {name!r} is a link or a device")
        wanted.append(member)
    return wanted


def _facts(member: Any) -> tuple[str, int, bool, bool]:
    """Return name, size, and whether it is a folder or a file, of a member of either kind."""
    if isinstance(member, tarfile.TarInfo):
        return member.name, member.size, member.isdir(), member.isreg()
    is_file = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
    return member.filename, member.file_size, member.is_dir(), is_file


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
