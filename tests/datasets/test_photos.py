"""The packaged photographs and the patches of them: no network, no shared pixel."""

import socket

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from dlapps import datasets
from dlapps.datasets import photo_patches, photos


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("pooch.Pooch.fetch", refuse)


@pytest.mark.parametrize("name", photos.PHOTOGRAPHS)
def test_every_photograph_is_real_and_carried_by_its_package(name):
    photograph = photos.photograph_named(name)
    assert photograph.dtype == torch.uint8
    assert photograph.shape[0] in (1, 3)
    assert min(photograph.shape[1:]) > 150
    assert photograph.float().std() > 10


def test_an_unknown_photograph_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'dog'.*astronaut"):
        photos.photograph_named("dog")


@pytest.mark.parametrize("name", photo_patches.CLASSES)
def test_training_and_test_patches_share_no_pixel_and_keep_a_gap(name):
    height, width = photos.photograph_named(name).shape[1:]
    covered = {}
    for split in ("train", "test"):
        covered[split] = np.zeros((height, width), dtype=bool)
        boxes = photo_patches.patch_boxes(height, width, split)
        assert len(set(boxes)) == 20
        for top, left, side in boxes:
            assert side >= 96
            patch = covered[split][top : top + side, left : left + side]
            assert patch.shape == (side, side)  # inside the photograph
            patch[:] = True
    assert not (covered["train"] & covered["test"]).any()
    last = np.flatnonzero(covered["train"].any(0)).max()
    first = np.flatnonzero(covered["test"].any(0)).min()
    assert first - last > photo_patches.GAP


def test_the_patches_are_what_their_boxes_say():
    side = 106  # of "china", 427 pixels high: native size, so nothing is resized
    train = datasets.load("photo-patches", size=side)
    assert train.images.shape == (300, 1, side, side)
    china = load_sample_image("china.jpg").astype(float)
    grey = china @ [0.299, 0.587, 0.114]
    label = train.classes.index("china")
    first = train.images[train.labels == label][0, 0]
    assert np.abs(first.numpy() - grey[:side, :side]).max() <= 1
    last = datasets.load("photo-patches", "test", size=side).images[20 * label + 19, 0]
    assert np.abs(last.numpy() - grey[-side:, -side:]).max() <= 1


def test_the_patches_are_balanced_named_and_the_same_every_time():
    train, test = datasets.load("photo-patches"), datasets.load("photo-patches", "test")
    for patches in (train, test):
        assert patches.images.shape == (300, 1, 128, 128)
        assert torch.bincount(patches.labels).tolist() == [20] * 15
        assert len(set(patches.classes)) == 15
        assert "quick stand-in for 15-Scene" in patches.name
    assert "training" in train.name
    assert torch.equal(datasets.load("photo-patches").images, train.images)


def test_the_patches_are_a_task_that_pixels_alone_do_not_solve():
    train, test = (datasets.load("photo-patches", s, size=16) for s in ("train", "test"))
    distances = torch.cdist(test.images.flatten(1).float(), train.images.flatten(1).float())
    accuracy = (train.labels[distances.argmin(1)] == test.labels).float().mean()
    assert 1 / 15 < accuracy < 0.8


def test_a_photograph_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="height and width are 100 and 190"):
        photo_patches.patch_boxes(100, 190, "train")
    with pytest.raises(ValueError, match="height and width are 90 and 400"):
        photo_patches.patch_boxes(90, 400, "train")


def test_the_photographs_with_a_class_of_imagenet():
    shown = datasets.load("photos")
    assert shown.images.shape == (7, 3, 224, 224)
    assert len(shown.classes) == 1000
    # Indices of ImageNet's list, as published with it.
    assert shown.labels.tolist() == [281, 967, 872, 665, 698, 657, 812]
    assert shown.classes[281] == "tabby"
    assert datasets.load("photos", size=64).images.shape == (7, 3, 64, 64)
    # The middle of the centre square is the middle of the photograph.
    china = load_sample_image("china.jpg")
    square = china[:, (640 - 427) // 2 :][:, :427]
    block = square.reshape(7, 61, 7, 61, 3).mean((1, 3))
    reduced = datasets.load("photos", size=7).images[4].permute(1, 2, 0).float().numpy()
    assert np.corrcoef(block.ravel(), reduced.ravel())[0, 1] > 0.99
