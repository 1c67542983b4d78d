"""Where and how a notebook runs: profile, folders, device, memory, seeds, progress."""

import ctypes
import importlib.util
import os
import platform
import random
import re
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import torch
from joblib import Parallel, delayed, parallel_config
from tqdm import TqdmWarning, tqdm

from dlapps.replacements import carrying

PROFILES = ("quick", "full")
# The settings that name a folder, each by an environment variable.
FOLDERS = tuple(
    f"DLAPPS_{name}" for name in ("DATA", "ARCHIVES", "WEIGHTS", "FIGURES", "CHECKPOINTS")
)
# What computes the numbers beside Python, PyTorch and this package.
LIBRARIES = ("torchvision", "numpy", "scipy", "scikit-learn", "scikit-image", "pillow")


def project_root() -> Path:
    """Return the repository's folder, or the working directory if dlapps is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").exists() else Path.cwd()


def profile() -> str:
    """Return "quick" or "full": `DLAPPS_PROFILE`, by default "full" where there is a GPU.

    Raises ValueError for any other value of `DLAPPS_PROFILE`.
    """
    name = os.environ.get("DLAPPS_PROFILE") or ("full" if torch.cuda.is_available() else "quick")
    if name not in PROFILES:
        raise ValueError(f"DLAPPS_PROFILE is {name!r}, expected one of {', '.join(PROFILES)}")
    return name


def pick(*, quick, full, full_on_cpu=...):
    """Return the argument that belongs to the profile in force.

    full_on_cpu: what the full profile takes instead where there is no GPU, for what would need days
    there.
    """
    if profile() == "quick":
        return quick
    return full if full_on_cpu is ... or torch.cuda.is_available() else full_on_cpu


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """Return what changes the bits of a training, beside data, settings and code, as words."""
    return f"torch {torch.__version__}, {device().type}"


def images_at_once(device: torch.device) -> int:
    """Return how many photographs a network best takes at once: on a CPU few, for its caches."""
    return 4 if device.type == "cpu" else 64


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """While a block runs, let freed memory serve the next tensors; give it back at the end.

    By itself glibc returns large tensors to the system, which clears each page before it hands it
    out again: 6 to 30 % of the time of saliency maps, attacks, class images and extraction on a
    CPU. The price is that the process holds the most that the block needed at once, until the block
    ends. With another C library nothing changes. Usable as a decorator, too.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # the names of mallopt(3)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        largest = 32 * 2**20  # what glibc comes to by itself, once it has seen larger tensors
        for name, value in ((mmap_max, 65536), (trim_threshold, 2 * largest)):
            libc.mallopt(name, value)
        libc.mallopt(mmap_threshold, largest)
        libc.malloc_trim(0)


def data_root() -> Path:
    """Return the folder of the data sets: `DLAPPS_DATA`, by default `data/` in the repository.

    Raises NotADirectoryError if `DLAPPS_DATA` names something that is not a folder.
    """
    root = _setting("DLAPPS_DATA") or project_root() / "data"
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"DLAPPS_DATA is {root}, which is a file: expected a folder")
    return root


def writable_data_root() -> Path:
    """Return the folder for downloads and caches: `data_root()`, or `data/` if that is read-only.

    Read-only means that this user may not write there, or that no permission to write is set: an
    administrator, who may write everywhere, should not write there either.
    """
    root = data_root()
    anybody = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    if root.exists() and not (root.stat().st_mode & anybody and os.access(root, os.W_OK)):
        return project_root() / "data"
    return root


def archives_root() -> Path:
    """Return the folder of downloaded files: `DLAPPS_ARCHIVES`, by default `writable_data_root()`.

    Wherever an archive lies, what is in it is unpacked to `writable_data_root()`.
    Raises NotADirectoryError if `DLAPPS_ARCHIVES` names something that is not a folder.
    """
    root = _setting("DLAPPS_ARCHIVES") or writable_data_root()
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"DLAPPS_ARCHIVES is {root}, which is a file: expected a folder")
    return root


def weights_root() -> Path | None:
    """Return the folder of weights already on disk, `DLAPPS_WEIGHTS`, or None if that is unset.

    Raises NotADirectoryError if `DLAPPS_WEIGHTS` names no folder.
    """
    root = _setting("DLAPPS_WEIGHTS")
    if root and not root.is_dir():
        raise NotADirectoryError(f"DLAPPS_WEIGHTS is {str(root)!r}: expected a folder that exists")
    return root


def figures_root() -> Path:
    """Return the folder of figures and numbers: `DLAPPS_FIGURES`, by default `figures/`."""
    return _setting("DLAPPS_FIGURES") or project_root() / "figures"


def _setting(name):
    """Return the folder that an environment variable names, or None if it is unset or empty."""
    value = os.environ.get(name)
    return Path(value).expanduser().resolve() if value else None


def versions() -> dict:
    """Return {name: version} of all that a number depends on beside data, settings and code.

    Where two runs agree in it and have no GPU, their numbers are the same to the bit.
    """
    gpu = torch.cuda.is_available()
    return {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),  # with its kind of build
        **{name: metadata.version(name) for name in LIBRARIES},
        "GPU": torch.cuda.get_device_name() if gpu else None,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor():
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")  # where Linux keeps what platform does not tell
    if information.exists():
        found = dict(re.findall(r"^(\w[\w ]*\w)\s*: (.+)$", information.read_text(), re.MULTILINE))
        name = found.get("model name", name)
        # Virtual machines shorten the name: that of two generations may be the same.
        name += "".join(f", {k} {found[k]}" for k in ("cpu family", "model") if k in found)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def checkpoints_root() -> Path:
    """Return the folder of checkpoints: `DLAPPS_CHECKPOINTS`, by default `build/checkpoints/`."""
    return _setting("DLAPPS_CHECKPOINTS") or project_root() / "build" / "checkpoints"


