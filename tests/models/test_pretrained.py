"""Pretrained networks and their features, against torchvision and the bare modules."""

import copy
import functools
import hashlib
import http.server
import pickle
import threading

import pytest
import torch
import torchvision
from pretend_cuda import pretend_cuda
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.models import architectures, features, pretrained

TORCHVISION = [name for name in pretrained.NAMES if not name.startswith("efficientnet")]


@functools.cache
def build(name):
    """Return a network with random weights, the same for all tests of it."""
    torch.manual_seed(0)
    return pretrained.build(name).requires_grad_(False)


def reference(name):
    """Return torchvision's own module with the weights of `build(name)`, in eval mode."""
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None)
    module.load_state_dict(build(name).body.state_dict(), assign=True)
    return module.eval()


def random_images(count, size=64, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, size, size), generator=generator).to(torch.uint8)


def normalised(network, images):
    return (images - network.mean) / network.std


def hook_count(network):
    return sum(len(module._forward_hooks) for module in network.modules())


# Preprocessing


@pytest.mark.parametrize("name", TORCHVISION)
def test_preprocessing_is_torchvisions(name):
    network = build(name)
    preset = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    image = random_images(1, size=256)  # of this size, the preset only crops the middle
    ours = normalised(network, network.prepare(image[:, :, 16:-16, 16:-16]))
    torch.testing.assert_close(ours, preset(image))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_efficientnet_lite_sees_minus_one_to_one(name):
    network = build(name)
    image = random_images(1, size=network.input_size)
    expected = (image.float() - 127) / 128
    torch.testing.assert_close(normalised(network, network.prepare(image)), expected)


@pytest.mark.parametrize("name", TORCHVISION)
def test_forward_normalises_and_body_does_not(name):
    images = torch.rand(2, 3, 64, 64)
    preset = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    normalise = torchvision.transforms.Normalize(preset.mean, preset.std)
    torch.testing.assert_close(build(name)(images), reference(name)(normalise(images)))


@pytest.mark.parametrize("channels", [1, 3])
def test_prepare_resizes_and_repeats_grey(channels):
    network = build("squeezenet1_1")
    images = torch.randint(256, (2, channels, 50, 80), dtype=torch.uint8)
    prepared = network.prepare(images)
    assert prepared.shape == (2, 3, 224, 224)
    assert prepared.min() >= 0
    assert prepared.max() <= 1
    if channels == 1:
        assert torch.equal(prepared[:, 0], prepared[:, 2])
    assert network.prepare(images, size=96).shape == (2, 3, 96, 96)


