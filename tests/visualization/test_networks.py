"""Networks side by side, one of which cannot be had."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dlapps.datasets.image_set import ImageSet
from dlapps.models import features, pretrained
from dlapps.visualization.networks import Networks, first_of_each, numbers, with_trained_head

LITE, LACKING = "efficientnet_lite0", "vgg16"


@pytest.fixture
def networks(monkeypatch):
    """Return networks of which the first is unavailable."""
    load = pretrained.load

    def lacking(name):
        if name == LACKING:
            raise pretrained.WeightsUnavailable("weights of VGG16 unavailable")
        return load(name)

    monkeypatch.setattr(pretrained, "load", lacking)
    return Networks([LACKING, LITE])


def test_what_is_lacking_stays_in_the_table(networks, capsys):
    assert list(networks.titles.values()) == ["VGG16", "EfficientNet-Lite0"]
    assert list(networks.loaded) == [LITE] and networks.first.name == LITE
    table = networks.table({LITE: {"top-1": 0.5}})
    assert table["network"].tolist() == ["VGG16", "EfficientNet-Lite0"]
    assert table["result"].tolist()[0] == "weights unavailable"
    assert table.loc[LITE, "top-1"] == 0.5 and np.isnan(table.loc[LACKING, "top-1"])


def test_numbers_are_named_after_all_but_the_first(networks):
    table = networks.table({LITE: {"top-1": 0.5}})
    found = networks.numbers(table, {"top1": ("top-1", "accuracy")})
    assert found == {
        "numbers": {"top1 vgg16": None, "top1": 0.5},
        "unit": {"top1 vgg16": "accuracy", "top1": "accuracy"},
        "model": {"top1 vgg16": "VGG16", "top1": "EfficientNet-Lite0"},
    }
    cells = {"first": (LITE, "top-1", "share"), "none": (LACKING, "top-1", "share")}
    assert numbers(table, cells) == {
        "numbers": {"first": 0.5, "none": None},
        "unit": {"first": "share", "none": "share"},
    }


def test_two_groups_become_one(networks):
    both = networks | Networks([LITE])
    assert list(both.titles) == [LACKING, LITE] and both.loaded == {LITE: both.loaded[LITE]}
    assert list(networks.titles) == [LACKING, LITE]


def test_weights_that_are_not_asked_for_are_not_loaded(monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda name: pytest.fail(f"{name} was loaded"))
    networks = Networks([LACKING, LITE], tried=[])
    assert list(networks.titles) == [LACKING, LITE] and not networks.loaded


@pytest.mark.parametrize("name", [LITE, "vgg16_convolutions"])
def test_a_trained_head_gives_the_scores_of_the_regression(name, monkeypatch):
    torch.manual_seed(0)
    network = pretrained.build(name)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(12) % 3
    network.input_size = 32
    x = {network.default_layer: network.features(network.prepare(images), [network.default_layer])}
    x = {layer: found[layer].detach() for layer, found in x.items()}
    monkeypatch.setattr(features, "extract", lambda *given: x)
    headed = with_trained_head(network, images, labels, ["a", "b", "c"])
    assert headed.title.endswith("with a trained head") and headed.categories == ("a", "b", "c")

    rows = StandardScaler().fit_transform(x[network.default_layer].numpy())
    regression = LogisticRegression(C=0.01, max_iter=1000).fit(rows, labels.numpy())
    with torch.no_grad():
        found = headed(network.prepare(images)).numpy()
    np.testing.assert_allclose(found, regression.decision_function(rows), atol=2e-3)
    assert network.title + " with a trained head" == headed.title  # the network itself is as it was
    assert len(network.categories) in (0, 1000)


def test_a_head_needs_a_place():
    network = pretrained.build("squeezenet1_1")
    images = torch.zeros(4, 3, 40, 40, dtype=torch.uint8)
    images[2:] = 200
    with pytest.raises(ValueError, match=r"network is SqueezeNet 1\.1, expected one that ends"):
        with_trained_head(network, images, torch.tensor([0, 1, 2, 0]), ["a", "b", "c"])


def test_the_first_images_of_each_class():
    images = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1)
    data = ImageSet(images, torch.tensor([1, 0, 1, 0, 1, 0, 1, 0]), ("a", "b"), "data")
    found = first_of_each(data, 2)
    assert found.images.flatten().tolist() == [1, 3, 0, 2] and found.labels.tolist() == [0, 0, 1, 1]
    assert found.name == "data (4 of 8)"
