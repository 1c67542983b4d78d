"""Networks with a new last layer: against the optimum's conditions and uninterrupted runs."""

import functools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dlapps.datasets import ImageSet
from dlapps.models import features, pretrained
from dlapps.transfer import fine_tuning
from dlapps.transfer.fine_tuning import Classifier, Settings

SMALL = Settings(epochs=3, batch_size=8, learning_rate=1e-3, size=48)


@functools.cache
def build(name="efficientnet_lite0"):
    torch.manual_seed(0)
    return pretrained.build(name).requires_grad_(False)


def stripes(count=24, size=64):
    """Return noisy images whose class is whether their stripes lie or stand."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    wave = (torch.arange(size) // 4 % 2 * 150.0).expand(size, size)
    images = torch.stack([wave if label else wave.T for label in labels])[:, None]
    images = images + 80 * torch.rand(images.shape, generator=generator)
    return ImageSet(images.to(torch.uint8), labels, ("lying", "standing"), "stripes")


def state(model):
    return {key: value.cpu().clone() for key, value in model.state_dict().items()}


def equal(first, second):
    return all(torch.equal(value, second[key]) for key, value in first.items())


# The new last layer


@pytest.mark.parametrize(
    ("name", "layer", "dimension"),
    [("squeezenet1_1", None, 512), ("resnet50", None, 2048), ("alexnet", "relu6", 4096)],
)
def test_scores_are_linear_in_the_features_of_the_layer(name, layer, dimension):
    network = build(name)
    model = Classifier(network, classes=15, layer=layer).eval()
    assert model.last.weight.shape == (15, dimension)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images), torch.zeros(2, 15))
    torch.nn.init.normal_(model.last.weight)
    layer = layer or network.default_layer
    expected = network.features(images, [layer])[layer] @ model.last.weight.T
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in network.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_last_layer_is_at_the_minimum():
    """At the minimum of sum(cross-entropy) + |W|² / 2C the gradient is zero."""
    rows = np.random.default_rng(0).normal(size=(60, 512)).astype(np.float32)
    labels = torch.arange(60) % 4
    model = Classifier(build("squeezenet1_1"), classes=4)
    model.fit_last_layer(torch.from_numpy(rows), labels, C=0.01)
    scores = model.last(torch.from_numpy(rows))
    loss = torch.nn.functional.cross_entropy(scores, labels, reduction="sum")
    (loss + model.last.weight.square().sum() / (2 * 0.01)).backward()
    size = (torch.from_numpy(rows).abs().sum()).item()
    assert model.last.weight.grad.abs().max() < 1e-5 * size
    assert model.last.bias.grad.abs().max() < 1e-2


def test_two_classes_have_the_probabilities_of_scikit_learn():
    rows = np.random.default_rng(0).normal(size=(40, 512)).astype(np.float32)
    labels = np.arange(40) % 2
    model = Classifier(build("squeezenet1_1"), classes=2)
    model.fit_last_layer(rows, labels)
    expected = LogisticRegression(max_iter=10_000).fit(rows, labels).predict_proba(rows)
    found = model.last(torch.from_numpy(rows)).softmax(1).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_missing_classes_are_refused():
    model = Classifier(build("squeezenet1_1"), classes=3)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        model.fit_last_layer(np.ones((4, 512)), [0, 1, 0, 1])


def test_scores_of_many_images_are_those_of_the_model():
    model = Classifier(build(), classes=2).eval()
    torch.nn.init.normal_(model.last.weight)
    data = stripes(5)
    inputs = model.network.prepare(data.images, 48)
    with torch.inference_mode():
        plain, mirrored = model(inputs), model(inputs.flip(3))
    torch.testing.assert_close(model.scores(data.images, 48), plain, rtol=1e-3, atol=1e-3)
    mean = (plain + mirrored) / 2  # the last layer is linear
    torch.testing.assert_close(model.scores(data.images, 48, True), mean, rtol=1e-3, atol=1e-3)
    expected = (plain.argmax(1) == data.labels).double().mean().item()
    assert fine_tuning.accuracy(model, data, 48) == expected


# Views


def test_large_images_are_reduced_once_and_small_ones_stay():
    images = stripes(2, 224).images
    assert fine_tuning.prepared(images, 96).shape == (
        2,
        1,
        136,
        136,
    )  # 96 is a window of half of it
    assert fine_tuning.prepared(images, 224) is images


# Training


def test_training_learns_stripes():
    data = stripes()
    model = Classifier(pretrained.load("efficientnet_lite0"), classes=2)
    history = fine_tuning.train(
        model, data, Settings(epochs=8, batch_size=8, learning_rate=3e-3, size=48), test=data
    )
    assert list(history) == list(fine_tuning.RECORDED)
    assert all(len(values) == 8 for values in history.values())
    assert history["loss"][0] == pytest.approx(np.log(2), abs=0.25)  # it knew nothing at first
    assert history["train_accuracy"][-1] > 0.9
    assert not any(module.training for module in model.modules())


def test_the_same_seed_gives_the_same_bits():
    data = stripes()
    runs = []
    for settings in (SMALL, SMALL, Settings(3, 8, 1e-3, size=48, seed=1)):
        model = Classifier(build(), classes=2)
        fine_tuning.train(model, data, settings)
        runs.append(state(model))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_interrupted_training_goes_on_to_the_same_bits(tmp_path, interrupted_twice):
    data = stripes()
    whole = Classifier(build(), classes=2)
    expected = fine_tuning.train(whole, data, SMALL, test=data)
    resumed, history = interrupted_twice(
        lambda: Classifier(build(), classes=2),
        lambda model: fine_tuning.train(
            model, data, SMALL, test=data, checkpoint=tmp_path / "training.pt"
        ),
    )
    assert history == expected
    assert equal(state(resumed), state(whole))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_any_number_of_steps_trains(steps):
    model, data = Classifier(build("squeezenet1_1"), 2), stripes(8 * steps)
    history = fine_tuning.train(model, data, Settings(1, 8, 1e-3, size=48))
    assert history["loss"][0] > 0
    assert model.last.weight.abs().max() > 0


@pytest.mark.parametrize("learn", [True, False])
def test_batch_statistics_are_learned_or_kept(learn):
    model = Classifier(build(), classes=2)
    before = state(model)
    settings = Settings(1, 8, 1e-3, size=48, batch_statistics=learn)
    fine_tuning.train(model, stripes(), settings)
    changed = {key for key, value in state(model).items() if not torch.equal(value, before[key])}
    assert ("network.body._bn0.running_mean" in changed) == learn
    assert "network.body._conv_stem.weight" in changed  # the whole body is trained
    assert "last.weight" in changed
    assert not {key for key in changed if key.startswith("network.body._fc")}  # unused


def test_frozen_body_has_the_features_it_had():
    network, data = build("squeezenet1_1"), stripes(6)
    model = Classifier(network, classes=2)
    model.fit_last_layer(torch.rand(6, 512), data.labels)
    first, second = (
        features.extract(net, data.images, ["fire9"], sizes=[64], cache=False)["fire9"]
        for net in (network, model.network)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, expected 0 <= label_smoothing < 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
    ],
)
def test_settings_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="data has 4 images for batches of 8"):
        fine_tuning.train(Classifier(build(), 2), stripes(4), SMALL)
