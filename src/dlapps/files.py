"""Files that are either whole or absent, and fingerprints that say what they were made from."""

import glob
import hashlib
import inspect
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from dlapps.sources import code_of

_HOST = re.sub(r"\W", "", platform.node())[:32]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds.

    A block that fails, or a process that is killed in it, leaves `path` as it was. An OSError, as
    of a full disk, names `path`. The rest is as in `scratch_path`.
    """
    path = Path(path)
    with scratch_path(path) as temporary:
        try:
            yield temporary
            temporary.replace(path)
        except OSError as error:
            if error.errno and error.filename in (None, str(temporary)):
                error.filename, error.filename2 = str(path), None
            raise


@contextmanager
def scratch_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, for a file or a folder, and delete what is there then.

    Missing parent folders are made. The temporary name keeps the suffix, which writers use to
    choose a format. What a killed process left is deleted, too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in leftovers(path):
        remove(leftover)
    temporary = temporary_path(path)
    try:
        yield temporary
    finally:
        remove(temporary)


def write_json(path: Path, content) -> None:
    """Write `content` as JSON, whole or not at all: equal content is equal text, line by line."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def temporary_path(path: Path) -> Path:
    """Return a hidden path beside `path` that no other process uses, with its suffix."""
    name = f".{path.stem}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}"
    return path.with_name(name)


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files and folders of `path` whose process, on this machine, is gone."""
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    pattern = re.compile(rf"\.{stem}\.{_HOST}-(\d+)-[0-9a-f]{{8}}{suffix}")
    names = [(found, pattern.fullmatch(found.name)) for found in path.parent.iterdir()]
    return [found for found, name in names if name and not psutil.pid_exists(int(name[1]))]


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there and may be deleted."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def fingerprint(*parts) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `parts`, equal for equal content.

    A part is a JSON value, bytes, a tensor or an array (its type, shape and bytes count), a
    dictionary of tensors such as a state dict, or a module, class or function (its code and that of
    all that it names in this package count, see `code_of`, so that what was computed by older code
    is not taken for the result of the new).
    """
    digest = hashlib.sha256()
    for part in parts:
        for chunk in _chunks(part):
            digest.update(len(chunk).to_bytes(8, "little"))
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _chunks(part):
    if isinstance(part, bytes):
        yield part
    elif isinstance(part, torch.Tensor):
        yield from _chunks(part.detach().cpu().contiguous().numpy())
    elif isinstance(part, np.ndarray):
        yield f"{part.dtype} {part.shape}".encode()
        yield memoryview(np.ascontiguousarray(part)).cast("B") if part.size else b""
    elif isinstance(part, dict) and any(isinstance(v, torch.Tensor) for v in part.values()):
        for key, value in part.items():
            yield str(key).encode()
            yield from _chunks(value)
    elif inspect.ismodule(part) or inspect.isclass(part) or inspect.isroutine(part):
        yield from (code.encode() for code in code_of(part))
    else:
        yield json.dumps(part, sort_keys=True).encode()


def save_checkpoint(path: Path, made_from: str, state) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) to `path`, atomically.

    `made_from` is the `fingerprint` of everything that the state depends on. Raises OSError, for
    instance if the disk is full; then the file that was there before is still there.
    """
    with atomic_path(path) as temporary:
        temporary.touch()  # where nothing may be written, the operating system says why
        try:
            torch.save({"made_from": made_from, "state": state}, temporary)
        except RuntimeError as error:  # PyTorch's own writer hides that reason
            free = shutil.disk_usage(temporary.parent).free / 2**20
            raise OSError(
                f"{path} could not be written ({free:,.0f} MiB are free on its disk): {error}"
            ) from error


def load_checkpoint(path: Path, made_from: str):
    """Return the state that `save_checkpoint` wrote, or None if there is none to go on from.

    There is none when the file is absent, damaged, or was made from something else; the last two
    are said in a line, because the work is then done again. Raises PermissionError for a file that
    may not be read: it may be whole, and the work done again would replace it.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        # Memory-mapping would keep the file open while a later save replaces it (not on Windows).
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["made_from"] == made_from:
            return content["state"]
        reason = "it was made with other data, settings or code"
    except PermissionError:
        raise
    except Exception as error:  # torch.load raises many types for a damaged file
        reason = f"it cannot be read ({type(error).__name__})"
    print(f"Not resuming from {path.name}: {reason}. Starting again.")
    return None


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one piece of work is kept, whatever else was made under the same name.

    `path` is the name to which `made_from`, the `fingerprint` of data, settings and code, and
    `machine`, what else changes numbers (device and PyTorch's build), are added: work that was made
    from something else, or elsewhere, has a file of its own beside it.
    """

    path: Path
    made_from: str
    machine: str

    @property
    def file(self) -> Path:
        """The file of this work on this machine."""
        name = f"{self.path.stem}-{self.made_from}-{fingerprint(self.machine)[:4]}"
        return self.path.with_name(name + self.path.suffix)

    def save(self, state, finished: bool = True) -> None:
        """Write `state`, as `save_checkpoint` does."""
        save_checkpoint(
            self.file, self.made_from, {"state": state, "finished": finished, "on": self.machine}
        )

    def load(self) -> tuple:
        """Return (state, whether it is finished), or (None, False) if there is nothing to use.

        What is finished is used from another machine, too, which is said; what is not finished goes
        on only where it began, to the same numbers as without the interruption.
        """
        kept = load_checkpoint(self.file, self.made_from)
        if kept is not None:
            return kept["state"], kept["finished"]
        elsewhere = f"{glob.escape(self.path.stem)}-{self.made_from}-*{self.path.suffix}"
        for path in sorted(self.path.parent.glob(elsewhere)):
            kept = load_checkpoint(path, self.made_from) if path != self.file else None
            if kept is not None and kept["finished"]:
                print(f"{self.path.stem}: taken as it was computed on {kept['on']}.")
                return kept["state"], True
        return None, False
