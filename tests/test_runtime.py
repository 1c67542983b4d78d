"""Profiles, folders, seeds."""

import importlib.machinery
import platform
import random
import resource
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from dlapps import runtime
from dlapps.files import load_checkpoint, save_checkpoint


def test_the_profile_follows_the_setting_and_else_the_gpu(monkeypatch):
    monkeypatch.setenv("DLAPPS_PROFILE", "full")
    assert runtime.profile() == "full"
    assert runtime.pick(quick=1, full=2) == 2
    monkeypatch.setenv("DLAPPS_PROFILE", "")
    for has_gpu, expected in ((True, "full"), (False, "quick")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert runtime.profile() == expected


def test_an_unknown_profile_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("DLAPPS_PROFILE", "fast")
    with pytest.raises(ValueError, match=r"DLAPPS_PROFILE is 'fast', expected one of quick, full"):
        runtime.pick(quick=1, full=2)


def test_data_lies_in_the_repository_unless_the_setting_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("DLAPPS_DATA", raising=False)
    assert runtime.data_root() == runtime.project_root() / "data"
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    assert runtime.data_root() == runtime.writable_data_root() == tmp_path


def test_a_read_only_data_folder_is_not_written(monkeypatch, tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o555)
    monkeypatch.setenv("DLAPPS_DATA", str(folder))
    assert runtime.data_root() == folder
    assert runtime.writable_data_root() == runtime.project_root() / "data"


def test_archives_lie_with_the_downloads_unless_the_setting_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("DLAPPS_ARCHIVES", raising=False)
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path / "data"))
    assert runtime.archives_root() == tmp_path / "data"
    monkeypatch.setenv("DLAPPS_ARCHIVES", str(tmp_path / "archives"))
    assert runtime.archives_root() == tmp_path / "archives"
    (tmp_path / "archives").touch()
    with pytest.raises(NotADirectoryError, match="DLAPPS_ARCHIVES"):
        runtime.archives_root()


def test_figures_lie_in_the_repository_unless_the_setting_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("DLAPPS_FIGURES", raising=False)
    assert runtime.figures_root() == runtime.project_root() / "figures"
    monkeypatch.setenv("DLAPPS_FIGURES", str(tmp_path))
    assert runtime.figures_root() == tmp_path


def test_versions_name_what_computes(monkeypatch):
    versions = runtime.versions()
    assert versions["torch"] == torch.__version__
    assert versions["numpy"] == np.__version__
    assert versions["threads"] == torch.get_num_threads()
    assert versions["processor"].endswith(torch.backends.cpu.get_cpu_capability())
    assert (versions["GPU"] is None) == (not torch.cuda.is_available())