def test_another_normalisation_is_a_copys():
    network, images = build("squeezenet1_1"), torch.rand(2, 3, 64, 64)
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    other = network.with_normalisation(mean, std)
    shifted = (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(other(images), network.body(shifted))
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    with pytest.raises(ValueError, match=r"mean is \[0.5\], expected three finite numbers"):
        network.with_normalisation([0.5], std)
    with pytest.raises(ValueError, match=r"std is .*, expected three finite numbers above 0"):
        network.with_normalisation(mean, [1.0, 0.0, 1.0])


def test_categories_are_imagenets():
    categories = build("squeezenet1_1").categories
    assert len(categories) == 1000
    assert (categories[0], categories[281], categories[999]) == ("tench", "tabby", "toilet tissue")


# Features


def test_vgg16_features_are_those_of_the_truncated_network():
    network, module = build("vgg16"), reference("vgg16")
    images = torch.rand(2, 3, 64, 64)
    maps = module.features[:30](normalised(network, images))
    flat = module.avgpool(module.features[30:](maps)).flatten(1)
    expected = {
        "relu5": maps.mean((2, 3)),
        "relu6": module.classifier[:2](flat),
        "relu7": module.classifier[:5](flat),
        "relu8": module.classifier(flat),
    }
    found = network.features(images, list(expected))
    assert [tuple(found[k].shape) for k in expected] == [(2, 512), (2, 4096), (2, 4096), (2, 1000)]
    for layer, values in expected.items():
        torch.testing.assert_close(found[layer], values)


def test_alexnet_features_are_those_of_the_truncated_network():
    network, module = build("alexnet"), reference("alexnet")
    images = torch.rand(2, 3, 96, 96)
    maps = module.features[:12](normalised(network, images))
    flat = module.avgpool(module.features[12:](maps)).flatten(1)
    found = network.features(images, ["relu5", "relu6", "relu7"])
    torch.testing.assert_close(found["relu5"], maps.mean((2, 3)))
    torch.testing.assert_close(found["relu6"], module.classifier[:3](flat))
    torch.testing.assert_close(found["relu7"], module.classifier[:6](flat))


def test_resnet50_features_are_those_of_the_truncated_network():
    network, module = build("resnet50"), reference("resnet50")
    images = torch.rand(1, 3, 64, 64)
    stages = list(module.children())
    maps = torch.nn.Sequential(*stages[:8])(normalised(network, images))
    found = network.features(images, ["layer4", "pool", "logits"])
    torch.testing.assert_close(found["layer4"], maps.mean((2, 3)))
    torch.testing.assert_close(found["pool"], maps.mean((2, 3)))
    torch.testing.assert_close(found["logits"], module.fc(maps.mean((2, 3))))


def test_squeezenet_features_are_those_of_the_truncated_network():
    network, module = build("squeezenet1_1"), reference("squeezenet1_1")
    images = torch.rand(2, 3, 96, 96)
    x = normalised(network, images)
    found = network.activations(images, network.layers)
    torch.testing.assert_close(found["conv1"], module.features[0](x))  # not overwritten by ReLU
    torch.testing.assert_close(found["fire8"], module.features[:12](x))
    torch.testing.assert_close(found["fire9"], module.features(x))
    torch.testing.assert_close(network.features(images, ["logits"])["logits"], module(x))


def test_efficientnet_features_are_its_own():
    network = build("efficientnet_lite0")
    images = torch.rand(2, 3, 96, 96)
    body, x = network.body, normalised(network, images)
    pooled = body.extract_features(x).mean((2, 3))
    block = body._bn0(body._conv_stem(x)).clamp(0, 6)
    for module in body._blocks:
        block = module(block)
    found = network.features(images, ["block16", "head", "logits"])
    torch.testing.assert_close(found["block16"], block.mean((2, 3)))
    torch.testing.assert_close(found["head"], pooled)
    torch.testing.assert_close(found["logits"], body._fc(pooled))


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_every_named_layer_exists(name):
    network = build(name)
    images = torch.rand(1, 3, 64, 64)
    found = network.features(images, network.layers)
    assert list(found) == list(network.layers)
    assert all(values.ndim == 2 for values in found.values())
    assert network.default_layer in network.layers
    torch.testing.assert_close(found[network.layers[-1]], network(images))


def test_hooks_are_removed_also_after_failures():
    network = build("squeezenet1_1")
    network.features(torch.rand(1, 3, 64, 64), ["fire9"])
    with pytest.raises(TypeError, match="expected a float tensor"):
        network.features(random_images(1), ["fire9"])
    with pytest.raises(ValueError, match="expected sides of at least 17"):
        network.features(torch.rand(1, 3, 4, 4), ["fire9"])
    with pytest.raises(ValueError, match="'fire10', expected names from conv1, fire8"):
        network.features(torch.rand(1, 3, 64, 64), ["fire9", "fire10"])
    assert hook_count(network) == 0


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_smallest_size_is_the_smallest_that_the_body_takes(name):
    with torch.device("meta"):  # shapes without numbers
        network = pretrained.build(name)
        size = network.smallest_size
        assert network(torch.rand(1, 3, size, size)).shape == (1, 1000)
        if size > 1:
            with pytest.raises(RuntimeError):
                network.body(torch.rand(1, 3, size - 1, size - 1))
            with pytest.raises(ValueError, match=f"at least {size} pixels for {network.title}"):
                network(torch.rand(1, 3, size - 1, size))


def test_images_of_another_type_are_converted():
    network, images = build("squeezenet1_1"), torch.rand(2, 3, 64, 64)
    expected = network(images)
    torch.testing.assert_close(network(images.double()), expected)
    torch.testing.assert_close(
        network(images.half()), network(images.half().float()), rtol=0, atol=0
    )
    ensemble = pretrained.Ensemble([network, network])
    images = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(ensemble(images.double()), network(images))


MOBILENET = {"normed": "features.0.1", "block": "features.1"}
DENSENET = {"normed": "features.norm0", "maps": "features"}  # followed by F.relu(inplace=True)


@pytest.mark.parametrize(
    ("name", "layers"), [("mobilenet_v3_small", MOBILENET), ("densenet121", DENSENET)]
)
def test_in_place_activations_overwrite_no_layer(name, layers, monkeypatch):
    architecture = architectures._torchvision(name, name, layers, "normed")
    monkeypatch.setitem(architectures.ARCHITECTURES, name, architecture)
    torch.manual_seed(0)
    network = pretrained.build(name).requires_grad_(False)
    images = torch.rand(2, 3, 64, 64)
    body, x = network.body, normalised(network, images)
    if name == "densenet121":
        expected = {"normed": body.features[:2](x), "maps": body.features(x)}
    else:
        stem = nn.Sequential(*[*body.features[0]][:2])
        expected = {"normed": stem(x), "block": body.features[:2](x)}
    expected = {layer: maps.clone() for layer, maps in expected.items()}
    scores = body(x)
    with torch.enable_grad():
        found = network.activations(images.requires_grad_(), layers)
        torch.autograd.grad(found["normed"].sum(), images)  # it is part of the graph
    for layer, maps in expected.items():
        assert maps.min() < 0  # what an activation would have cut off
        torch.testing.assert_close(found[layer].detach(), maps)
    torch.testing.assert_close(network(images).detach(), scores)


@pytest.mark.parametrize(
    ("name", "first"), [("googlenet", "conv1.conv"), ("inception_v3", "Conv2d_1a_3x3.conv")]
)
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_a_network_that_normalises_its_input_once_more_is_torchvisions_own(
    name, first, weights_folder, monkeypatch
):
    architecture = architectures._torchvision(name, name, {"first": first}, "first")
    monkeypatch.setitem(architectures.ARCHITECTURES, name, architecture)
    theirs = torchvision.models.get_model(name, weights=None, init_weights=False).eval()
    torch.save(theirs.state_dict(), weights_folder / f"{name}.pth")
    theirs.transform_input = True  # as torchvision sets it for the published weights
    network = pretrained.load(name).cpu()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        x = normalised(network, images)
        expected = theirs.get_submodule(first)(theirs._transform_input(x))
        assert (expected - theirs.get_submodule(first)(x)).abs().max() > 0.1 * expected.abs().max()
        torch.testing.assert_close(network.activations(images, ["first"])["first"], expected)
        torch.testing.assert_close(network(images), theirs(x))


def test_means_of_a_half_network_are_of_single_precision():
    network = pretrained.build("squeezenet1_1").requires_grad_(False).bfloat16()
    images = torch.rand(2, 3, 96, 96)
    layers = ["fire9", "logits"]
    maps = network.activations(images, layers)
    assert maps["fire9"].dtype == torch.bfloat16
    found = network.features(images, layers)
    banded = network.features(images, layers, bands=5)
    torch.testing.assert_close(found["fire9"], maps["fire9"].double().mean((2, 3)).float())
    assert not torch.equal(found["fire9"], maps["fire9"].mean((2, 3)).float())
    torch.testing.assert_close(banded["fire9"][:, :512], maps["fire9"][:, :, 0].float().mean(2))
    assert {values.dtype for values in (*found.values(), *banded.values())} == {torch.float32}
    assert network.double().features(images, ["fire9"])["fire9"].dtype == torch.float64


# Extraction for many images


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    return tmp_path


def test_batches_give_what_one_pass_gives(data_root):
    network, images = build("squeezenet1_1"), random_images(5, channels=1)
    whole = network.features(network.prepare(images), ["fire8", "fire9"])
    found = features.extract(network, images, ["fire8", "fire9"], batch_size=2, cache=False)
    for layer, values in whole.items():
        torch.testing.assert_close(found[layer], values, rtol=1e-4, atol=1e-5)
        assert found[layer].dtype == torch.float32
    assert not list(data_root.iterdir())


def test_features_are_the_mean_over_the_views(data_root):
    network, images = build("squeezenet1_1"), random_images(3, channels=1)
    views = [
        network.features(view, ["fire9", "logits"])
        for size in (64, 96)
        for view in (network.prepare(images, size), network.prepare(images, size).flip(3))
    ]
    found = features.extract(
        network, images, ["fire9", "logits"], sizes=[64, 96], mirrored=True, cache=False
    )
    for layer in ("fire9", "logits"):
        expected = sum(view[layer] for view in views) / 4
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-5)
    found = features.extract(network, images, ["fire9"], sizes=[64], cache=False)
    torch.testing.assert_close(found["fire9"], views[0]["fire9"], rtol=1e-4, atol=1e-5)


