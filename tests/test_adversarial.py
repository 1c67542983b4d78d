"""Fooling images: networks for which the number of steps is known in closed form."""

import math

import pytest
import torch
from torch import nn

from dlapps import adversarial
from dlapps.models import pretrained


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


@pytest.mark.parametrize("distance", [0.01, 0.124, 0.126, 0.31])
def test_steps_are_the_distance_divided_by_the_step(distance):
    images, step = torch.full((1, 3, 4, 4), 0.5).double(), 0.025
    result = adversarial.fool(plane(distance), images, [1], step=step)
    expected = math.ceil(distance / step)
    assert result.steps.tolist() == [expected] and result.success.tolist() == [True]
    moved = (result.images - images).norm().item()
    assert moved == pytest.approx(expected * step)  # along the plane's normal, nothing clipped
    assert result.confidences.shape == (expected + 1, 1, 2)


def test_confidences_are_those_of_the_first_and_the_target_class():
    network, images = small_network(), random_images(4)
    targets = other_classes(network, images)
    with torch.no_grad():
        first = network(images).softmax(1)
        result = adversarial.fool(network, images, targets, step=0.05)
        last = network(result.images).softmax(1)
    index = torch.stack((first.argmax(1), targets), 1)
    torch.testing.assert_close(result.confidences[0], first.gather(1, index))
    torch.testing.assert_close(result.confidences[-1], last.gather(1, index))
    for n, steps in enumerate(result.steps.tolist()):  # a finished image stays as it is
        rest = result.confidences[steps:, n]
        assert torch.equal(rest, rest[:1].expand_as(rest))


def test_success_means_predicted_within_the_range_of_images():
    network, images = small_network(), random_images(8).round()  # pixels at both ends
    targets = other_classes(network, images, offset=2)
    result = adversarial.fool(network, images, targets, step=0.5, max_steps=200)
    with torch.no_grad():
        assert torch.equal(network(result.images).argmax(1) == targets, result.success)
    assert result.success.any()
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_an_image_does_not_depend_on_the_batch():
    network, images = small_network(), random_images(6)
    targets = other_classes(network, images)
    together = adversarial.fool(network, images, targets, step=0.03)
    assert len(set(together.steps.tolist())) > 1  # they stop at different times
    for n in range(6):
        alone = adversarial.fool(network, images[n : n + 1], targets[n : n + 1], step=0.03)
        assert alone.steps[0] == together.steps[n]
        torch.testing.assert_close(alone.images[0], together.images[n])


def test_gives_up_after_max_steps():
    images = torch.full((1, 3, 4, 4), 0.5).double()
    result = adversarial.fool(plane(0.3), images, [1], step=0.1, max_steps=2)
    assert result.steps.tolist() == [2] and result.success.tolist() == [False]
    assert result.confidences.shape == (3, 1, 2)
    assert (result.images - images).norm().item() == pytest.approx(0.2)


def test_without_a_gradient_the_image_stays():
    network = HalfSpaces(torch.zeros(3, 4, 4).double(), 1.0)
    images = torch.full((1, 3, 4, 4), 0.5).double()
    result = adversarial.fool(network, images, [1], max_steps=3)
    assert not result.success.any() and torch.equal(result.images, images)


def test_nothing_is_left_changed_and_any_layout_is_taken():
    network, images = small_network(), random_images(3)
    targets = other_classes(network, images)
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    before, state = strided.clone(), {k: v.clone() for k, v in network.state_dict().items()}
    given = targets.clone()
    result = adversarial.fool(network, strided, targets)
    expected = adversarial.fool(network, images, targets)
    torch.testing.assert_close(result.images, expected.images)
    assert torch.equal(strided, before) and not strided.requires_grad
    assert torch.equal(targets, given)
    assert not network.training and all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())


def test_a_target_that_is_predicted_already_is_refused():
    network, images = small_network(), random_images(3)
    targets = other_classes(network, images)
    targets[1] = other_classes(network, images, offset=0)[1]
    with pytest.raises(ValueError, match=rf"targets\[1\] is {targets[1]}, .* the network predicts"):
        adversarial.fool(network, images, targets)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": [5, 0]}, ValueError, "targets holds 5, expected 0 to 4"),
        ({"targets": [0]}, ValueError, "targets has shape"),
        ({"targets": [0.5, 1.5]}, TypeError, "targets is torch.float32"),
        ({"step": 0}, ValueError, "step is 0"),
        ({"step": -1.0}, ValueError, "step is -1.0"),
        ({"step": math.nan}, ValueError, "step is nan"),
        ({"step": math.inf}, ValueError, "step is inf"),
        ({"max_steps": 0}, ValueError, "max_steps is 0"),
        ({"images": random_images(2) + 0.5}, ValueError, "images has values"),
        ({"images": random_images(2) * torch.nan}, ValueError, "images has values"),
        ({"images": random_images(2)[:0]}, ValueError, "images has shape"),
        ({"images": random_images(2)[:, :1]}, ValueError, "images has shape"),
    ],
)
def test_arguments_that_are_refused(change, error, message):
    network, images = small_network(), random_images(2)
    arguments = {"images": images, "targets": other_classes(network, images)} | change
    with pytest.raises(error, match=message):
        adversarial.fool(network, **arguments)


def test_a_real_network_is_fooled():
    network = pretrained.load("efficientnet_lite0")
    images = random_images(2, size=64).float()
    targets = other_classes(network, images, offset=100)
    result = adversarial.fool(network, images, targets, step=0.5, max_steps=100)
    with torch.no_grad():
        assert torch.equal(network(result.images).argmax(1), targets)
    assert result.success.all()
