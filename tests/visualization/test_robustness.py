"""Training on the worst images near the given ones."""

import pytest
import torch
from attack_networks import GREY, linf_distance, plane
from torch import nn

from dlapps import runtime
from dlapps.visualization import robustness


def test_the_worst_image_is_the_corner_of_the_ball():
    network, x, y = plane(0.2), GREY.clone(), torch.tensor([0])
    found = robustness.worst(network, x, y, 0.1, 10)
    torch.testing.assert_close(found, x + 0.1 * network.w.sign()[None])
    clipped = robustness.worst(network, torch.ones_like(x), y, 0.1, 3)
    assert clipped.max() <= 1 and clipped.min() >= 0.9 - 1e-12


class Two(nn.Module):
    """A linear classifier of images (N, 3, 4, 4)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 2)

    def forward(self, images):
        return self.layer(images.flatten(1))


def digits(count=400, seed=0):
    """Return images of two classes: one value tells them by far, 47 by little and together more."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    sign = (2 * labels - 1).view(-1, 1, 1, 1)
    images = 127 + 12 * sign + torch.randint(-20, 21, (count, 3, 4, 4), generator=generator)
    images[:, 0, 0, 0] = 127 + 100 * sign[:, 0, 0, 0]
    return images.byte(), labels


def test_who_trains_on_the_worst_withstands_it(tmp_path):
    images, labels = digits()
    networks = robustness.trained_networks(
        Two,
        images,
        labels,
        {"plain": 0.0, "hardened": 0.15},
        [0],
        tmp_path / "digits.pt",
        epochs=150,
        batch_size=40,
    )
    x = (images / 255).to(runtime.device())
    sizes = 0, 0.15
    plain, hardened = (
        robustness.accuracy_under_attack(networks[name][0], x, labels, sizes, steps=10)
        for name in ("plain", "hardened")
    )
    assert plain[0] == hardened[0] == 1
    assert plain[1] < 0.5 and hardened[1] > 0.9  # 12 of 255 is less than 0.15, 100 is more
    assert not networks["plain"][0].training


def test_accuracy_falls_where_the_plane_is_crossed():
    network = plane(0.2)
    distance = linf_distance(network, GREY)
    sizes = [0, 0.98 * distance, 1.02 * distance]
    assert robustness.accuracy_under_attack(network, GREY, torch.tensor([0]), sizes) == [1, 1, 0]


def test_what_is_refused():
    images, labels = digits(20)
    with pytest.raises(ValueError, match="expected as many of both, and at least 64"):
        robustness.train(Two(), images, labels)
    with pytest.raises(ValueError, match="epochs is 0"):
        robustness.train(Two(), images, labels, epochs=0, batch_size=10)
    assert robustness.in_colour(images[:, :1]).shape == images.shape
