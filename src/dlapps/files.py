"""Files that are either whole or absent, and fingerprints that say what they were made from."""

import hashlib
import inspect
import json
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds.

    A block that fails, or a process that is killed in it, leaves `path` as it was. Missing parent
    folders are made. The temporary name keeps the suffix, which writers use to choose a format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, content):
    """Write `content` as JSON, whole or not at all: equal content is equal text, line by line."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def fingerprint(*parts):
    """Return 16 hexadecimal digits of the SHA-256 of `parts`, equal for equal content.

    A part is a JSON value, bytes, a tensor or an array (its type, shape and bytes count), a
    dictionary of tensors such as a state dict, or a module, class or function (its source counts,
    so that what was computed by older code is not taken for the result of the new).
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
        yield inspect.getsource(part).encode()
    else:
        yield json.dumps(part, sort_keys=True).encode()


def save_checkpoint(path, made_from, state):
    """Write `state` (tensors, numbers, strings and containers of them) to `path`, atomically.

    `made_from` is the `fingerprint` of everything that the state depends on.
    """
    with atomic_path(path) as temporary:
        torch.save({"made_from": made_from, "state": state}, temporary)


def load_checkpoint(path, made_from):
    """Return the state that `save_checkpoint` wrote, or None if there is none to go on from.

    There is none when the file is absent, cannot be read, or was made from something else; the
    last two are said in a line, because the work is then done again.
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
    except Exception as error:  # torch.load raises many types for a damaged file
        reason = f"it cannot be read ({type(error).__name__})"
    print(f"Not resuming from {path.name}: {reason}. Starting again.")
    return None