def test_bands_go_from_top_to_bottom(data_root):
    network, images = build("squeezenet1_1"), random_images(2, size=144)
    inputs = network.prepare(images, 144)
    maps = network.activations(inputs, ["fire9"])["fire9"]
    assert maps.shape[2] == 8
    found = features.extract(
        network, images, ["fire9"], sizes=[144], bands=4, batch_size=2, cache=False
    )["fire9"]
    assert found.shape == (2, 4 * 512)
    for band in range(4):
        expected = maps[:, :, 2 * band : 2 * band + 2].mean((2, 3))
        part = found[:, 512 * band : 512 * (band + 1)]
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    logits = network.features(inputs, ["logits"], bands=4)["logits"]
    torch.testing.assert_close(logits, network(inputs))
    with pytest.raises(ValueError, match="bands is 9, expected at most the 8 rows of fire9"):
        network.features(inputs, ["fire9"], bands=9)


def test_settings_have_caches_of_their_own(data_root):
    network, images = build("squeezenet1_1"), random_images(2)
    assert features._fast_type(torch.device("cpu")) == torch.float32
    options = [{}, {"sizes": [96]}, {"mirrored": True}, {"dtype": torch.bfloat16}]
    found = [features.extract(network, images, ["fire9"], **o)["fire9"] for o in options]
    assert len(list((data_root / "cache").iterdir())) == len(options)
    assert not any(torch.equal(found[0], other) for other in found[1:])
    torch.testing.assert_close(found[3], found[0], rtol=0.05, atol=0.02)
    assert found[3].dtype == torch.float32


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_folded_batch_norms_change_nothing(name):
    torch.manual_seed(0)
    network = pretrained.build(name)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = features.fold_batch_norms(network, network.layers)
    norms = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # ResNet-50's conv1 is the convolution alone, so what comes after it must not go into it.
    assert len(norms) == (1 if name == "resnet50" else 0)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.features(images, network.layers)
        found = folded.features(images, network.layers)
    for layer, values in expected.items():
        scale = values.abs().max().item()
        torch.testing.assert_close(found[layer], values, rtol=1e-3, atol=1e-4 * scale)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_folded_network_shares_the_weights_that_it_does_not_change():
    torch.manual_seed(0)
    network = pretrained.build("resnet50")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = features.fold_batch_norms(network, ["conv1"])
    mine, theirs = network.state_dict(), folded.state_dict()
    for key in ("body.fc.weight", "body.conv1.weight", "body.bn1.running_mean", "mean"):
        assert theirs[key].data_ptr() == mine[key].data_ptr()
    assert "body.layer1.0.bn1.weight" not in theirs
    folded.requires_grad_(False).to(torch.bfloat16)
    assert all(parameter.requires_grad for parameter in network.parameters())
    for key, value in network.state_dict().items():
        assert value.dtype == before[key].dtype and torch.equal(value, before[key])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_type_is_the_networks_and_leaves_the_given_one(dtype):
    network, images = build("squeezenet1_1"), random_images(3)
    options = {"sizes": [96], "mirrored": True, "bands": 2, "cache": False}
    seen = []
    handle = network.body.register_forward_pre_hook(lambda _, x: seen.append(x[0].dtype))
    exact, found = (
        features.extract(network, images, ["fire9", "logits"], dtype=d, **options)
        for d in (torch.float32, dtype)
    )
    handle.remove()
    assert seen == [torch.float32] * 2 + [dtype] * 2
    for layer, values in exact.items():
        assert found[layer].dtype == torch.float32
        torch.testing.assert_close(found[layer], values, rtol=0.05, atol=0.02)
        assert not torch.equal(found[layer], values)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_what_float16_cannot_hold_is_refused():
    network, images = copy.deepcopy(build("squeezenet1_1")), random_images(2)
    network.body.classifier[1].weight.mul_(1e6)
    options = {"sizes": [64], "cache": False}
    found = features.extract(network, images, ["logits"], dtype=torch.bfloat16, **options)
    assert found["logits"].max() > torch.finfo(torch.float16).max
    with pytest.raises(FloatingPointError, match=r"dtype is torch.float16, whose range logits"):
        features.extract(network, images, ["logits"], dtype=torch.float16, **options)


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 1), torch.float32), ((7, 5), torch.float16)]
)
def test_a_gpu_with_fast_halves_computes_in_them(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert features._fast_type(torch.device("cuda")) == expected


def test_batches_of_a_gpu_have_the_pixels_of_256_photographs():
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [features._batch_size(cuda, size) for size in (64, 224, 448, 8000)] == [256, 256, 64, 1]
    assert features._batch_size(cpu, 448) == runtime.images_at_once(cpu)


def test_a_gpu_is_sent_each_batch_once_while_the_one_before_is_computed():
    images = random_images(11, size=8)
    with pretend_cuda() as device:
        feed = features._Prefetcher(images, torch.device("cuda"))
        first = feed.batch(0, 4)
        assert device.to_device == 2  # the next four are on their way
        second = feed.batch(4, 4)
        assert device.to_device == 3
        other = feed.batch(8, 2)  # as after a batch that the memory had no room for
        last = feed.batch(10, 2)
        for batch, expected in [
            (first, images[:4]), (second, images[4:8]), (other, images[8:10]), (last, images[10:])
        ]:  # fmt: skip
            assert batch.is_cuda and torch.equal(batch.cpu(), expected)


def test_features_leave_the_gpu_once_for_many_images(monkeypatch):
    network, images = build("squeezenet1_1"), random_images(10, size=32)
    options = {"sizes": [32], "batch_size": 2, "dtype": torch.float32, "cache": False}
    expected = features.extract(network, images, ["fire8", "fire9"], **options)
    monkeypatch.setattr(features, "SAVED_EVERY", 4)
    with pretend_cuda() as device:
        moved = copy.deepcopy(network).cuda()
        device.clear()
        found = features.extract(moved, images, ["fire8", "fire9"], **options)
        assert (device.to_device, device.to_host) == (5, 3 * 2)  # after 4, 8 and 10 images
        assert not device.synchronisations
    for layer, values in expected.items():
        torch.testing.assert_close(found[layer], values)


def test_interrupted_extraction_goes_on(data_root, monkeypatch):
    network, images = build("squeezenet1_1"), random_images(10)
    options = {"layers": ["fire9", "logits"], "batch_size": 2}
    whole = features.extract(network, images, **options, cache=False)
    monkeypatch.setattr(features, "SAVED_EVERY", 4)
    compute, seen = features._Views.features, []

    def stops_after(count):
        def interrupted(views, folded, batch):
            if len(seen) == count:
                raise KeyboardInterrupt
            seen.append(len(batch))
            return compute(views, folded, batch)

        # Not its own source, which is part of the fingerprint.
        monkeypatch.setattr(features, "fingerprint", lambda *_: "the same")
        monkeypatch.setattr(features._Views, "features", interrupted)

    stops_after(3)  # batches of 2: four images are saved, two are lost
    with pytest.raises(KeyboardInterrupt):
        features.extract(network, images, **options)
    seen.clear()
    stops_after(None)
    found = features.extract(network, images, **options)
    assert sum(seen) == 6
    assert all(torch.equal(found[layer], whole[layer]) for layer in whole)
    seen.clear()
    features.extract(network, images, **options)
    assert not seen


def test_second_extraction_reads(data_root, monkeypatch):
    network, images = build("squeezenet1_1"), random_images(3)
    first = features.extract(network, images, ["fire9"])

    def broken(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(network, "features", broken)
    assert torch.equal(features.extract(network, images, ["fire9"])["fire9"], first["fire9"])
    for other in (
        lambda: features.extract(network, images.flip(0), ["fire9"]),
        lambda: features.extract(network, images, ["fire8"]),
    ):
        with pytest.raises(AssertionError, match="computed again"):
            other()


def test_other_weights_are_another_cache(data_root):
    images = random_images(2)
    first = features.extract(build("squeezenet1_1"), images, ["fire9"])
    torch.manual_seed(1)
    second = features.extract(pretrained.build("squeezenet1_1"), images, ["fire9"])
    assert not torch.equal(first["fire9"], second["fire9"])
    assert len(list((data_root / "cache").iterdir())) == 2


@pytest.mark.parametrize("change", ["fit", "prepare", "torchvision", "torch"])
def test_other_code_is_another_cache(data_root, change, monkeypatch):
    network, images = build("squeezenet1_1"), random_images(2)
    features.extract(network, images, ["fire9"])
    sources = features.fingerprint.__globals__["code_of"]

    def changed(*objects):
        names = [thing.__name__ for thing in objects]
        return ["other" if change in names else "same", *sources(*objects)]

    if change in ("torchvision", "torch"):
        monkeypatch.setattr(
            {"torch": torch, "torchvision": torchvision}[change], "__version__", "9"
        )
    else:
        monkeypatch.setitem(features.fingerprint.__globals__, "code_of", changed)
    features.extract(network, images, ["fire9"])
    assert len(list((data_root / "cache").iterdir())) == 2


def test_damaged_cache_is_computed_again(data_root, capsys):
    network, images = build("squeezenet1_1"), random_images(2)
    first = features.extract(network, images, ["fire9"])
    (path,) = (data_root / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    second = features.extract(network, images, ["fire9"])
    assert torch.equal(first["fire9"], second["fire9"])
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (torch.rand(2, 3, 8, 8), {}, TypeError, "expected a uint8 tensor"),
        (random_images(2)[0], {}, ValueError, r"shape \(3, 64, 64\)"),
        (random_images(2)[:0], {}, ValueError, "N at least 1"),
        (random_images(2), {"batch_size": 0}, ValueError, "batch_size is 0"),
        (random_images(2), {"layers": []}, ValueError, "layers is empty"),
        (random_images(2), {"bands": 0}, ValueError, "bands is 0, expected at least 1"),
        (random_images(2), {"sizes": []}, ValueError, r"sizes is \[\], expected at least one"),
        (random_images(2), {"sizes": [0]}, ValueError, r"sizes is \[0\], expected"),
        (
            random_images(2),
            {"sizes": [64, 16]},
            ValueError,
            r"sizes is \[64, 16\], expected at least 17 pixels for SqueezeNet 1.1",
        ),
        (random_images(2), {"dtype": torch.int8}, ValueError, "dtype is torch.int8, expected"),
        (random_images(2), {"layers": ["relu7"]}, ValueError, "'relu7'"),
    ],
)
def test_extraction_refuses(images, options, error, message):
    options = {"layers": ["fire9"], "cache": False} | options
    with pytest.raises(error, match=message):
        features.extract(build("squeezenet1_1"), images, **options)


# What networks refuse


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(3, 64, 64), ValueError, r"shape \(3, 64, 64\), expected \(N, 3, H, W\)"),
        (torch.rand(1, 1, 64, 64), ValueError, r"shape \(1, 1, 64, 64\)"),
        (random_images(1), TypeError, "torch.uint8, expected a float tensor"),
        ([[0.5]], TypeError, "images is list"),
    ],
)
def test_forward_refuses(images, error, message):
    with pytest.raises(error, match=message):
        build("squeezenet1_1")(images)


