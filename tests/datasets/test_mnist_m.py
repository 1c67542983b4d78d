"""MNIST-M against a plain loop over pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dlapps import datasets, runtime
from dlapps.datasets import DatasetError, bsds500, build_mnist_m, folders, load_photographs


def random_images(generator, *shape):
    return torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def photographs():
    generator = np.random.default_rng(1)
    return [random_images(generator, 3, h, w) for h, w in ((30, 50), (28, 28), (61, 35))]


@pytest.fixture
def digits():
    return random_images(np.random.default_rng(2), 40, 1, 28, 28)


@pytest.mark.parametrize("binarised", [False, True])
@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (3, 1)])
def test_every_pixel_is_the_difference_of_patch_and_digit(
    digits, photographs, seed, stream, binarised
):
    built = build_mnist_m(digits, photographs, seed, stream, binarised)
    draws = np.random.Generator(np.random.Philox(key=[seed, stream])).random((40, 3)).tolist()
    for digit, (first, second, third), image in zip(digits, draws, built, strict=True):
        photograph = photographs[int(first * 3)]
        top = int(second * (photograph.shape[1] - 27))
        left = int(third * (photograph.shape[2] - 27))
        for row in range(0, 28, 3):
            for column in range(28):
                value = int(digit[0, row, column])
                if binarised:
                    value = 255 if value > 127 else 0
                for channel in range(3):
                    background = int(photograph[channel, top + row, left + column])
                    assert int(image[channel, row, column]) == abs(background - value)


def test_every_position_of_a_patch_can_be_drawn():
    photograph = torch.arange(12 * 9, dtype=torch.uint8).view(1, 12, 9).expand(3, -1, -1)
    black = torch.zeros(2000, 1, 10, 8, dtype=torch.uint8)
    corners = build_mnist_m(black, [photograph.contiguous()])[:, 0, 0, 0]
    assert sorted(set(corners.tolist())) == [0, 1, 9, 10, 18, 19]


def test_an_image_does_not_depend_on_how_many_are_built(digits, photographs):
    whole = build_mnist_m(digits, photographs)
    assert torch.equal(build_mnist_m(digits[:5], photographs), whole[:5])
    assert torch.equal(build_mnist_m(digits, photographs), whole)
    assert not torch.equal(build_mnist_m(digits, photographs, seed=1), whole)
    assert not torch.equal(build_mnist_m(digits, photographs, stream=1), whole)


def test_no_global_random_state_is_used(digits, photographs):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_mnist_m(digits, photographs)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digits": torch.zeros(4, 1, 28, 28)}, "digits are torch.float32"),
        ({"digits": torch.zeros(4, 3, 28, 28, dtype=torch.uint8)}, r"\(4, 3, 28, 28\)"),
        ({"photographs": []}, "photographs is empty"),
        ({"photographs": [torch.zeros(3, 27, 40, dtype=torch.uint8)]}, r"photographs\[0\]"),
        ({"photographs": [torch.zeros(1, 40, 40, dtype=torch.uint8)]}, r"\(1, 40, 40\)"),
        ({"photographs": [torch.zeros(3, 40, 40)]}, "torch.float32"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"stream": 2**64}, "stream is"),
    ],
)
def test_arguments_of_another_form_are_named(digits, photographs, change, message):
    with pytest.raises(ValueError, match=message):
        build_mnist_m(**({"digits": digits, "photographs": photographs} | change))


def test_no_digits_give_no_images(photographs):
    assert build_mnist_m(torch.zeros(0, 1, 28, 28, dtype=torch.uint8), photographs).shape == (
        (0, 3, 28, 28)
    )


def test_the_packaged_photographs_are_disjoint_and_coloured():
    train, test = (load_photographs("packaged", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (7, 3)
    bytes_of = [{p.numpy().tobytes() for p in photographs} for photographs in (train, test)]
    assert len(bytes_of[0] | bytes_of[1]) == 10
    for photograph in train + test:
        assert photograph.dtype == torch.uint8
        assert photograph.shape[0] == 3
        assert 28 < max(photograph.shape[1:]) <= 481
        assert not torch.equal(photograph[0], photograph[2])


def test_another_source_or_split_is_refused():
    with pytest.raises(ValueError, match="source is 'flickr', expected 'bsds500' or 'packaged'"):
        load_photographs("flickr", "train")
    with pytest.raises(ValueError, match="split is 'val'"):
        load_photographs("packaged", "val")


def test_the_small_mnist_m_lies_on_those_photographs():
    digits = datasets.load("mnist-5000", "test")
    small = datasets.load("mnist-m-5000", "test")
    assert small.images.shape == (1000, 3, 28, 28)
    assert torch.equal(small.labels, digits.labels)
    expected = build_mnist_m(digits.images, load_photographs("packaged", "test"), 0, 1)
    assert torch.equal(small.images, expected)
    assert "5,000" in small.name
    assert "photographs" in small.name
    binarised = datasets.load("mnist-m-5000", "test", size=32, binarised=True)
    assert binarised.images.shape == (1000, 3, 32, 32)
    assert "binarised" in binarised.name


def test_an_incomplete_bsds500_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    (tmp_path / "BSDS500/images/train").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds 0 photographs, expected 200"):
        load_photographs("bsds500", "train")


def test_the_real_photographs(monkeypatch, tmp_path, capsys):
    root = Path(os.environ.get("DLAPPS_DATA", "data"))
    if not (root / "BSDS500").exists() or not (root / "MNIST").exists():
        pytest.skip("no BSDS500 and MNIST in the data folder")
    folders.compare_content(bsds500.training_photographs(), bsds500.SHA256, "BSDS500")
    assert capsys.readouterr().out == "", "these are the photographs known here"
    monkeypatch.setattr(runtime, "writable_data_root", lambda: tmp_path)
    train, test = (load_photographs("bsds500", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (150, 50)
    assert {tuple(sorted(p.shape)) for p in train + test} == {(3, 321, 481)}
    assert not {p.numpy().tobytes() for p in train} & {p.numpy().tobytes() for p in test}
    digits, blended = datasets.load("mnist", "test"), datasets.load("mnist-m", "test")
    assert blended.images.shape == (10_000, 3, 28, 28)
    assert blended.name == "MNIST-M test set"
    # Where the digit is black the photograph shows: image 0's border must occur in one of them.
    assert digits.images[0, 0, 0].max() == 0
    border = blended.images[0, :, 0]  # (3, 28)
    assert any(
        all(border[c].numpy().tobytes() in photograph[c].numpy().tobytes() for c in range(3))
        for photograph in test
    )
