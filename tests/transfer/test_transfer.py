"""Practical 1: parameters by formula, predictions, filters, grey input, linear SVMs."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from pretend_cuda import pretend_cuda
from sklearn.svm import LinearSVC
from torch import nn

from dlapps import transfer
from dlapps.datasets import ImageSet
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


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [(nn.Conv2d(3, 64, 3), (3, 64, 3)), (nn.Linear(512, 10), (512, 10))],
)
def test_formula_counts_the_tensors_of_a_layer(layer, arguments):
    expected = sum(p.numel() for p in layer.parameters())
    assert transfer.count_parameters(*arguments) == expected
    with pytest.raises(ValueError, match="k is 0, expected at least 1"):
        transfer.count_parameters(1, 1, k=0)


# Predictions


def test_softmax_is_that_of_pytorch_and_does_not_overflow():
    s = torch.randn(4, 7)
    torch.testing.assert_close(transfer.softmax(s), s.softmax(1))
    torch.testing.assert_close(transfer.softmax(s[0]), s[0].softmax(0))
    large = transfer.softmax(torch.tensor([1000.0, 1000.0, -1000.0]))
    torch.testing.assert_close(large, torch.tensor([0.5, 0.5, 0.0]))


def test_top_k_accuracy_counts_the_first_k():
    names, truths = [["a", "b"], ["c", "a"], ["b", "c"]], ["a", "a", "a"]
    assert transfer.top_k_accuracy(names, truths, 1) == pytest.approx(1 / 3)
    assert transfer.top_k_accuracy(names, truths, 2) == pytest.approx(2 / 3)


def test_true_class_scores_are_of_the_true_class(squeezenet):
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    p = squeezenet(squeezenet.prepare(images)).softmax(1)
    labels = torch.stack([p[0].argmax(), p[1].argmax(), p[2].argmin()])
    data = ImageSet(images, labels, squeezenet.categories, "noise")
    found = transfer.true_class_scores(squeezenet, data)
    assert found["top-1"] == pytest.approx(2 / 3)
    expected = (p[0].max() + p[1].max() + p[2].min()) / 3
    assert found["probability of the true class"] == pytest.approx(expected.item())


def test_look_alikes_have_the_closest_weights():
    network = nn.Module()
    network.body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2, 4, bias=False))
    angles = torch.tensor([0.0, 10.0, 90.0, 120.0]).deg2rad()
    network.body[2].weight.data = torch.stack([3 * angles.cos(), 3 * angles.sin()], 1)
    cosines = transfer.class_similarity(network)
    torch.testing.assert_close(cosines, (angles[:, None] - angles).cos())
    images = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    data = ImageSet(images, torch.tensor([2, 0, 0, 3, 1]), tuple("abcd"), "black")
    assert transfer.look_alikes(network, data, 1) == [(1, 4)]
    assert transfer.look_alikes(network, data, 2) == [(1, 4), (0, 3)]
    with pytest.raises(ValueError, match="pairs is 3, expected at most 2"):
        transfer.look_alikes(network, data, 3)


@pytest.mark.parametrize("last", ["confident mistake", "uncertain"])
def test_example_cases_are_chosen_by_rule(last):
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 16, 16)
    images = images * 10 + torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1)
    p = np.array([[0.5, 0.3], [0.9, 0.1], [0.6, 0.1], [0.8, 0.05], [0.55, 0.45]])
    names = [["a", "b"]] * 5
    truths = ["a", "a", "b" if last == "confident mistake" else "a", "a", "a"]
    cases = transfer.example_cases(images, truths, names, p)
    chosen = [1, 1, 1, 1, 3, 4, 2] if last == "confident mistake" else [1, 1, 1, 1, 3, 4, 0]
    for case, i in zip(cases, chosen, strict=True):
        assert case.truth == truths[i] and case.image.shape == (3, 16, 16)
        assert (case.image.int() // 5 * 5 - images[i].int()).abs().max() < 20
    assert cases[-1].caption == last
    assert torch.equal(cases[2].image, images[1].flip(1))
    assert torch.equal(cases[4].image, images[3])


def test_top_k_is_the_sorted_softmax(squeezenet):
    images = torch.rand(2, 3, 64, 64)
    names, probabilities = transfer.top_k(squeezenet, images, k=3)
    scores = squeezenet.body((images - squeezenet.mean) / squeezenet.std).double().numpy()
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    order = np.argsort(-expected, axis=1)[:, :3]
    np.testing.assert_allclose(probabilities, np.take_along_axis(expected, order, 1), rtol=1e-4)
    assert names == [[squeezenet.categories[i] for i in row] for row in order]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("function", [transfer.top_k, transfer.training_mode_passes])
def test_images_out_of_range_are_refused(squeezenet, function, value):
    images = torch.rand(2, 3, 64, 64)
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match=r"images has values in .*, expected \[0, 1\]"):
        function(squeezenet, images)


def test_images_of_another_type_are_predicted(squeezenet):
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 64, 64)))
    for function in (transfer.top_k, transfer.training_mode_passes):
        for mine, theirs in zip(
            function(squeezenet, images), function(squeezenet, images.float()), strict=True
        ):
            if isinstance(mine, list):
                assert mine == theirs
            else:
                np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    grey, weights = images[:, :1], squeezenet.body.features[0].weight
    network = transfer.GreyNetwork(squeezenet)
    torch.testing.assert_close(network(grey), network(grey.float()))
    shares = transfer.filter_shares(weights, images)
    torch.testing.assert_close(
        shares.float(), transfer.filter_shares(weights, images.float()), rtol=1e-4, atol=1e-5
    )


# Filters


def test_contrasting_images_are_colourful_grey_and_textured():
    images = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    images[2, 0] = 200  # a colour
    images[0, :, :, ::2] = 110  # a texture
    images[3, :, :, ::2] = 150  # a stronger one
    images[0, 1], images[3, 1] = images[0, 1] + 3, images[3, 1] + 5  # a little colour
    assert transfer.contrasting_images(images) == [2, 1, 3]


def test_a_filter_without_a_varying_map_is_dead():
    shares = torch.tensor([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.0, 0.1, 0.9], [0.5, 0.3, 0.2]])
    maps = torch.rand(2, 4, 5, 5) * torch.tensor([1, 2, 1, 1e-5]).view(1, 4, 1, 1)
    kinds = [transfer.PARTS[i] for i in transfer.largest_parts(shares, maps)]
    assert kinds == ["pattern", "light", "colour", "dead"]


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
    with pytest.raises(ValueError, match=r"grey has shape \(2, 3, 96, 96\), expected \(N, 1, H, W"):
        transfer.GreyNetwork(network)(grey.expand(-1, 3, -1, -1))


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


def test_normalisations_are_what_they_are_called():
    features, labels = blobs(60, seed=0)
    rooted = np.sign(features) * np.sqrt(np.abs(features))
    prepared = {
        "raw": features,
        "l2": features / np.linalg.norm(features, axis=1, keepdims=True),
        "signed root": rooted / np.linalg.norm(rooted, axis=1, keepdims=True),
    }
    assert tuple(prepared) == transfer.NORMALISATIONS
    for normalisation, rows in prepared.items():
        found = transfer.fit_linear_svm(features, labels, 0.1, 0, normalisation)
        for dual, tolerance in [(normalisation != "raw", 1e-6), (normalisation == "raw", 0.02)]:
            expected = LinearSVC(C=0.1, dual=dual, random_state=0, tol=1e-4).fit(rows, labels)
            scale = np.abs(expected.coef_).max()
            np.testing.assert_allclose(
                found[-1].coef_, expected.coef_, rtol=tolerance, atol=tolerance * scale
            )
    with pytest.raises(ValueError, match="normalisation is 'l1', expected one of raw, l2, signed"):
        transfer.fit_linear_svm(features, labels, normalisation="l1")


def test_margins_are_by_how_much_the_first_class_leads():
    svm = transfer.fit_linear_svm(*blobs(60, seed=0))
    features, labels = blobs(9, seed=1)
    scores = svm.decision_function(features)
    leads = [max(row) - sorted(row)[-2] for row in scores.tolist()]
    np.testing.assert_allclose(transfer.evaluate(svm, features, labels).margins, leads)


def test_two_classes_are_evaluated_as_scikit_learn_predicts_them():
    features, labels = blobs(90, seed=0)
    features, labels = features[labels > 0], labels[labels > 0]
    svm = transfer.fit_linear_svm(features, labels)
    noisy = features + 4 * np.random.default_rng(1).normal(size=features.shape)
    result = transfer.evaluate(svm, noisy, labels)
    assert 0.5 < result.accuracy < 1
    np.testing.assert_array_equal(result.predictions, svm.predict(noisy))
    np.testing.assert_allclose(result.margins, 2 * np.abs(svm.decision_function(noisy)))
    assert result.confusion.shape == (2, 2)
    assert result.confusion.trace() / len(labels) == result.accuracy


def test_an_evaluation_knows_its_mistakes_and_its_interval():
    scores = np.array([[3, 1, 0], [0, 1, 0.5], [5, 1, 0], [0, 2, 6], [2, 2.5, 0], [0, 0, 1]])
    result = transfer.evaluate_scores(scores, [0, 1, 1, 1, 0, 2])
    np.testing.assert_array_equal(result.predictions, [0, 1, 0, 2, 1, 2])
    assert result.accuracy == pytest.approx(0.5)
    np.testing.assert_allclose(result.recall, [1 / 2, 1 / 3, 1])
    np.testing.assert_array_equal(result.most_confident_mistakes(), [2, 3, 4])
    np.testing.assert_array_equal(result.most_confident_mistakes(1), [2])
    assert result.most_frequent_mistake() == (0, 1)
    assert result.interval == pytest.approx(1.96 * np.sqrt(0.5 * 0.5 / 6))


def test_change_counts_the_images_on_which_two_classifiers_disagree():
    labels = np.zeros(400, int)
    wrong = np.eye(2)[(np.arange(400) % 10 > 1).astype(int)]  # 80 of 400 are right
    first = transfer.evaluate_scores(wrong, labels)
    better = wrong.copy()
    better[(labels == 0) & (np.arange(400) % 40 == 5)] = [1, 0]  # 10 more of them
    second = transfer.evaluate_scores(better, labels)
    table = transfer.compare_evaluations({"a": first, "b": second})
    gained = (first.predictions != 0) & (second.predictions == 0)
    d = gained.astype(float)
    assert table["classifier"].tolist() == ["a", "b"]
    assert table["change"].tolist() == pytest.approx([0, d.mean()])
    assert table["interval"].tolist() == pytest.approx([0, 1.96 * d.std(ddof=1) / 20])
    assert table["won"].tolist() == [0, gained.sum()] and table["lost"].tolist() == [0, 0]
    assert transfer.discordant(second, first) == (gained.sum(), 0)
    back = transfer.accuracy_change(second, first)
    assert back == pytest.approx((-d.mean(), 1.96 * d.std(ddof=1) / 20))
    with pytest.raises(ValueError, match="expected the same test images"):
        transfer.accuracy_change(first, transfer.evaluate_scores(wrong, labels + 1))


# Choosing and comparing


def test_each_network_has_the_same_weight_in_a_concatenation():
    generator = np.random.default_rng(0)
    small, large = generator.normal(size=(4, 3)), 1000 * generator.normal(size=(4, 5))
    joined = transfer.concatenate(small, torch.from_numpy(large))
    assert joined.shape == (4, 8)
    cosines = [x @ x.T / np.outer(*2 * [np.linalg.norm(x, axis=1)]) for x in (small, large)]
    np.testing.assert_allclose(joined @ joined.T, sum(cosines))


def test_random_splits_have_a_number_of_each_class_and_the_others():
    labels = torch.tensor([0] * 7 + [1] * 5 + [2] * 9)
    splits = transfer.random_splits(labels, per_class=4, count=3)
    for train, test in splits:
        assert np.bincount(labels[train]).tolist() == [4, 4, 4]
        assert sorted([*train, *test]) == list(range(21))
    assert not np.array_equal(splits[0][0], splits[1][0])
    again = transfer.random_splits(labels, per_class=4, count=3)
    np.testing.assert_array_equal(splits[2][0], again[2][0])
    with pytest.raises(ValueError, match="per_class is 5, expected less than 5, the images of c"):
        transfer.random_splits(labels, per_class=5)


def test_study_is_what_each_row_gives_alone():
    train, train_labels = blobs(60, seed=0)
    test, test_labels = blobs(45, seed=1)
    train, test = train + 8, test + 8  # hard enough for mistakes
    splits = transfer.random_splits(np.concatenate([train_labels, test_labels]), 20, 3)
    table = transfer.classifier_study(
        {"a": train, "b": train[:, :4]}, train_labels, {"a": test, "b": test[:, :4]}, test_labels,
        settings=[("raw", 0.001), ("raw", 1), ("l2", 0.001), ("l2", 1)], splits=splits,
    )  # fmt: skip
    assert table[["layer", "normalisation", "C"]].to_records(index=False).tolist() == [
        (layer, normalisation, C)
        for layer in "ab" for normalisation in ("raw", "l2") for C in (0.001, 1)
    ]  # fmt: skip
    assert table["dimension"].tolist() == [8] * 4 + [4] * 4
    row = table.iloc[4]  # b, raw, 0.001
    svm = LinearSVC(C=0.001, dual=False, random_state=0)
    assert row["accuracy"] == svm.fit(train[:, :4], train_labels).score(test[:, :4], test_labels)
    rows = np.vstack([train, test])[:, :4]
    labels = np.concatenate([train_labels, test_labels])
    expected = [svm.fit(rows[a], labels[a]).score(rows[b], labels[b]) for a, b in splits]
    assert row["splits mean"] == pytest.approx(np.mean(expected))
    assert row["splits std"] == pytest.approx(np.std(expected, ddof=1))
    inner = transfer.folds(train_labels)
    expected = [svm.fit(rows[a], labels[a]).score(rows[b], labels[b]) for a, b in inner]
    assert row["validation"] == pytest.approx(np.mean(expected))
    assert sorted(np.concatenate([b for _, b in inner])) == list(range(60))


def test_validation_never_sees_the_test_set():
    train, labels = blobs(60, seed=0)
    splits = transfer.random_splits(np.concatenate([labels, labels]), 30, 2)
    tables = [
        transfer.classifier_study({"a": train}, labels, {"a": test}, labels, splits=splits)
        for test in (train, -train)
    ]
    assert tables[0]["validation"].equals(tables[1]["validation"])
    assert not tables[0]["accuracy"].equals(tables[1]["accuracy"])


def test_extractions_are_timed_and_agree(squeezenet):
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    table, found = transfer.compare_extractions(squeezenet, images, 64, repeats=1)
    assert table["way"].tolist() == [*found]
    assert table["speed-up"][0] == 1 and (table["images per second"] > 0).all()
    expected = squeezenet.features(squeezenet.prepare(images, 64), ["fire9"])["fire9"]
    *exact, half = found.values()
    for features in exact:
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(half, expected, rtol=0.1, atol=0.1 * expected.abs().max().item())
    assert table["largest change"][1] == (exact[1] - exact[0]).abs().max()


def test_components_are_those_of_the_training_rows():
    x, _ = blobs(40, seed=0)
    train = np.arange(20)
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    centred = rows - rows[train].mean(0)
    axes = np.linalg.svd(centred[train], full_matrices=False)[2][:3]
    found = transfer.principal_components(x, train, 3)
    np.testing.assert_allclose(np.abs(found), np.abs(centred @ axes.T), atol=1e-10)
    with pytest.raises(ValueError, match="dimension is 9, expected 1 to 8"):
        transfer.principal_components(x, train, 9)


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_new_layers_learn_what_can_be_separated(hidden):
    (x, labels), (y, test_labels) = blobs(600, seed=0), blobs(30, seed=1)
    layers = transfer.fit_layers(x, labels, hidden)
    assert (layers.predict(y) == test_labels).all()
    shapes = [w.shape for w in layers[-1].coefs_]
    assert shapes == ([(8, 16), (16, 3)] if hidden else [(8, 3)])
    with pytest.raises(ValueError, match=r"hidden\[0\] is 0, expected at least 1"):
        transfer.fit_layers(x, labels, (0,))


def test_pca_keeps_the_variance_that_there_is():
    labels = np.repeat(np.arange(3), 40)
    plane = np.eye(3)[labels] + np.random.default_rng(0).normal(scale=0.01, size=(120, 3))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0][:3]
    table = transfer.pca_curve(plane @ turn, labels, plane @ turn, labels, [1, 2, 20])
    table = table.set_index(["whitened", "dimension"])
    rows = plane / np.linalg.norm(plane, axis=1, keepdims=True)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1]
    for whitened in (False, True):
        variance = table.loc[whitened]["variance"]
        assert variance[1] == pytest.approx(spectrum[0] / spectrum.sum(), rel=1e-6)
        assert variance[20] == pytest.approx(1)
        assert table.loc[whitened, 2]["accuracy"] == 1
        assert table.loc[whitened, 1]["accuracy"] < 1  # a line holds no three separable classes
    with pytest.raises(ValueError, match=r"dimensions is \[2, 21\], expected numbers from 1 to 20"):
        transfer.pca_curve(plane @ turn, labels, plane @ turn, labels, [2, 21])


# Training mode


def test_training_mode_gives_other_answers_and_leaves_no_trace(squeezenet):
    images = torch.rand(2, 3, 64, 64)
    state = torch.get_rng_state()
    passes = transfer.training_mode_passes(squeezenet, images, passes=3)
    assert passes.shape == (3, 2, 1000)
    torch.testing.assert_close(passes.sum(2), torch.ones(3, 2))
    assert not torch.equal(passes[0], passes[1])
    assert torch.equal(transfer.training_mode_passes(squeezenet, images, passes=3), passes)
    assert not torch.equal(transfer.training_mode_passes(squeezenet, images, 3, seed=1), passes)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in squeezenet.modules())


def test_first_choice_is_followed_through_the_passes():
    evaluation = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    passes = torch.tensor([[[0.6, 0.4], [0.5, 0.5]], [[0.2, 0.8], [0.1, 0.9]]])
    passes[0, 1] = torch.tensor([0.55, 0.45])
    belief, changed = transfer.follow_first_choice(passes, evaluation)
    torch.testing.assert_close(belief, torch.tensor([[0.6, 0.45], [0.2, 0.9]]))
    assert changed.tolist() == [0.5, 0.5]


def test_training_mode_leaves_the_generators_alone(squeezenet):
    images = torch.rand(1, 3, 64, 64)
    with pretend_cuda():
        network = copy.deepcopy(squeezenet).cuda()
        torch.rand(3, device="cuda")
        states = torch.get_rng_state(), torch.cuda.get_rng_state()
        passes = transfer.training_mode_passes(network, images.cuda(), passes=2)
        assert not passes.is_cuda and not torch.equal(*passes)
        after = torch.get_rng_state(), torch.cuda.get_rng_state()
        assert all(torch.equal(a, b) for a, b in zip(states, after, strict=True))


def test_batch_norm_in_training_mode_depends_on_the_other_images():
    torch.manual_seed(0)
    network = pretrained.build("resnet50")  # it has no dropout
    before = network.body.bn1.running_mean.clone()
    images = torch.rand(3, 3, 64, 64)
    pair, other = (
        transfer.training_mode_passes(network, images[[0, i]], passes=1)[0, 0] for i in (1, 2)
    )
    assert not torch.allclose(pair, other, rtol=1e-3)
    assert torch.equal(network.body.bn1.running_mean, before)