@pytest.mark.parametrize("function", [pretrained.build, pretrained.load])
def test_unknown_name_lists_the_known(function):
    with pytest.raises(ValueError, match="'vgg', expected one of vgg16, alexnet"):
        function("vgg")


# Weights


def test_packaged_weights_load_frozen_in_eval_mode():
    network = pretrained.load("efficientnet_lite0")
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network.mean.device.type == runtime.device().type
    assert network(torch.rand(1, 3, 64, 64).to(network.mean)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("file_name", "title"),
    [
        ("squeezenet1_1.pth", "SqueezeNet 1.1"),
        ("squeezenet1_1-mine.pth", "SqueezeNet 1.1 (squeezenet1_1-mine.pth)"),
        ("squeezenet1_1-{hash}.pth", "SqueezeNet 1.1 (squeezenet1_1-{hash}.pth)"),
    ],
)
def test_local_weights_are_used(weights_folder, file_name, title):
    state = build("squeezenet1_1").body.state_dict()
    torch.save(state, weights_folder / "new")
    digest = hashlib.sha256((weights_folder / "new").read_bytes()).hexdigest()[:8]
    (weights_folder / "new").rename(weights_folder / file_name.format(hash=digest))
    network = pretrained.load("squeezenet1_1")
    assert network.title == title.format(hash=digest)
    found = network.body.state_dict()
    assert all(torch.equal(value, found[key].cpu()) for key, value in state.items())


