"""The convolutions of a network whose fully connected layers are not at hand."""

import functools

import pytest
import torch
import torchvision
from torch import nn

from dlapps import runtime
from dlapps.models import architectures, features, pretrained

NAMES = ["vgg16_convolutions", "alexnet_convolutions"]
RELU5 = {"vgg16": 30, "alexnet": 12}  # the modules of `features` up to the last ReLU


@functools.cache
def whole(name):
    """Return torchvision's network with random weights, in eval mode."""
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)


def convolutions_of(name):
    """Return {"features.*": tensor} of `whole`, the form that is known as "without top"."""
    return {k: v for k, v in whole(name).state_dict().items() if k.startswith("features.")}


@pytest.fixture
def vgg16(weights_folder):
    """VGG16's convolutions, with random weights of half precision from a file."""
    state = {k: v.half() for k, v in convolutions_of("vgg16").items()}
    torch.save(state, weights_folder / "vgg16_convolutions.pth")
    return pretrained.load("vgg16_convolutions")


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_convolutions_alone_give_what_the_whole_network_gives(name, weights_folder):
    torch.save(convolutions_of(name), weights_folder / f"{name}_convolutions.pth")
    network = pretrained.load(f"{name}_convolutions")
    assert not any(p.requires_grad for p in network.parameters())
    assert network.mean.device.type == runtime.device().type
    images = torch.rand(2, 3, 96, 96)
    x = (images - network.mean.cpu()) / network.std.cpu()
    found = network.activations(images.to(network.mean), network.layers)
    inner = {"vgg16": ("relu3", "relu4", "relu5"), "alexnet": ("relu5",)}[name]
    assert tuple(found) == ("conv1", *inner) and network.inner_layers == inner
    torch.testing.assert_close(found["conv1"].cpu(), whole(name).features[0](x))
    maps = whole(name).features[: RELU5[name]](x)
    torch.testing.assert_close(found["relu5"].cpu(), maps)
    pixels = (255 * images).to(torch.uint8)
    extracted = features.extract(network, pixels, ["relu5"], sizes=[96], cache=False)["relu5"]
    torch.testing.assert_close(extracted, maps.mean((2, 3)), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_smallest_size_is_the_smallest_that_the_convolutions_take(name):
    with torch.device("meta"):
        network = pretrained.build(name)
        size = network.smallest_size
        found = network.activations(torch.rand(1, 3, size, size), ["relu5"])["relu5"]
        assert found.shape[2:] == (1, 1)
        with pytest.raises(RuntimeError):
            network.body(torch.rand(1, 3, size - 1, size - 1))


def test_half_precision_is_read_as_single(vgg16):
    expected = convolutions_of("vgg16")["features.0.weight"].half().float()
    weight = vgg16.body.features[0].weight.cpu()
    assert weight.dtype == torch.float32 and torch.equal(weight, expected)


def test_what_convolutions_lack_is_said(vgg16):
    images = torch.rand(1, 3, 32, 32).to(vgg16.mean)
    with pytest.raises(pretrained.WeightsUnavailable, match="fully connected layers are missing"):
        vgg16(images)
    for layer in ("relu6", "relu8"):
        message = rf"'{layer}', expected names from conv1, .*relu5: VGG16's fully connected layers"
        with pytest.raises(ValueError, match=message):
            vgg16.features(images, [layer])
    with pytest.raises(ValueError, match="at least 16 pixels for VGG16's convolutions"):
        vgg16.features(images[..., :15], ["relu5"])


def test_convolutions_do_not_stand_for_the_whole_network(vgg16):
    with pytest.raises(pretrained.WeightsUnavailable, match="no network here"):
        pretrained.load("vgg16")
    with pytest.raises(pretrained.WeightsUnavailable, match=r"alexnet_convolutions\.pth"):
        pretrained.load("alexnet_convolutions")


def test_the_whole_network_has_convolutions(weights_folder):
    torch.save(whole("vgg16").state_dict(), weights_folder / "vgg16.pth")
    network = pretrained.load("vgg16_convolutions")
    for key, value in convolutions_of("vgg16").items():
        assert torch.equal(network.body.state_dict()[key].cpu(), value)


@pytest.mark.parametrize("change", ["other network", "missing", "extra", "shape", "list", "text"])
def test_other_weights_are_refused_by_name(change, weights_folder):
    path, state = weights_folder / "vgg16_convolutions.pth", convolutions_of("vgg16")
    if change == "other network":
        state = convolutions_of("alexnet")
    elif change == "missing":
        state.pop("features.28.bias")
    elif change == "extra":
        state["classifier.6.bias"] = torch.zeros(1000)
    elif change == "shape":
        state["features.0.bias"] = torch.zeros(65)
    torch.save([1, 2] if change == "list" else state, path)
    if change == "text":
        path.write_text("no weights")
    with pytest.raises(ValueError, match=r"vgg16_convolutions\.pth"):
        pretrained.load("vgg16_convolutions")


def test_a_head_makes_convolutions_a_classifier(vgg16):
    torch.manual_seed(1)
    head = nn.Linear(512, 3)
    network = pretrained.with_head(vgg16, head, ["coast", "street", "forest"])
    assert network.categories == ("coast", "street", "forest")
    assert network.title == "VGG16's convolutions with a trained head"
    assert network.layers == (*vgg16.layers, "scores")
    assert network.inner_layers == vgg16.inner_layers
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    images = torch.rand(2, 3, 64, 64).to(vgg16.mean)
    scores = network(images)
    expected = head.to(vgg16.mean.device)(vgg16.features(images, ["relu5"])["relu5"])
    torch.testing.assert_close(scores, expected.detach())
    torch.testing.assert_close(network.features(images, ["scores"])["scores"], scores)
    with torch.enable_grad():
        x = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    assert head.weight.requires_grad  # the one that was given stays as it was
    assert vgg16.missing and "scores" not in vgg16.layers
    large = torch.rand(1, 3, 224, 224).to(vgg16.mean)
    torch.testing.assert_close(pretrained.Ensemble([network])(large), network(large))


def test_a_head_that_does_not_fit_is_refused(vgg16):
    with pytest.raises(ValueError, match=r"head does not fit the features of VGG16's convolutions"):
        pretrained.with_head(vgg16, nn.Linear(4096, 3), "abc")
    with pytest.raises(ValueError, match=r"head gives scores \(1, 3\) .* expected \(1, 2\)"):
        pretrained.with_head(vgg16, nn.Linear(512, 3), "ab")
    classifier = pretrained.build("squeezenet1_1")
    with pytest.raises(ValueError, match=r"SqueezeNet 1\.1, expected convolutions without"):
        pretrained.with_head(classifier, nn.Linear(512, 3), "abc")


def test_convolutions_are_none_of_the_classifiers():
    assert set(NAMES) == set(architectures.ARCHITECTURES) - set(pretrained.NAMES)
