"""Networks for which an attack's result is known, for the tests of attacks."""

import torch
from torch import nn


class HalfSpaces(nn.Module):
    """Two classes on either side of a plane: scores (0, w . x - b)."""

    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = w, b

    def forward(self, images):
        score = (images * self.w).flatten(1).sum(1) - self.b
        return torch.stack((torch.zeros_like(score), score), dim=1)


def plane(distance, size=4):
    """Return a network whose plane lies `distance` from the even grey image of 0.5."""
    w = torch.randn(3, size, size, generator=torch.Generator().manual_seed(0)).double()
    return HalfSpaces(w, (0.5 * w).sum() + distance * w.norm())


def small_network(seed=0, classes=5):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(96, classes)
    return nn.Sequential(*layers).double().eval()


def random_images(count, size=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator).double()


def other_classes(network, images, offset=1):
    with torch.no_grad():
        scores = network(images)
    return (scores.argmax(1) + offset) % scores.shape[1]


GREY = torch.full((1, 3, 4, 4), 0.5).double()


def linf_distance(network, images):
    """Return the largest change of a value that is needed to reach the plane."""
    score = network(images)[:, 1]
    return (score.abs() / network.w.abs().sum()).item()