def test_of_several_files_the_plain_name_then_the_published_one_counts(weights_folder):
    biases = []
    for seed, file in enumerate(["squeezenet1_1.pth", "squeezenet1_1-also.pth"]):
        torch.manual_seed(seed)
        body = pretrained.build("squeezenet1_1").body
        torch.save(body.state_dict(), weights_folder / file)
        biases.append(body.classifier[1].weight)
    found = pretrained.load("squeezenet1_1").body.classifier[1].weight
    assert torch.equal(found.cpu(), biases[0]) and not torch.equal(*biases)


def test_other_weights_under_the_published_name_are_refused(weights_folder):
    torch.save(
        build("squeezenet1_1").body.state_dict(), weights_folder / "squeezenet1_1-b8a52dc0.pth"
    )
    with pytest.raises(ValueError, match=r"squeezenet1_1-b8a52dc0\.pth has the SHA-256"):
        pretrained.load("squeezenet1_1")


@pytest.mark.parametrize("setting", ["TORCH_HOME", "HOME"])
def test_a_home_that_is_no_folder_is_weights_unavailable(weights_folder, monkeypatch, setting):
    file = weights_folder / "file"
    file.touch()
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(setting, str(file))
    with pytest.raises(pretrained.WeightsUnavailable, match="AlexNet unavailable"):
        pretrained.load("alexnet")


