"""A patch: where it is put, that it learns, and how it is counted."""

import math

import pytest
import torch
from torch import nn

from dlapps.visualization import patch


class Red(nn.Module):
    """Two classes; the second is seen where red exceeds green by a tenth on average."""

    def forward(self, images):
        score = (images[:, 0] - images[:, 1]).mean((1, 2)) - 0.1
        return torch.stack((torch.zeros_like(score), score), 1)


def test_a_patch_lies_where_it_was_put():
    images, white = torch.zeros(2, 3, 40, 40), torch.ones(3, 8, 8)
    scales, angles = torch.tensor([0.5, 0.25]), torch.tensor([0.0, 1.0])
    centres = torch.tensor([[0.0, 0.0], [0.5, -0.5]])
    placed = patch.place(images, white, scales, angles, centres)
    areas = placed[:, 0].sum((1, 2))
    expected = math.pi / 4 * (40 * scales) ** 2  # of a disc of that diameter
    torch.testing.assert_close(areas, expected, rtol=0.05, atol=0)
    rows, columns = (
        (placed[1, 0].sum(axis) * torch.arange(40)).sum() / areas[1] for axis in (1, 0)
    )
    assert rows == pytest.approx(9.5, abs=0.3) and columns == pytest.approx(29.5, abs=0.3)


def test_a_rotation_turns_the_patch():
    half = torch.zeros(3, 16, 16)
    half[:, :, 8:] = 1  # bright on the right
    one, none = torch.tensor([1.0]), torch.zeros(1, 2)
    upright = patch.place(torch.zeros(1, 3, 32, 32), half, one, torch.zeros(1), none)
    turned = patch.place(torch.zeros(1, 3, 32, 32), half, one, torch.tensor([math.pi]), none)
    assert upright[..., 16:].sum() > 20 * upright[..., :16].sum()
    torch.testing.assert_close(turned, upright.flip(3).flip(2), rtol=0, atol=1e-5)


def test_views_keep_the_patch_inside():
    scales, angles, centres = patch.random_views(500, torch.Generator().manual_seed(0))
    low, high = patch.SCALES
    assert low <= scales.min() and scales.max() <= high
    assert angles.abs().max() <= math.radians(patch.DEGREES)
    assert (centres.abs() + scales[:, None] <= 1 + 1e-6).all()


def test_a_trained_patch_is_what_the_network_looks_for():
    network, images = Red(), torch.full((3, 3, 24, 24), 0.5)
    found = patch.train(network, images, 1, side=8, steps=60, batch_size=4, learning_rate=0.3)
    assert found[0].mean() > 0.9 and found[1].mean() < 0.1  # red and no green
    torch.testing.assert_close(found[2], torch.full_like(found[2], 0.5))  # blue does not matter
    noise, small = patch.controls(images[0], side=8).values()
    assert noise.shape == small.shape == found.shape
    torch.testing.assert_close(small, images[0, :, :8, :8])
    views = (torch.tensor([0.5]), torch.zeros(1), torch.zeros(1, 2))
    covered = patch.place(images[:1], found, *views)
    expected = float((covered[:, 0] - covered[:, 1]).mean() > 0.1)
    assert expected == 1
    shares, shown = patch.hits(network, images, found, 1, views=5)
    assert shares.shape == (3,) and shown.shape == images.shape and shares.mean() > 0.2
    assert patch.hits(network, images, noise, 1, views=5)[0].max() == 0


def test_what_is_refused():
    images = torch.full((1, 3, 8, 8), 0.5)
    with pytest.raises(ValueError, match="target holds 2, expected 0 to 1"):
        patch.train(Red(), images, 2, steps=1)
    with pytest.raises(ValueError, match="steps is 0"):
        patch.train(Red(), images, 1, steps=0)
    with pytest.raises(ValueError, match="images has values"):
        patch.train(Red(), images + 1, 1, steps=1)
