"""15-Scene from generated folders in several spellings and, where they are, from the real ones."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as old_transforms

from dlapps import datasets, runtime
from dlapps.datasets import DatasetError, scenes

ORIGINAL = [
    *("bedroom", "MITcoast", "MITforest", "MIThighway", "industrial", "MITinsidecity", "kitchen"),
    *("livingroom", "MITmountain", "PARoffice", "MITopencountry", "store", "MITstreet"),
    *("CALsuburb", "MITtallbuilding"),
]


def write_tree(root, spelling):
    """Write 2 training and 3 test photographs a class; the grey level tells class and number."""
    for split, count in (("train", 2), ("test", 3)):
        for label, folder in enumerate(spelling):
            (root / split / folder).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((20, 30), 10 * label + 3 * number, dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / folder / f"image_{number:04}.jpg")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    monkeypatch.setattr(scenes, "COUNTS", {"train": 30, "test": 45})
    monkeypatch.setattr(scenes, "URLS", ())
    return tmp_path


@pytest.mark.parametrize(
    ("place", "spelling"),
    [
        ("15-Scene", scenes.CLASSES),
        ("15-Scene/15SceneData", ORIGINAL),
        ("15ScenesData", [name[0].lower() + name[1:] for name in scenes.CLASSES]),
        ("15SceneData", ["living_room" if n == "LivingRoom" else n for n in scenes.CLASSES]),
    ],
)
def test_places_and_spellings_give_the_same_set(data, place, spelling):
    write_tree(data / place, spelling)
    train, test = datasets.load("15-scene", size=8), datasets.load("15-scene", "test", size=8)
    assert train.classes == scenes.CLASSES
    assert train.labels.tolist() == [label for label in range(15) for _ in range(2)]
    assert test.labels.tolist() == [label for label in range(15) for _ in range(3)]
    levels = [10 * label + 3 * number for label in range(15) for number in range(3)]
    assert (test.images[:, 0, 4, 4].int() - torch.tensor(levels)).abs().max() <= 1
    assert (train.name, test.name) == ("15-Scene training set", "15-Scene test set")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("MITtallbuilding", "TallBuilding"), ("tall-building", "TallBuilding"), ("parking", None)],
)
def test_canonical_class(folder, name):
    assert scenes.canonical_class(folder) == name


def test_the_second_load_reads_the_cache_until_a_file_changes(data, monkeypatch):
    write_tree(data / "15-Scene", scenes.CLASSES)
    first = datasets.load("15-scene", size=8)
    monkeypatch.setattr(Image, "open", None)  # decoding again would fail
    assert torch.equal(datasets.load("15-scene", size=8).images, first.images)
    monkeypatch.undo()
    monkeypatch.setenv("DLAPPS_DATA", str(data))
    monkeypatch.setattr(scenes, "COUNTS", {"train": 30, "test": 45})
    Image.new("L", (40, 40), 255).save(data / "15-Scene/train/Bedroom/image_0000.jpg")
    assert datasets.load("15-scene", size=8).images[0, 0, 4, 4] == 255
    assert datasets.load("15-scene", size=16).images.shape[-1] == 16


def test_a_broken_cache_is_built_again(data):
    write_tree(data / "15-Scene", scenes.CLASSES)
    first = datasets.load("15-scene", size=8)
    (cache,) = (data / "cache").iterdir()
    for content in (b"", b"nonsense", cache.read_bytes()[:-200]):
        cache.write_bytes(content)
        assert torch.equal(datasets.load("15-scene", size=8).images, first.images)


def test_a_broken_photograph_is_named(data):
    write_tree(data / "15-Scene", scenes.CLASSES)
    path = data / "15-Scene/test/Office/image_0001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"Office.image_0001\.jpg"):
        datasets.load("15-scene", "test")
    assert not (data / "cache").exists()


def test_missing_photographs_and_classes_are_named(data):
    write_tree(data / "15-Scene", scenes.CLASSES)
    (data / "15-Scene/train/Coast/image_0000.jpg").unlink()
    with pytest.raises(DatasetError, match=r"holds 29 images .*Coast 1.*expected 30"):
        datasets.load("15-scene")
    (data / "15-Scene/train/Coast").rename(data / "15-Scene/train/Beach")
    with pytest.raises(DatasetError, match=r"Beach.*expected the 15 classes"):
        datasets.load("15-scene")


def test_a_folder_without_the_split_is_an_error_and_stays(data):
    (data / "15-Scene/Bedroom").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no folders 'train' and 'test'"):
        datasets.load("15-scene")
    assert (data / "15-Scene/Bedroom").is_dir()


def test_the_real_photographs(monkeypatch, tmp_path, capsys):
    root = Path(os.environ.get("DLAPPS_DATA", "data"))
    if not (root / "15-Scene/train/Bedroom").exists():
        pytest.skip("no 15-Scene in the data folder")
    scenes._check(root / "15-Scene")
    assert capsys.readouterr().out == "", "these are the photographs known here"
    monkeypatch.setattr(runtime, "writable_data_root", lambda: tmp_path)
    train = datasets.load("15-scene", size=64)
    test = datasets.load("15-scene", "test", size=64)
    assert train.images.shape == (1500, 1, 64, 64)
    assert test.images.shape == (2985, 1, 64, 64)
    assert torch.bincount(train.labels).tolist() == [100] * 15
    assert torch.bincount(test.labels)[:3].tolist() == [116, 260, 228]
    # The whole picture, resized another way: with Pillow's own antialiased bilinear filter.
    path = sorted((root / "15-Scene/test/Coast").glob("*.jpg"))[7]
    with Image.open(path) as picture:
        expected = old_transforms.pil_to_tensor(picture.resize((64, 64), Image.Resampling.BILINEAR))
    assert (test.images[116 + 7].int() - expected.int()).abs().max() <= 2
