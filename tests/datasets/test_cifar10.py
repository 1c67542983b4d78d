"""CIFAR-10 as original batches and as a JPEG copy, generated small, and the real copy."""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from dlapps import datasets, runtime
from dlapps.datasets import DatasetError, cifar10


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    return tmp_path


@pytest.fixture
def batches(monkeypatch):
    """The content of two small batches and their list of names, which torchvision then knows."""
    generator = np.random.default_rng(0)
    contents = {"batches.meta": pickle.dumps({"label_names": list(cifar10.CLASSES)})}
    for name, count in (("data_batch_1", 20), ("test_batch", 10)):
        rows = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [i % 10 for i in range(count)]
        contents[name] = pickle.dumps({"data": rows, "labels": labels})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(cifar10, "COUNTS", {"train": 20, "test": 10})
    return contents


def write_batches(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def test_batches_on_disk_are_read_pixel_for_pixel(data, batches):
    write_batches(data / CIFAR10.base_folder, batches)
    write_copy(data, 2)  # the originals come first
    train, test = datasets.load("cifar-10"), datasets.load("cifar-10", "test")
    rows = pickle.loads(batches["data_batch_1"])["data"]
    assert train.images.numpy().tobytes() == rows.tobytes()  # red, green, blue planes
    assert train.images.shape == (20, 3, 32, 32)
    assert test.labels.tolist() == list(range(10))
    assert (train.name, train.classes[3]) == ("CIFAR-10 training set", "cat")


def test_damaged_batches_are_never_unpickled(data, batches):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    write_batches(data / CIFAR10.base_folder, batches | {"test_batch": pickle.dumps(Trap())})
    with pytest.raises(DatasetError, match="cifar-10-batches-py is incomplete or damaged"):
        datasets.load("cifar-10")


def test_the_archive_is_verified_and_unpacked(data, batches, monkeypatch):
    archive = data / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DatasetError, match="md5"):
        datasets.load("cifar-10")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(datasets.load("cifar-10", "test")) == 10
    archive.unlink()
    assert len(datasets.load("cifar-10")) == 20


def test_data_that_cannot_be_had(data):
    with pytest.raises(DatasetError, match=r"by hand.*cifar-10-python\.tar\.gz"):
        datasets.load("cifar-10")


def write_copy(data, count):
    for split in ("train", "test"):
        for label, name in enumerate(cifar10.CLASSES):
            folder = data / "CIFAR-10-images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (20 * label,) * 3).save(folder / f"{number}.jpg")


def test_the_jpeg_copy_is_named_so(data):
    write_copy(data, 2)
    test = datasets.load("cifar-10", "test", size=16)
    assert test.images.shape == (20, 3, 16, 16)
    assert test.images[:, 0, 0, 0].tolist() == [20 * (i // 2) for i in range(20)]
    assert test.name == "CIFAR-10 (JPEG copy, 20) test set"
    (data / "CIFAR-10-images/test/cat/0.jpg").unlink()
    with pytest.raises(DatasetError, match="'cat': 1"):
        datasets.load("cifar-10", "test")


def test_the_real_copy(monkeypatch, tmp_path):
    root = Path(os.environ.get("DLAPPS_DATA", "data"))
    if not (root / "CIFAR-10-images").exists():
        pytest.skip("no CIFAR-10-images in the data folder")
    monkeypatch.setattr(runtime, "writable_data_root", lambda: tmp_path)
    test = datasets.load("cifar-10", "test")
    assert len(set(torch.bincount(test.labels).tolist())) == 1
    assert test.images.shape[1:] == (3, 32, 32)
    # Ships lie on more blue than deer do: colour channels and labels are in their places.
    blue = [test.images[test.labels == cifar10.CLASSES.index(n)].float() for n in ("ship", "deer")]
    ship, deer = ((images[:, 2] - images[:, 0]).mean() for images in blue)
    assert ship > deer + 10