def test_settings_that_name_no_folder_are_errors(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("DLAPPS_DATA", str(file))
    with pytest.raises(NotADirectoryError, match="DLAPPS_DATA"):
        runtime.data_root()
    monkeypatch.setenv("DLAPPS_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match="DLAPPS_WEIGHTS"):
        runtime.weights_root()


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    roots = {
        "DATA": runtime.data_root, "ARCHIVES": runtime.archives_root,
        "WEIGHTS": runtime.weights_root, "FIGURES": runtime.figures_root,
    }  # fmt: skip
    for name, root in roots.items():
        monkeypatch.setenv(f"DLAPPS_{name}", f"~/{name.lower()}")
        assert root() == tmp_path / name.lower()


def test_a_seed_repeats_python_numpy_and_torch():
    def draw():
        runtime.seed_everything(3)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()
    assert torch.are_deterministic_algorithms_enabled() == (not torch.cuda.is_available())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_was_freed_serves_the_next_tensors():
    code = """
import resource, sys, torch
from contextlib import nullcontext
from dlapps import runtime

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

torch.zeros(2**24)
before, held_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, held()
with runtime.keep_freed_memory() if sys.argv[1] == "kept" else nullcontext():
    for _ in range(40):
        torch.zeros(2**24)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, held() - held_before)
"""

    def new_bytes(freed):
        command = [sys.executable, "-c", code, freed]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        return [int(pages) * resource.getpagesize() for pages in ended.stdout.split()]

    size = 4 * 2**24
    assert new_bytes("given back")[0] >= 40 * size
    faults, held = new_bytes("kept")
    # What lies between large tensors may stop a few from taking the place of the one before.
    assert faults <= 10 * size
    assert held < size / 2  # afterwards it is given back


def test_start_says_versions_and_that_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("DLAPPS_PROFILE", raising=False)
    runtime.start("1_transfer_learning")
    printed = capsys.readouterr().out
    assert "1_transfer_learning: profile quick" in printed
    assert torch.__version__ in printed
    assert "No GPU" in printed


def test_start_says_where_downloads_go_if_the_data_folder_is_read_only(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    runtime.start("1_transfer_learning")
    assert "read-only" not in capsys.readouterr().out
    tmp_path.chmod(0o555)
    runtime.start("1_transfer_learning")
    assert "(read-only: downloads and caches go to data)" in capsys.readouterr().out
    tmp_path.chmod(0o755)


def product_and_threads(seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 300, 300, generator=generator)
    return seed, one @ other, torch.get_num_threads()


def test_work_on_all_cores_gives_what_one_thread_gives_in_order():
    before = torch.get_num_threads()
    alone = [runtime.run_each(product_and_threads, [seed], "alone")[0] for seed in (2, 0, 1)]
    together = runtime.run_each(product_and_threads, [2, 0, 1], "together")
    assert torch.get_num_threads() == before
    for (seed, found, threads), (expected_seed, expected, _) in zip(together, alone, strict=True):
        assert seed == expected_seed
        assert threads == 1
        assert torch.equal(found, expected)


def test_an_error_on_another_core_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        runtime.run_each(lambda number: 1 / number, [1, 0], "divisions")


def test_on_drive_downloads_and_checkpoints_outlive_the_machine(tmp_path, monkeypatch):
    mounted = []
    drive = types.SimpleNamespace(mount=lambda path: mounted.append(path))
    colab = types.ModuleType("google.colab")
    colab.drive, colab.__spec__ = drive, importlib.machinery.ModuleSpec("google.colab", None)
    google = types.ModuleType("google")
    google.colab = colab
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setenv("DLAPPS_PROFILE", "quick")
    monkeypatch.delenv("DLAPPS_DATA", raising=False)
    for machine in ("first", "second"):
        for setting in ("DLAPPS_ARCHIVES", "DLAPPS_CHECKPOINTS"):
            monkeypatch.setenv(setting, "")  # so that it is put back afterwards
            monkeypatch.delenv(setting)
        monkeypatch.setattr(runtime, "project_root", lambda machine=machine: tmp_path / machine)
        path = runtime.checkpoint_path("1_one", machine)
        save_checkpoint(path, "made", {"step": 1})  # before it is asked for
        for _ in range(2):
            runtime.keep_on_drive(tmp_path / "drive")
        assert not path.exists()
        path = runtime.checkpoint_path("1_one", machine)
        assert load_checkpoint(path, "made") == {"step": 1}
        save_checkpoint(runtime.checkpoint_path("1_one", "later"), "made", {"of": machine})
    assert load_checkpoint(runtime.checkpoint_path("1_one", "first"), "made") == {"step": 1}
    assert runtime.archives_root() == tmp_path / "drive" / "MyDrive" / "dlapps" / "archives"
    assert runtime.data_root() == tmp_path / "second" / "data"  # what is unpacked stays here
    assert mounted == [str(tmp_path / "drive")] * 4


def test_without_colab_there_is_no_drive():
    with pytest.raises(RuntimeError, match="KEEP_ON_DRIVE is True"):
        runtime.keep_on_drive()
