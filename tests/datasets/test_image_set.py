"""The form in which every data set is handed out, and what `load` refuses."""

import pytest
import torch

from dlapps import datasets
from dlapps.datasets import ImageSet
from dlapps.datasets.image_set import resize


def image_set(count=6):
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 5)
    return ImageSet(images, torch.arange(count) % 2, ("even", "odd"), "Numbers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(6, 3, 4, 5)}, "torch.float32"),
        ({"images": torch.zeros(6, 4, 5, dtype=torch.uint8)}, r"\(6, 4, 5\)"),
        ({"images": torch.zeros(6, 2, 4, 5, dtype=torch.uint8)}, r"\(6, 2, 4, 5\)"),
        ({"labels": torch.zeros(6)}, "torch.float32"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"\(5,\)"),
        ({"labels": torch.full((6,), 2)}, "2 classes"),
        ({"labels": torch.full((6,), -1)}, "-1"),
    ],
)
def test_another_form_is_refused(change, message):
    right = image_set()
    arguments = {name: getattr(right, name) for name in ("images", "labels", "classes", "name")}
    with pytest.raises(ValueError, match=message):
        ImageSet(**(arguments | change))


@pytest.mark.parametrize(
    "indices", [[4, 1], torch.tensor([4, 1]), torch.tensor([4, 1], dtype=torch.int32)]
)
def test_subset_takes_the_images_at_the_indices(indices):
    part = image_set().subset(indices)
    assert part.images[:, 0, 0, 0].tolist() == [4, 1]
    assert part.labels.tolist() == [0, 1]
    assert part.name == "Numbers (2 of 6)"


def test_subset_takes_a_mask_and_keeps_the_name_of_a_whole_set():
    numbers = image_set()
    assert numbers.subset(numbers.labels == 1).images[:, 0, 0, 0].tolist() == [1, 3, 5]
    assert numbers.subset([5, 4, 3, 2, 1, 0]).name == "Numbers"
    assert len(numbers.subset([])) == 0
    with pytest.raises(IndexError):
        numbers.subset([6])


def test_resize_averages_when_it_reduces():
    image = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    image[..., ::2] = 200  # stripes of one pixel: without antialiasing, all of them or none
    small = resize(image, 16)
    assert small.dtype == torch.uint8
    assert small.shape == (1, 1, 16, 16)
    assert (small.int() - 100).abs().max() < 10
    assert resize(image, 64) is image
    assert resize(image, None) is image


@pytest.mark.parametrize("name", ["imagenet", "", None, ["mnist"], "Mnist"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"mnist-m-5000.*folder:PATH") as caught:
        datasets.load(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", [*datasets.NAMES, "folder:."])
def test_an_unknown_split_or_size_is_refused_before_anything_is_read(name):
    with pytest.raises(ValueError, match="split is 'validation', expected 'train' or 'test'"):
        datasets.load(name, "validation")
    for size in (0, -3, 5000, 32.0, "32", True):
        with pytest.raises(ValueError, match="size is"):
            datasets.load(name, size=size)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        datasets.load("mnist-5000", colour=True)
