"""Saliency maps against hand-made networks, finite differences and plain autograd."""

import pytest
import torch
from torch import nn

from dlapps import saliency
from dlapps.models import pretrained
from dlapps.models.gradients import score_gradients


class Linear(nn.Module):
    """scores = sum of weights times pixels: the gradient of score k is weights[k], everywhere."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)  # (K, 3, H, W)

    def forward(self, images):
        return torch.einsum("nchw,kchw->nk", images, self.weights)


def smooth_network(seed=0, classes=4):
    """Return a tiny convolutional network in double precision without kinks."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 36, classes)
    return nn.Sequential(*layers).double().eval()


def random_images(count, size=6, dtype=torch.double, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator, dtype=dtype)


def test_linear_network_gives_its_largest_absolute_weight():
    weights = torch.zeros(2, 3, 2, 2)
    weights[1, :, 0, 0] = torch.tensor([1.0, -5.0, 2.0])
    weights[1, :, 1, 1] = torch.tensor([0.5, 0.25, 0.0])
    maps = saliency.gradient(Linear(weights), torch.full((2, 3, 2, 2), 0.5), [1, 0])
    expected = torch.tensor([[[5.0, 0.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(maps, expected)


def test_gradients_agree_with_finite_differences():
    network, images, labels, eps = smooth_network(), random_images(2), [3, 0], 1e-6
    images = images * 0.8 + 0.1  # room for the differences within [0, 1]
    _, gradients = score_gradients(network, images, labels)
    for n, label in enumerate(labels):
        numeric = torch.zeros_like(images[n])
        for index in range(images[n].numel()):
            shift = torch.zeros_like(images[n])
            shift.view(-1)[index] = eps
            with torch.no_grad():
                up, down = network(torch.stack((images[n] + shift, images[n] - shift)))[:, label]
            numeric.view(-1)[index] = (up - down) / (2 * eps)
        torch.testing.assert_close(gradients[n], numeric, rtol=1e-6, atol=1e-8)
    maps = saliency.gradient(network, images, labels)
    torch.testing.assert_close(maps, gradients.abs().max(1).values, rtol=0, atol=0)


def test_a_map_does_not_depend_on_the_batch():
    network, images = smooth_network(), random_images(5)
    labels = torch.tensor([0, 3, 1, 1, 2])
    together = saliency.gradient(network, images, labels)
    for n in range(5):
        image = images[n : n + 1].clone().requires_grad_()
        network(image)[0, labels[n]].backward()
        torch.testing.assert_close(together[n], image.grad[0].abs().amax(0))
        alone = saliency.gradient(network, images[n : n + 1], labels[n : n + 1])
        torch.testing.assert_close(alone[0], together[n])


def test_nothing_is_left_changed():
    network, images = smooth_network(), random_images(2)
    network[0].weight.grad = torch.ones_like(network[0].weight)
    before, state = images.clone(), {k: v.clone() for k, v in network.state_dict().items()}
    with torch.no_grad():  # a caller's setting neither matters nor changes
        scores, gradients = score_gradients(network, images, [0, 1])
        assert not torch.is_grad_enabled()
    assert not scores.requires_grad and not gradients.requires_grad
    assert torch.equal(images, before) and not images.requires_grad and images.grad is None
    assert torch.equal(network[0].weight.grad, torch.ones_like(network[0].weight))
    assert network[3].weight.grad is None
    assert not network.training and all(p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())


def test_images_in_any_memory_layout():
    network, images = smooth_network(), random_images(2)
    expected = saliency.gradient(network, images, [0, 1])
    layouts = (
        images.contiguous(memory_format=torch.channels_last),
        images.transpose(2, 3).contiguous().transpose(2, 3),
        images.repeat(1, 1, 1, 2)[..., :6],
    )
    for layout in layouts:
        torch.testing.assert_close(saliency.gradient(network, layout, [0, 1]), expected)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 4], ValueError, "labels holds 4, expected 0 to 3"),
        ([0, -1], ValueError, "labels holds -1"),
        ([0], ValueError, r"labels has shape \(1,\), expected \(2,\)"),
        ([[0, 1]], ValueError, "labels has shape"),
        ([0.0, 1.0], TypeError, "labels is torch.float32, expected integers"),
        ([True, False], TypeError, "labels is torch.bool"),
    ],
)
def test_labels_that_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        saliency.gradient(smooth_network(), random_images(2), labels)


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (random_images(2) * 2, ValueError),
        (random_images(2) - 1, ValueError),
        (random_images(2) * torch.nan, ValueError),
        (random_images(2)[:, :1], ValueError),
        (random_images(2)[0], ValueError),
        (random_images(2)[:0], ValueError),
        ((random_images(2) * 255).to(torch.uint8), TypeError),
        (random_images(2).numpy(), TypeError),
    ],
    ids=["above 1", "below 0", "NaN", "grey", "no batch", "empty", "uint8", "NumPy"],
)
def test_images_that_are_refused(images, error):
    with pytest.raises(error, match="images"):
        saliency.gradient(smooth_network(), images, [0, 1])


def test_a_real_network_per_image_and_batched():
    network = pretrained.load("efficientnet_lite0")
    images = random_images(2, size=64, dtype=torch.float32)
    maps = saliency.gradient(network, images, [5, 900])
    assert maps.shape == (2, 64, 64) and maps.min() >= 0 and maps.amax((1, 2)).min() > 0
    for n, label in enumerate([5, 900]):
        image = ((images[n : n + 1] - network.mean) / network.std).requires_grad_()
        network.body(image)[0, label].backward()
        expected = (image.grad / network.std)[0].abs().amax(0)  # the chain rule, by hand
        torch.testing.assert_close(maps[n], expected, rtol=1e-3, atol=1e-4)
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
