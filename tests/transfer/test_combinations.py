"""Several networks, sizes and layers: inner products against features laid side by side."""

import numpy as np
import pytest
import torch

from dlapps import transfer
from dlapps.models import features, pretrained


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(0)
    return pretrained.build("squeezenet1_1").requires_grad_(False)


def blobs(rows, seed, spread=1.0):
    """Return points (rows, 8) around one direction for each of 3 classes, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    return 10 * np.eye(8)[labels] + spread * generator.normal(size=(rows, 8)), labels


def test_members_join_one_after_the_other(squeezenet):
    images = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8)
    rows = transfer.describe(squeezenet, 64, images[:5], images[5:])
    assert [part.shape for part in rows] == [(8, 512), (8, 512)]  # fire8, fire9
    options = {"sizes": [64], "mirrored": True, "cache": False}
    expected = features.extract(squeezenet, images[5:], ["fire9"], **options)["fire9"]
    np.testing.assert_allclose(rows[1][5:], expected, rtol=1e-4, atol=1e-5)
    found = transfer.growing({"a": rows, "b": rows[:1], "c": rows})
    assert [*found] == ["a, last layer", "a, all layers", "+ b", "+ c"]
    assert [len(parts) for parts in found.values()] == [1, 2, 3, 5]
    assert found["a, last layer"][0] is rows[1]


@pytest.mark.parametrize("normalisation", ["l2", "signed root"])
def test_inner_products_are_those_of_the_features_side_by_side(normalisation):
    x, _ = blobs(30, seed=0)
    parts = [x, 100 * x[:, :3] ** 2 + 1]
    side_by_side = transfer.concatenate(*parts, normalisation=normalisation) / np.sqrt(2)
    K = transfer.gram(parts, normalisation)
    np.testing.assert_allclose(K, side_by_side @ side_by_side.T, atol=1e-6)
    np.testing.assert_allclose(K.diagonal(), 1, atol=1e-6)
    with pytest.raises(ValueError, match="parts is empty"):
        transfer.gram([])
    with pytest.raises(ValueError, match="rows of zeros"):
        transfer.gram([np.zeros((3, 2))])


def test_coordinates_keep_the_inner_products_with_training_rows():
    x = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    K, train = transfer.gram([x]), np.arange(0, 50, 3)
    z = transfer.coordinates(K, train)
    assert z.shape == (50, 9)  # the rank
    np.testing.assert_allclose(z @ z[train].T, K[:, train], atol=1e-5)


def test_svm_on_inner_products_is_the_svm_on_features():
    (x, labels), (y, test_labels) = blobs(60, seed=0, spread=3.0), blobs(90, seed=1, spread=3.0)
    split = np.arange(60), np.arange(60, 150)
    K = transfer.gram([np.vstack([x, y])])
    everything = np.concatenate([labels, test_labels])
    found = transfer.fit_chosen(K, everything, split, C=2.0)
    expected = transfer.evaluate(transfer.fit_linear_svm(x, labels, C=2.0), y, test_labels)
    assert 0.4 < expected.accuracy < 0.99
    assert (found.predictions == expected.predictions).mean() > 0.98
    np.testing.assert_allclose(found.margins, expected.margins, atol=0.02)


def test_combination_with_the_highest_validation_is_chosen_within_each_split():
    x, labels = blobs(150, seed=0)
    noise = np.random.default_rng(2).normal(size=(150, 8))
    grams = {"noise": transfer.gram([noise]), "good": transfer.gram([x])}
    grams["again"] = grams["good"]
    splits = transfer.random_splits(labels, per_class=20, count=2)
    table = transfer.compare_combinations(grams, labels, splits, Cs=(0.5, 2.0))
    assert table["split"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["chosen"].tolist() == [False, False, True] * 2  # among equals the last
    assert table["validation"][0] < 0.7 and table["validation"][1] == table["validation"][2]
    for row in table.itertuples():
        evaluation = transfer.fit_chosen(grams[row.features], labels, splits[row.split], row.C)
        assert evaluation.accuracy == row.accuracy
    with pytest.raises(ValueError, match=r"Cs\[0\] is 0, expected a positive number"):
        transfer.compare_combinations(grams, labels, splits, Cs=(0,))


def test_no_choice_sees_an_image_to_test():
    x, labels = blobs(150, seed=0)
    split = transfer.random_splits(labels, per_class=20, count=1)[0]
    changed, test = x.copy(), split[1]
    changed[test] = np.random.default_rng(3).normal(size=changed[test].shape)
    tables = [
        transfer.compare_combinations({"a": transfer.gram([rows])}, labels, [split])
        for rows in (x, changed)
    ]
    assert tables[0]["validation"].tolist() == tables[1]["validation"].tolist()
    assert tables[0]["accuracy"].tolist() != tables[1]["accuracy"].tolist()
