"""Any folder of images, well-formed or not."""

import os

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


def test_classes_are_numbered_over_both_splits(tmp_path):
    for place in ("train/ape", "train/bee", "train/cow", "test/bee", "test/cow", "test/dog"):
        save(tmp_path / "set" / place / "1.png")
    train, test = (datasets.load(f"folder:{tmp_path}/set", split) for split in ("train", "test"))
    assert train.classes == test.classes == ("ape", "bee", "cow", "dog")
    assert train.labels.tolist() == [0, 1, 2]
    assert test.labels.tolist() == [1, 2, 3]


def test_one_split_alone_is_that_split(tmp_path):
    save(tmp_path / "set/train/a/1.png")
    save(tmp_path / "set/val/a/1.png")
    assert datasets.load(f"folder:{tmp_path}/set").classes == ("a",)
    with pytest.raises(DatasetError, match="'train', 'val', but no folder 'test'"):
        datasets.load(f"folder:{tmp_path}/set", "test")
    save(tmp_path / "vehicles/train/1.png")  # beside another class it is one, too
    save(tmp_path / "vehicles/car/1.png")
    assert datasets.load(f"folder:{tmp_path}/vehicles").classes == ("car", "train")


@pytest.mark.parametrize("name", ["thumbnails", "@eaDir", "more"])
def test_images_beside_folders_are_refused(tmp_path, name):
    for number in range(5):
        save(tmp_path / f"set/{number}.png")
    save(tmp_path / "set" / name / "1.png")
    with pytest.raises(DatasetError, match=f"5 images beside the folder '{name}'; expected"):
        datasets.load(f"folder:{tmp_path}/set")


def test_what_file_servers_leave_is_no_class(tmp_path):
    for name in ("a", "b", "@eaDir", "__MACOSX"):
        save(tmp_path / "set" / name / "1.png")
    assert datasets.load(f"folder:{tmp_path}/set").classes == ("a", "b")


@pytest.mark.parametrize("suffix", folders.SUFFIXES)
def test_every_format_is_read(tmp_path, suffix, capsys):
    save(tmp_path / "set" / f"1{suffix.upper()}")
    found = datasets.load(f"folder:{tmp_path}/set")
    assert (found.images[0, :, 5, 5].int() - torch.tensor([200, 100, 50])).abs().max() <= 8
    assert "no images" not in capsys.readouterr().out


def test_what_is_left_out_is_said(tmp_path, capsys):
    save(tmp_path / "set/1.png")
    (tmp_path / "set/2.heic").write_bytes(b"an image of another format")
    (tmp_path / "set/README").write_text("about these images")
    assert len(datasets.load(f"folder:{tmp_path}/set")) == 1
    assert "2 files are no images of a known format (.heic, README)" in capsys.readouterr().out


def test_links_that_lead_nowhere_are_counted_and_named(tmp_path):
    for number in range(6):
        save(tmp_path / f"set/{number}.png")
    for number in (6, 7):
        (tmp_path / f"set/{number}.png").symlink_to(tmp_path / "gone")
    (tmp_path / "set/8.png").symlink_to(tmp_path / "set/0.png")
    with pytest.raises(DatasetError, match=r"2 of 9 images in .*set cannot be used") as caught:
        datasets.load(f"folder:{tmp_path}/set")
    assert "6.png" in str(caught.value) and "7.png" in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    ramp = np.linspace(0, 65_535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    (tmp_path / "set").mkdir()
    Image.fromarray(ramp).save(tmp_path / f"set/1.{suffix}")
    for mode in folders.MODES:
        (image,) = datasets.load(f"folder:{tmp_path}/set", size=64, mode=mode).images
        assert np.abs(image[0].numpy() - ramp / 257).max() <= 0.51


@pytest.mark.parametrize(
    "pixels", [np.full((9, 9), 0.5, np.float32), np.full((9, 9), -1, np.int32)]
)
def test_pixels_that_are_neither_of_8_nor_16_bits_are_refused(tmp_path, pixels):
    (tmp_path / "set").mkdir()
    Image.fromarray(pixels).save(tmp_path / "set/1.tif")
    with pytest.raises(
        DatasetError, match=rf"1\.tif has pixels from .* {pixels.dtype}, expected 8"
    ):
        datasets.load(f"folder:{tmp_path}/set")


def test_the_content_decides_whether_the_cache_holds(tmp_path):
    for name, colour in (("1", (255, 0, 0)), ("2", (0, 0, 255))):
        save(tmp_path / f"set/{name}.bmp", colour)
        os.utime(tmp_path / f"set/{name}.bmp", (1, 1))
    before = datasets.load(f"folder:{tmp_path}/set").images
    one, two = tmp_path / "set/1.bmp", tmp_path / "set/2.bmp"
    assert one.stat().st_size == two.stat().st_size
    one.rename(tmp_path / "x")
    two.rename(one)
    (tmp_path / "x").rename(two)
    assert torch.equal(datasets.load(f"folder:{tmp_path}/set").images, before.flip(0))


def test_long_names_are_names_too(tmp_path):
    folder = tmp_path / ("ä" * 68) / ("ö" * 69)
    save(folder / f"{'ü' * 60}.png")
    assert datasets.load(f"folder:{folder}").classes == ("ö" * 69,)


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
