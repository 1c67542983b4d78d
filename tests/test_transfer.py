"""Practical 1: parameters by formula, predictions, filters, grey input, linear SVMs."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from dlapps import transfer
from dlapps.models import pretrained


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(0)
    return pretrained.build("squeezenet1_1").requires_grad_(False)


def blobs(rows, seed, classes=3, dimension=8):
    """Return points (rows, dimension) around one direction a class, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    return 10 * np.eye(dimension)[labels] + generator.normal(size=(rows, dimension)), labels


# Parameters


def test_vgg16_parameters_by_formula():
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = [(9 * m + 1) * n for m, n in pairwise(widths)]
    units = [512 * 7 * 7, 4096, 4096, 1000]
    connected = [(m + 1) * n for m, n in pairwise(units)]
    with torch.device("meta"):
        network = pretrained.build("vgg16")
    table = transfer.parameter_table(network.body)
    by_kind = table.groupby("kind")["parameters"]
    assert by_kind.get_group("convolution").tolist() == convolutions
    assert by_kind.get_group("fully connected").tolist() == connected
    assert sum(convolutions) == 14_714_688
    assert sum(connected) == 123_642_856
    assert table["parameters"].sum() == 138_357_544
    assert table["share"].sum() == pytest.approx(1)
    assert table["output"].iloc[0] == (64, 224, 224)
    assert table["output"].iloc[-1] == (1000,)


@pytest.mark.parametrize("name", pretrained.NAMES)
def test_table_counts_every_parameter_once(name):
    with torch.device("meta"):
        network = pretrained.build(name)
    table = transfer.parameter_table(network.body, network.input_size)
    assert table["parameters"].sum() == sum(p.numel() for p in network.body.parameters())
    assert table["layer"].is_unique


def test_table_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    table = transfer.parameter_table(network.train(), input_size=8)
    assert table["parameters"].tolist() == [3 * 4 * 9 + 4, 8]
    assert table["output"].tolist() == [(4, 6, 6), (4, 6, 6)]
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


# Predictions


def test_top_k_is_the_sorted_softmax(squeezenet):
    images = torch.rand(2, 3, 64, 64)
    names, probabilities = transfer.top_k(squeezenet, images, k=3)
    scores = squeezenet.body((images - squeezenet.mean) / squeezenet.std).double().numpy()
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    order = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_allclose(probabilities, np.take_along_axis(expected, order, 1), rtol=1e-4)
    assert names == [[squeezenet.categories[i] for i in row] for row in order]


# Filters


def test_shares_of_pure_filters():
    light = torch.ones(3, 3, 3)
    pattern = torch.tensor([[-1.0, 0, 1]] * 3).expand(3, 3, 3)
    colour = torch.tensor([1.0, 0, -1])[:, None, None].expand(3, 3, 3)
    filters = torch.stack([light, pattern, colour, 0 * light])
    shares = transfer.filter_shares(filters, torch.rand(2, 3, 8, 8))
    torch.testing.assert_close(shares, torch.eye(4)[:, :3], atol=1e-6, rtol=0)


def test_parts_that_an_image_lacks_have_no_share():
    weights = torch.randn(16, 3, 5, 5)
    grey, even = torch.rand(1, 1, 9, 9).expand(-1, 3, -1, -1), torch.ones(2, 3, 9, 9)
    torch.testing.assert_close(transfer.filter_shares(weights, grey)[:, 2], torch.zeros(16))
    even *= torch.tensor([0.2, 0.8])[:, None, None, None]  # two grey images without any edge
    shares = transfer.filter_shares(weights, even)
    torch.testing.assert_close(shares[:, 0], torch.ones(16), atol=1e-4, rtol=0)


def test_shares_sum_to_one():
    shares = transfer.filter_shares(torch.randn(16, 3, 5, 5), torch.rand(1, 3, 9, 9))
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(16))


# Grey images


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0", "alexnet", "resnet50"])
def test_summed_weights_equal_replicated_channels(name):
    torch.manual_seed(0)
    network = pretrained.build(name).requires_grad_(False)
    weight = next(m for m in network.body.modules() if isinstance(m, nn.Conv2d)).weight
    before = weight.clone()
    grey = torch.rand(2, 1, 96, 96)
    expected = network(grey.expand(-1, 3, -1, -1))
    summed = transfer.GreyNetwork(network)(grey)
    scale = expected.abs().max().item()
    torch.testing.assert_close(summed, expected, atol=1e-5 * scale, rtol=1e-4)
    assert torch.equal(weight, before)


# Linear SVMs


def test_separable_classes_are_separated():
    svm = transfer.fit_linear_svm(*blobs(60, seed=0))
    features, labels = blobs(30, seed=1)
    result = transfer.evaluate(svm, features, labels)
    assert result.accuracy == 1
    np.testing.assert_array_equal(result.confusion, 10 * np.eye(3))
    np.testing.assert_array_equal(result.predictions, labels)


def test_rows_are_normalised_in_fitting_and_in_evaluation():
    features, labels = blobs(60, seed=0)
    scales = np.random.default_rng(1).uniform(0.1, 100, (60, 1))
    first, second = (transfer.fit_linear_svm(x, labels) for x in (features, features * scales))
    np.testing.assert_allclose(first[-1].coef_, second[-1].coef_, rtol=1e-6)
    assert transfer.evaluate(first, 1000 * features, labels).accuracy == 1


def test_confusion_has_true_classes_as_rows():
    svm = transfer.fit_linear_svm(*blobs(60, seed=0))
    features, _ = blobs(3, seed=1)
    result = transfer.evaluate(svm, features, [2, 1, 2])  # the first one is of class 0 in truth
    np.testing.assert_array_equal(result.confusion, [[0, 0, 0], [0, 1, 0], [1, 0, 1]])
    assert result.accuracy == pytest.approx(2 / 3)


def test_same_seed_same_boundaries():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 100)), np.arange(40) % 4
    first, second = (transfer.fit_linear_svm(features, labels, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first[-1].coef_, second[-1].coef_)


def test_rows_never_filled_are_refused():
    """A public solution appended features to zeros of the label 0, and gained a point."""
    features, labels = blobs(60, seed=0)
    padded = np.concatenate([np.zeros_like(features), features])
    with pytest.raises(ValueError, match="60 rows of zeros, the first at 0"):
        transfer.fit_linear_svm(padded, np.concatenate([np.zeros_like(labels), labels]))
    svm = transfer.fit_linear_svm(features, labels)
    with pytest.raises(ValueError, match="60 rows of zeros"):
        transfer.evaluate(svm, padded, np.concatenate([np.zeros_like(labels), labels]))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((4, 2)), np.zeros(3), r"\(4, 2\) and labels \(3,\)"),
        (np.ones(4), np.zeros(4), r"expected \(N, D\)"),
        (np.ones((4, 2)), np.zeros((4, 1)), r"expected \(N, D\)"),
        (np.full((2, 2), np.nan), np.arange(2), "NaN"),
        (np.full((2, 2), np.inf), np.arange(2), "infinite"),
    ],
)
def test_rows_that_do_not_fit_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        transfer.fit_linear_svm(features, labels)
