"""The 25 ImageNet images: the real file where it is, forged ones always."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from dlapps import datasets
from dlapps.datasets import DatasetError, imagenet


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    monkeypatch.setattr(imagenet, "URLS", ("http://127.0.0.1:9/file",))
    return tmp_path


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def write(path, monkeypatch, pixels, labels):
    trap = np.array(Trap(), dtype=object)
    np.savez(path, X=pixels, y=labels, label_map=trap)
    monkeypatch.setattr(imagenet, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def test_the_names_are_never_unpickled(data, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (25, 224, 224, 3), dtype=np.uint8)
    write(data / "imagenet_val_25.npz", monkeypatch, pixels, np.arange(25))
    found = datasets.load("imagenet-25")
    assert np.array_equal(found.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert found.labels.tolist() == list(range(25))
    assert found.classes[0] == "tench"
    assert found.name == "25 ImageNet validation images"
    assert datasets.load("imagenet-25", size=64).images.shape == (25, 3, 64, 64)


def test_another_file_of_this_name_is_refused(data):
    np.savez(data / "imagenet_val_25.npz", X=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DatasetError, match="sha256"):
        datasets.load("imagenet-25")


def test_another_shape_is_refused(data, monkeypatch):
    pixels = np.zeros((2, 224, 224, 3), dtype=np.uint8)
    write(data / "imagenet_val_25.npz", monkeypatch, pixels, np.arange(2))
    with pytest.raises(DatasetError, match=r"\(2, 224, 224, 3\)"):
        datasets.load("imagenet-25")


def test_the_real_file():
    root = Path(os.environ.get("DLAPPS_DATA", "data"))
    if not (root / "imagenet_val_25.npz").exists():
        pytest.skip("no imagenet_val_25.npz in the data folder")
    found = datasets.load("imagenet-25")
    assert found.images.shape == (25, 3, 224, 224)
    names = [found.classes[label] for label in found.labels.tolist()]
    assert {"hay", "quail", "snail", "sorrel"} & set(names)
    assert len(set(names)) == 25