def checkpoint_path(notebook: str, name: str) -> Path:
    """Return where the checkpoint `name` of a notebook lies, in `checkpoints_root()`/<profile>/."""
    return checkpoints_root() / profile() / f"{notebook}-{name}.pt"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch; on a CPU, choose deterministic algorithms.

    On a CPU the same seed, code, versions and number of threads then give the same bits. On a GPU
    no bits are promised; products of float32 are of float32 there, and round no factor to TF32.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from NumPy's global state
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    # Filling fresh memory guards against bugs, not against chance, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False


def clock() -> float:
    """Return the time in seconds, after all work of a GPU has ended."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def chosen_kernels(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """On a GPU, let cuDNN try out its convolutions and, with `tf32`, round factors to 10 bits.

    For many calls of the same shapes: the first of each shape takes longer.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, tf32, tf32
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def fits(size: int, device: torch.device) -> bool:
    """Return whether data of `size` bytes may lie on a device: always where they are anyway."""
    return device.type == "cpu" or size <= free_memory(device) // 2


def progress(iterable, description: str, total=None, initial=0, disable=False) -> tqdm:
    """Wrap `iterable` in a progress bar with the time that is left, on standard output."""
    return tqdm(
        iterable,
        desc=description,
        total=total,
        initial=initial,
        disable=disable,
        file=sys.stdout,
        mininterval=0.5,
        dynamic_ncols=sys.stdout.isatty(),
        ncols=None if sys.stdout.isatty() else 96,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread on a CPU: the numbers do not depend on how many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_each(function: Callable, items: Sequence, description: str) -> list:
    """Return [function(item), ...]: on a CPU as many at a time as it has cores, one thread each.

    So the numbers do not depend on how many cores there are, and small networks, whose threads wait
    for each other more than they work, are faster. On a GPU one runs after the other. `function`
    and the items go to other processes, joblib's, and the results come back from there.
    """
    if torch.cuda.is_available():
        return [function(item) for item in items]
    if len(items) == 1:
        with one_thread():
            return [function(items[0])]
    with tempfile.TemporaryDirectory() as folder, parallel_config("loky", inner_max_num_threads=1):
        # In a file, which each process reads once: with it goes all that it names, data too.
        file = Path(folder, "function")
        file.write_bytes(cloudpickle.dumps(carrying(function)))
        results = Parallel(n_jobs=-1, return_as="generator")(
            delayed(_call)(file, item) for item in items
        )
        return list(progress(results, description, len(items)))


def _call(file, item):
    return _function_in(file)(item)


@lru_cache(maxsize=1)
def _function_in(file):
    return cloudpickle.loads(file.read_bytes())


def keep_on_drive(mount: Path | str = "/content/drive") -> None:
    """On Colab, mount Google Drive and keep downloads and checkpoints in its folder `dlapps`.

    They are then there after the machine is gone. What is unpacked, thousands of small files, stays
    on the machine: Drive is slow with these. `DLAPPS_ARCHIVES` or `DLAPPS_CHECKPOINTS` stays if it
    is set already; checkpoints made before are moved. Raises RuntimeError where there is no Colab.
    """
    if not _on_colab():
        raise RuntimeError("KEEP_ON_DRIVE is True, expected False outside Google Colab")
    from google.colab import drive

    drive.mount(str(mount))
    home = Path(mount) / "MyDrive" / "dlapps"
    before = checkpoints_root()
    os.environ.setdefault("DLAPPS_ARCHIVES", str(home / "archives"))
    os.environ.setdefault("DLAPPS_CHECKPOINTS", str(home / "checkpoints"))
    if before.exists() and before != checkpoints_root():
        shutil.copytree(before, checkpoints_root(), dirs_exist_ok=True)
        shutil.rmtree(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of the GPU or the computer is exhausted."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@contextmanager
def naming_memory(argument: str, value) -> Iterator[None]:
    """Raise MemoryError that names the argument to lower where PyTorch runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"{argument} is {value}: out of memory, set a smaller one") from error


def start(notebook: str, on_drive: bool = False) -> None:
    """Seed everything and print what a reader needs to repeat the run; see `keep_on_drive`."""
    import matplotlib
    import torchvision

    # pooch, which scikit-image imports, looks for the widgets of a bar that nobody draws.
    warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)
    seed_everything(0)
    if on_drive:
        keep_on_drive()
    folder, writable = _shown(data_root()), _shown(writable_data_root())
    elsewhere = "" if writable == folder else f" (read-only: downloads and caches go to {writable})"
    print(f"{notebook}: profile {profile()}, data in {folder}{elsewhere}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, NumPy {np.__version__}, Matplotlib {matplotlib.__version__}"
    )
    if torch.cuda.is_available():
        print(f"Device: {torch.cuda.get_device_name()}")
        print("Trainings may round factors to TF32, features are computed in float16.")
        return
    print(f"Device: CPU, {torch.get_num_threads()} threads. No GPU is attached.")
    if _on_colab():
        print("For a GPU: Runtime > Change runtime type > T4 GPU, then run this cell again.")
    if profile() == "full":
        print("On a CPU the full profile takes long; what takes minutes goes on where it stopped.")


def _on_colab():
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # there is no package google at all
        return False


def _shown(path):
    """Return `path` relative to the repository where it lies in it."""
    root = project_root()
    return path.relative_to(root) if path.is_relative_to(root) else path
