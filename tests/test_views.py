"""Random views: each image for itself, in range, and as large as promised."""

import math

import pytest
import torch

from dlapps import runtime, views


def images(count=8, channels=3, side=28):
    torch.manual_seed(1)
    return torch.rand(count, channels, side, side).to(runtime.device())


def drawn(view, images, seed=0, **options):
    torch.manual_seed(seed)
    return view(images, **options)


@pytest.mark.parametrize(
    ("view", "options"),
    [(views.random_affine, {}), (views.random_colours, {}), (views.random_crops, {"size": 28})],
)
def test_views_are_other_images_of_the_same_range(view, options):
    data = images()
    first, again, other = (drawn(view, data, seed, **options) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == data.shape and first.min() >= 0 and first.max() <= 1
    same = drawn(view, data[:1].expand(8, -1, -1, -1), **options)  # each image has its own view
    assert len(same.unique(dim=0)) == 8


def test_an_even_image_stays_even_and_only_colours_change_it():
    even = torch.full((4, 3, 28, 28), 0.4, device=runtime.device())
    torch.testing.assert_close(drawn(views.random_affine, even), even)
    view = drawn(views.random_colours, even)
    assert view.std((2, 3)).max() < 1e-6 and view.mean((2, 3)).std(1).min() > 0.01


def test_a_turn_is_a_turn():
    """A line through the centre: its direction afterwards is the angle that was drawn."""
    line = torch.zeros(200, 1, 41, 41, device=runtime.device())
    line[:, :, 20, 5:36] = 1
    view = drawn(views.random_affine, line, degrees=20.0, scales=(1.0, 1.0), shift=0.0)
    y, x = (
        (torch.arange(41.0, device=line.device) - 20).view(-1, 1),
        torch.arange(41.0, device=line.device) - 20,
    )
    angles = torch.atan2((view * x * y).sum((1, 2, 3)), (view * x**2).sum((1, 2, 3)))
    degrees = angles.rad2deg()
    assert degrees.abs().max() <= 20.5
    assert degrees.min() < -17 and degrees.max() > 17
    assert degrees.std().item() == pytest.approx(20 / math.sqrt(3), rel=0.15)  # uniform


def test_windows_are_of_half_the_image_at_least_and_of_both_directions():
    ramp = torch.arange(100.0, device=runtime.device()) / 100  # grows to the right
    view = drawn(views.random_crops, ramp.expand(400, 1, 100, 100), size=32)
    assert view.shape == (400, 1, 32, 32)
    widths = 100 * (view[:, 0, 16, -1] - view[:, 0, 16, 0]) * 32 / 31
    assert 150 < (widths > 0).sum() < 250
    # At least half the area, in a shape of 3:4 or wider.
    assert widths.abs().min() >= 100 * math.sqrt(0.5 * 3 / 4) - 1 and widths.abs().max() > 95
    assert view.std(2).max() < 1e-5  # upright: columns stay columns
