"""Any folder of images, well-formed or not."""

import numpy as np
import pytest
import torch
from PIL import Image

from dlapps import datasets
from dlapps.datasets import DatasetError, folders


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path / "data"))


def save(path, colour=(200, 100, 50), size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_one_folder_a_class(tmp_path):
    save(tmp_path / "cats/b/2.png", (0, 0, 255))
    save(tmp_path / "cats/b/1.JPEG", (255, 0, 0))
    save(tmp_path / "cats/a/3.jpg", (0, 255, 0))
    (tmp_path / "cats/a/notes.txt").write_text("no image")
    (tmp_path / "cats/a/._3.jpg").write_bytes(b"left by a Mac")
    (tmp_path / "cats/.cache").mkdir()
    found = datasets.load(f"folder:{tmp_path}/cats", size=16)
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.images.shape == (3, 3, 16, 16)
    assert found.images[:, :, 8, 8].argmax(1).tolist() == [1, 0, 2]
    assert "cats" in found.name


def test_a_flat_folder_is_one_class_and_grey_an_option(tmp_path):
    save(tmp_path / "faces/1.png")
    found = datasets.load(f"folder:{tmp_path}/faces", mode="L")
    assert found.classes == ("faces",)
    assert found.images.shape == (1, 1, 32, 32)
    assert abs(int(found.images[0, 0, 5, 5]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1
    with pytest.raises(ValueError, match="mode is 'CMYK', expected 'RGB' or 'L'"):
        datasets.load(f"folder:{tmp_path}/faces", mode="CMYK")


def test_the_centre_square_is_taken(tmp_path):
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255
    (tmp_path / "wide").mkdir()
    Image.fromarray(pixels).save(tmp_path / "wide/1.png")
    assert datasets.load(f"folder:{tmp_path}/wide", size=20).images.min() == 255


def test_train_and_test_folders_are_the_splits(tmp_path):
    save(tmp_path / "set/train/a/1.png")
    save(tmp_path / "set/test/a/2.png")
    save(tmp_path / "set/test/a/3.png")
    assert len(datasets.load(f"folder:{tmp_path}/set")) == 1
    assert len(datasets.load(f"folder:{tmp_path}/set", "test")) == 2
    save(tmp_path / "flat/1.png")
    with pytest.raises(DatasetError, match="no test set"):
        datasets.load(f"folder:{tmp_path}/flat", "test")


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(DatasetError, match="nowhere is no folder"):
        datasets.load(f"folder:{tmp_path}/nowhere")
    (tmp_path / "empty/a").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no image .* of 'a'"):
        datasets.load(f"folder:{tmp_path}/empty")
    (tmp_path / "empty/a").rmdir()
    with pytest.raises(DatasetError, match="no image"):
        datasets.load(f"folder:{tmp_path}/empty")


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[: len(content) // 2]]
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_image_is_named(tmp_path, damage, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / f"1.{suffix}"
    Image.fromarray(pixels).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=rf"1\.{suffix} cannot be read"):
        datasets.load(f"folder:{tmp_path}/set")


def test_damaged_images_among_many_are_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "LISTED", 2)
    for number in range(9):
        path = tmp_path / "set" / f"{number}.jpg"
        save(path, size=(40, 40))
        if number in (3, 4, 7):
            path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"3 of 9 images in .*set cannot be used") as caught:
        datasets.load(f"folder:{tmp_path / 'set'}")
    assert [str(number) for number in range(9) if f"{number}.jpg" in str(caught.value)] == [
        "3",
        "4",
    ]
    assert "and 1 more" in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.pt"))  # nothing that a later run would trust


def test_absurd_dimensions_are_refused_without_decoding(tmp_path, monkeypatch):
    save(tmp_path / "set/bomb.png", size=(200, 200))
    monkeypatch.setattr(folders, "PIXEL_LIMIT", 39_999)
    with pytest.raises(DatasetError, match=r"bomb\.png is 200x200 pixels, expected at most 39,999"):
        datasets.load(f"folder:{tmp_path}/set")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow's own guard comes first
    with pytest.raises(DatasetError, match=r"bomb\.png cannot be read"):
        folders.read_image(tmp_path / "set/bomb.png")


def test_transparent_and_palette_images_are_read(tmp_path):
    (tmp_path / "set").mkdir()
    Image.new("RGBA", (40, 40), (10, 20, 30, 128)).save(tmp_path / "set/1.png")
    Image.new("RGB", (40, 40), (10, 20, 30)).convert("P").save(tmp_path / "set/2.png")
    found = datasets.load(f"folder:{tmp_path}/set")
    assert torch.equal(found.images[0, :, 0, 0], torch.tensor([10, 20, 30], dtype=torch.uint8))