def test_weights_of_another_network_are_refused(weights_folder):
    torch.save(build("alexnet").body.state_dict(), weights_folder / "squeezenet1_1.pth")
    with pytest.raises(ValueError, match="do not fit"):
        pretrained.load("squeezenet1_1")


class Malicious:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_runs_code_is_refused(weights_folder):
    victim = weights_folder / "was_here"
    for write in (
        lambda path: path.write_bytes(pickle.dumps({"features": Malicious(victim)}, protocol=2)),
        lambda path: torch.save({"features": Malicious(victim)}, path),
    ):
        write(weights_folder / "squeezenet1_1.pth")
        with pytest.raises(ValueError, match=r"squeezenet1_1\.pth does not hold a state dict"):
            pretrained.load("squeezenet1_1")
        assert not victim.exists()


@pytest.mark.parametrize(
    "content", ["empty", "text", "truncated", "html", "list", "nested", "h", "number", "folder"]
)
def test_damaged_weights_are_refused(weights_folder, content):
    path = weights_folder / "squeezenet1_1.pth"
    state = build("squeezenet1_1").body.state_dict()
    torch.save({"list": [1, 2], "nested": {"state_dict": state}}.get(content, state), path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    elif content == "folder":
        path.unlink()
        path.mkdir()
    elif content in ("empty", "text", "html", "h", "number"):
        page = b"<!DOCTYPE html><html>Not found</html>"
        texts = {"empty": b"", "text": b"not weights\n" * 9, "html": page, "h": b"hello, world"}
        path.write_bytes((texts | {"number": b"12.5\n"})[content])
    with pytest.raises(ValueError, match=r"squeezenet1_1"):
        pretrained.load("squeezenet1_1")


def test_no_weights_says_where_they_were_sought(weights_folder):
    with pytest.raises(pretrained.WeightsUnavailable) as raised:
        pretrained.load("vgg16")
    for part in ("VGG16", "https://download.pytorch.org", "no network here", "vgg16.pth"):
        assert part in str(raised.value)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A site with weights of SqueezeNet 1.1: a function that publishes them under a name."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("DLAPPS_WEIGHTS", raising=False)
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    torch.save(build("squeezenet1_1").body.state_dict(), folder / "weights.pth")
    content = (folder / "weights.pth").read_bytes()

    def publish(file_name):
        name = file_name.format(hash=hashlib.sha256(content).hexdigest()[:8])
        (folder / name).write_bytes(content)
        address = f"http://127.0.0.1:{site.server_address[1]}/{name}"
        monkeypatch.setattr(weights.value, "url", address)
        return folder / name

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield publish
        site.shutdown()
        thread.join()


def test_weights_are_downloaded_once(server):
    published = server("squeezenet1_1-{hash}.pth")
    pretrained.load("squeezenet1_1")
    published.unlink()
    bias = pretrained.load("squeezenet1_1").body.features[0].bias
    assert torch.equal(bias.cpu(), build("squeezenet1_1").body.features[0].bias)


def test_download_with_another_hash_is_refused(server):
    server("squeezenet1_1-00000000.pth")
    with pytest.raises(pretrained.WeightsUnavailable, match="hash"):
        pretrained.load("squeezenet1_1")


def test_missing_page_is_unavailable(server):
    server("squeezenet1_1-{hash}.pth").unlink()
    with pytest.raises(pretrained.WeightsUnavailable, match="404"):
        pretrained.load("squeezenet1_1")


def test_damaged_download_is_named(server, tmp_path):
    server("squeezenet1_1-{hash}.pth")
    pretrained.load("squeezenet1_1")
    (path,) = (tmp_path / "torch" / "hub" / "checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=path.name):
        pretrained.load("squeezenet1_1")


def test_an_ensemble_is_the_mean_of_its_networks():
    first, second = (pretrained.build(name) for name in ("squeezenet1_1", "efficientnet_lite1"))
    ensemble = pretrained.Ensemble([first, second]).eval()
    images = (random_images(2, size=224) / 255).requires_grad_()
    scores = ensemble(images)
    resized = transforms.resize(images, [240, 240], antialias=True).clamp(0, 1)
    torch.testing.assert_close(scores, (first(images) + second(resized)) / 2)
    (gradients,) = torch.autograd.grad(scores.sum(), images)
    assert gradients.abs().amax((1, 2, 3)).min() > 0
    assert ensemble.title == "SqueezeNet 1.1 + EfficientNet-Lite1"
    assert ensemble.input_size == 224
    moved = copy.deepcopy(ensemble).to("meta")
    assert moved.mean.device == moved.std.device == torch.device("meta")
    assert torch.equal(ensemble.mean, first.mean) and torch.equal(ensemble.std, first.std)
    with pytest.raises(ValueError, match="networks is empty"):
        pretrained.Ensemble([])
    second.categories = ("cat", "dog")
    with pytest.raises(ValueError, match="different classes"):
        pretrained.Ensemble([first, second])
