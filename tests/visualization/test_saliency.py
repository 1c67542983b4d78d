"""Saliency maps against hand-made networks, finite differences, plain autograd and Captum."""

import functools

import pytest
import torch
from captum import attr
from captum.attr._core import noise_tunnel
from torch import nn

from dlapps import runtime
from dlapps.models import pretrained
from dlapps.models.gradients import score_gradients
from dlapps.visualization import saliency


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
    images = random_images(2, size=64, dtype=torch.float32).to(network.mean)
    maps = saliency.gradient(network, images, [5, 900])
    assert maps.shape == (2, 64, 64) and maps.min() >= 0 and maps.amax((1, 2)).min() > 0
    for n, label in enumerate([5, 900]):
        image = ((images[n : n + 1] - network.mean) / network.std).requires_grad_()
        network.body(image)[0, label].backward()
        expected = (image.grad / network.std)[0].abs().amax(0)  # the chain rule, by hand
        torch.testing.assert_close(maps[n], expected, rtol=1e-3, atol=1e-4)
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


# Captum's answers for the same images


@functools.cache
def real():
    """Return a network with ImageNet's weights, two images and two labels for it.

    In double precision: rounding differs from CPU to CPU, and ReLU6 has kinks that enlarge it.
    """
    network = pretrained.load("efficientnet_lite0").double()
    images = random_images(2, 96).to(network.mean)
    with torch.no_grad():
        return network, images, network(images).argmax(1)


def relative_error(maps, reference):
    return ((maps - reference).abs().amax((1, 2)) / reference.abs().amax((1, 2))).max().item()


def test_gradient_is_captums():
    network, images, labels = real()
    reference = attr.Saliency(network).attribute(images.clone().requires_grad_(), labels)
    maps = saliency.gradient(network, images, labels)
    assert relative_error(maps, reference.amax(1)) < 1e-4


def test_smooth_gradient_is_captums(monkeypatch):
    network, images, labels = real()
    generator = torch.Generator().manual_seed(3)
    noise = [0.1 * torch.randn(1, 3, 96, 96, generator=generator) for _ in range(4)]
    copies = torch.cat([(images[i] + n.to(images)).clamp(0, 1) for i in range(2) for n in noise])

    def same_noise(mean, std):  # what is added to the images, each repeated four times
        return copies - images.repeat_interleave(4, 0)

    monkeypatch.setattr(noise_tunnel.torch, "normal", same_noise)
    tunnel = attr.NoiseTunnel(attr.Saliency(network))
    reference = tunnel.attribute(
        images.clone().requires_grad_(), "smoothgrad", 4, target=labels, abs=False
    )
    maps = saliency.smooth_gradient(network, images, labels, noise=0.1, samples=4, seed=3)
    assert relative_error(maps, reference.abs().amax(1)) < 1e-4


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_are_captums(baseline):
    network, images, labels = real()
    method = attr.IntegratedGradients(network)
    reference = method.attribute(
        images.clone(), torch.full_like(images, baseline), labels, n_steps=10
    )
    maps = saliency.integrated_gradients(network, images, labels, baseline, steps=10)
    assert relative_error(maps, reference.sum(1)) < 1e-4


def test_grad_cam_is_captums():
    network, images, labels = real()
    method = attr.LayerGradCam(network, network.module_of("block16"))
    found = method.attribute(images.clone().requires_grad_(), labels, relu_attributions=True)
    reference = attr.LayerAttribution.interpolate(found, (96, 96), "bilinear")[:, 0]
    maps = saliency.grad_cam(network, images, labels, "block16")
    assert relative_error(maps, reference) < 1e-4


# What the methods promise


METHODS = [saliency.gradient, saliency.smooth_gradient, saliency.integrated_gradients]


def test_integrated_gradients_are_complete():
    network, images = smooth_network(), random_images(3)
    labels = torch.tensor([0, 2, 3])
    dark = torch.full_like(images, 0.25)
    maps = saliency.integrated_gradients(network, images, labels, baseline=0.25, steps=30)
    with torch.no_grad():
        difference = (network(images) - network(dark)).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(maps.sum((1, 2)), difference, rtol=1e-6, atol=1e-8)


def test_smooth_gradient_of_a_linear_network_is_its_gradient():
    network = Linear(torch.randn(2, 3, 4, 4, dtype=torch.double))
    images = random_images(2, size=4)
    expected = saliency.gradient(network, images, [0, 1])
    torch.testing.assert_close(saliency.smooth_gradient(network, images, [0, 1]), expected)


def test_smooth_gradient_has_a_seed():
    network, images = smooth_network(), random_images(2)
    first, again, other = (
        saliency.smooth_gradient(network, images, [0, 1], samples=3, seed=s) for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


class Regions(nn.Module):
    """Two feature maps, the left and the right half of the red channel; a score for each."""

    layers = ("halves", "scores")

    def activations(self, images, layers):
        red = images[:, :1]
        mask = torch.zeros(2, *red.shape[2:], dtype=red.dtype)
        mask[0, :, : red.shape[3] // 2] = mask[1, :, red.shape[3] // 2 :] = 1
        maps = red * mask
        return {"halves": maps, "scores": maps.mean((2, 3))}

    def forward(self, images):
        return self.activations(images, self.layers)["scores"]


def test_grad_cam_is_the_map_that_raises_the_score():
    images = random_images(2, size=4)
    maps = saliency.grad_cam(Regions(), images, [0, 1])
    expected = images[:, 0] / 16  # d mean / d pixel; the resizing changes nothing here
    expected[0, :, 2:] = expected[1, :, :2] = 0
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("squeezenet1_1", "fire9"), ("vgg16", "relu5"), ("alexnet", "relu5"),
        ("resnet50", "layer4"), ("efficientnet_lite1", "head"),
    ],
)  # fmt: skip
def test_grad_cam_of_every_architecture(name, layer):
    torch.manual_seed(0)
    network = pretrained.build(name).requires_grad_(False)
    images = random_images(2, 224 if name in ("vgg16", "alexnet") else 96, torch.float32)
    assert saliency.map_layers(network, images)[-1] == layer
    maps = saliency.grad_cam(network, images, [3, 999])
    assert maps.shape == (2, *images.shape[2:]) and maps.min() >= 0 and maps.isfinite().all()
    torch.testing.assert_close(maps, saliency.grad_cam(network, images, [3, 999], layer))


def test_grad_cam_takes_the_last_layer_with_space():
    network, images, labels = real()
    default = saliency.grad_cam(network, images, labels)
    torch.testing.assert_close(default, saliency.grad_cam(network, images, labels, "head"))
    assert default.min() >= 0 and default.amax((1, 2)).min() > 0
    with pytest.raises(ValueError, match="layer is 'logits', expected one whose output has height"):
        saliency.grad_cam(network, images, labels, "logits")
    with pytest.raises(ValueError, match="layer is 'block99', expected one of conv1"):
        saliency.grad_cam(network, images, labels, "block99")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (saliency.gradient, {}), (saliency.smooth_gradient, {"samples": 3}),
        (saliency.integrated_gradients, {"steps": 3}), (saliency.grad_cam, {}),
    ],
)  # fmt: skip
def test_every_method_is_batched_and_leaves_no_trace(method, options):
    network, images, labels = real()
    before = images.clone()
    together = method(network, images, labels, **options)
    assert together.shape == (2, 96, 96) and not together.requires_grad
    halves = zip(images.split(1), labels.split(1), strict=True)
    alone = torch.cat([method(network, *half, **options) for half in halves])
    assert relative_error(together, alone) < 1e-6
    assert torch.equal(images, before) and not images.requires_grad and images.grad is None
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())


@pytest.mark.parametrize("method", [*METHODS, saliency.grad_cam])
def test_many_images_are_in_the_networks_memory_a_few_at_a_time(method, monkeypatch):
    network, images, labels = real()
    images, labels = images.repeat(3, 1, 1, 1)[:5], labels.repeat(3)[:5]
    sizes = []
    handle = network.body.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    maps = {}
    for count in (8, 2):
        monkeypatch.setattr(runtime, "images_at_once", lambda device, count=count: count)
        maps[count] = method(network, images, labels)
    handle.remove()
    whole = sizes.index(2)
    assert max(sizes[:whole]) == 5 and max(sizes[whole:]) == 2
    assert relative_error(maps[2], maps[8]) < 1e-6


@pytest.mark.parametrize("method", [*METHODS, saliency.grad_cam])
def test_images_of_another_type_are_explained(method):
    network = pretrained.load("efficientnet_lite0")
    images, labels = random_images(2, 96).to(network.mean.device), [5, 900]
    found = method(network, images, labels)
    assert relative_error(found, method(network, images.float(), labels)) < 0.05


@pytest.mark.parametrize("method", [saliency.smooth_gradient, saliency.integrated_gradients])
def test_images_and_labels_are_checked_once(method, monkeypatch):
    network, images, labels = real()
    calls = []
    for name in ("check_images", "check_labels"):
        check = getattr(saliency, name)
        monkeypatch.setattr(
            saliency, name, lambda *a, check=check, name=name: calls.append(name) or check(*a)
        )
    method(network, images, labels)
    assert calls == ["check_images", "check_labels"]


@pytest.mark.parametrize("method", [*METHODS, saliency.grad_cam])
def test_every_method_refuses_the_same(method):
    network, images, labels = real()
    for given, error in [
        (images * 2, ValueError), (images * torch.nan, ValueError), (images[:, :1], ValueError),
        (images[:0], ValueError), (images[0], ValueError), ((images * 255).byte(), TypeError),
    ]:  # fmt: skip
        with pytest.raises(error, match="images"):
            method(network, given, labels)
    for given, error in [([5, 1000], ValueError), ([5], ValueError), ([0.5, 1.5], TypeError)]:
        with pytest.raises(error, match="labels"):
            method(network, images, given)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (saliency.smooth_gradient, {"noise": 0}, "noise is 0, expected a standard deviation above"),
        (saliency.smooth_gradient, {"noise": float("nan")}, "noise is nan"),
        (saliency.smooth_gradient, {"samples": 0}, "samples is 0, expected at least 1"),
        (saliency.integrated_gradients, {"steps": 0}, "steps is 0, expected at least 1"),
        (saliency.integrated_gradients, {"baseline": 1.5}, "baseline has values outside"),
        (saliency.integrated_gradients, {"baseline": torch.zeros(6, 6)}, "baseline has shape"),
    ],
)
def test_options_that_are_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(smooth_network(), random_images(2), [0, 1], **options)
