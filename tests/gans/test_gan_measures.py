"""Figures of merit on distributions whose answers are known, and the judge on real digits."""

import numpy as np
import pytest
import torch

from dlapps import datasets, gans, runtime
from dlapps.gans import judging, measures
from dlapps.models.judge import Judge


def normal(count, mean, scale=1.0, seed=0, width=4):
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(count, width, generator=generator)


def test_the_frechet_distance_of_equal_sets_is_0():
    features = normal(500, 0.0)
    assert measures.frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_of_gaussians_is_that_of_their_means_and_deviations():
    """|m1 - m2|² + (s1 - s2)² in each of 4 dimensions."""
    one, other = normal(20_000, 0.0), normal(20_000, 3.0, 2.0, seed=1)
    distance = measures.frechet_distance(one, other)
    assert distance == pytest.approx(4 * (3**2 + 1), rel=0.03)
    assert measures.frechet_distance(other, one) == pytest.approx(distance)
    with pytest.raises(ValueError, match="real has 4 rows"):
        measures.frechet_distance(one[:4], other)


def test_equal_sets_lie_in_each_others_neighbourhoods():
    features = normal(300, 0.0)
    found = measures.neighbourhoods(features, features)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    two = measures.neighbourhoods(normal(2000, 0.0), normal(2000, 0.0, seed=1))
    # Of independent samples: E[coverage] = 1 - (N - 1)...(N - k) / (2 N - 1)... = 1 - 2^-k nearly.
    assert two["coverage"] == pytest.approx(1 - 0.5**5, abs=0.02)
    assert two["density"] == pytest.approx(1, abs=0.05)


def test_sets_far_apart_share_no_neighbourhood():
    found = measures.neighbourhoods(normal(200, 0.0), normal(200, 100.0, seed=1))
    assert found == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    with pytest.raises(ValueError, match="has 5 rows, expected more than 5"):
        measures.neighbourhoods(normal(5, 0.0), normal(200, 0.0))


def test_a_dropped_mode_costs_recall_and_coverage_but_no_precision():
    real = torch.cat([normal(500, 0.0), normal(500, 100.0)])
    fake = normal(1000, 0.0, seed=1)
    found = measures.neighbourhoods(real, fake)
    assert found["precision"] > 0.95
    assert 0.45 < found["recall"] <= 0.5
    assert 0.45 < found["coverage"] <= 0.5
    real_classes = torch.arange(2).repeat_interleave(500)
    fake_classes = torch.arange(2).repeat(500)
    coverage = measures.class_coverage(real, real_classes, fake, fake_classes)
    assert 0.45 < coverage <= 0.5


def test_shares_of_classes_and_their_distance_from_uniform():
    shares, variation = measures.class_shares(torch.tensor([0, 0, 0, 1]), 2)
    assert shares.tolist() == [0.75, 0.25]
    assert variation == 0.25
    assert measures.class_shares(torch.arange(10))[1] == pytest.approx(0, abs=1e-6)
    assert measures.class_shares(torch.zeros(5, dtype=torch.int64))[1] == pytest.approx(0.9)


def test_agreement_after_the_best_permutation_needs_a_class_of_its_own_for_each_label():
    asked = torch.arange(10).repeat(3)
    assert measures.permuted_agreement(asked, (asked + 3) % 10) == 1
    assert measures.permuted_agreement(asked, torch.full_like(asked, 7)) == pytest.approx(0.1)
    # Labels 0 and 1 both give a 5, and the other ones nothing but 2 or 3.
    predicted = torch.tensor([5, 5, 2, 3, 2, 3])
    assert measures.permuted_agreement(torch.arange(6), predicted) == pytest.approx(0.5)


def untrained():
    runtime.seed_everything(0)
    return Judge().to(runtime.device())


def train(judge, **options):
    digits = datasets.load("mnist-5000", "train", size=32)
    judging.train_judge(judge, digits.images, digits.labels, epochs=3, **options)


def test_the_judge_reads_real_digits_and_goes_on_where_it_stopped(tmp_path, interrupted_twice):
    straight = untrained()
    train(straight)
    test = datasets.load("mnist-5000", "test", size=32)
    features, classes = judging.features_and_classes(straight, test.images)
    assert features.shape == (len(test), straight.width)
    assert (classes == test.labels).double().mean() > 0.96
    accuracy = judging.accuracy(straight, test.images, test.labels)
    assert accuracy == (classes == test.labels).double().mean()
    with torch.inference_mode():
        scores = straight(test.images[:50].to(runtime.device()) / 255)
    assert torch.equal(scores.argmax(1).cpu(), classes[:50])

    path = tmp_path / "judge.pt"
    resumed, _ = interrupted_twice(untrained, lambda judge: train(judge, checkpoint=path))
    for one, other in zip(
        straight.state_dict().values(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_bad_input_is_named():
    images = torch.zeros(200, 1, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="images has 200 rows and labels 3"):
        judging.train_judge(Judge(), images, torch.arange(3))
    with pytest.raises(TypeError, match="uint8"):
        judging.features_and_classes(Judge(), images / 255)
    with pytest.raises(ValueError, match="expected \\(N, C, 32, 32\\)"):
        judging.features_and_classes(Judge(), images[:, :, :28])


def test_coverage_agrees_with_its_definition_on_few_points():
    """Five points on a line; the balls reach to the second neighbour."""
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]])
    fake = torch.tensor([[0.9], [1.1], [30.0]])
    found = measures.neighbourhoods(real, fake, count=2)
    # Radii of the real: 2, 1, 2, 8, 9. Fakes lie in: 0.9 -> balls of 0, 1, 2; 1.1 -> the same;
    # 30 -> none. (10 - 8 = 2 and 11 - 9 = 2 reach neither.)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(6 / (2 * 3))
    assert found["coverage"] == pytest.approx(3 / 5)
    # Radii of the fake: 29.1, 28.9, 29.1: each covers all of the real.
    assert found["recall"] == 1
    assert np.isclose(measures.neighbourhoods(fake, fake, count=2)["coverage"], 1)


def test_handwriting_is_measured_in_pixels():
    upright = torch.zeros(1, 32, 32, dtype=torch.uint8)
    upright[:, 6:26, 14:16] = 255
    leaning = torch.zeros_like(upright)
    for row in range(32):
        if 6 <= row < 26:
            leaning[:, row, 24 - row // 2 : 26 - row // 2] = 255  # a column in two rows
    wide = torch.zeros_like(upright)
    wide[:, 6:26, 8:24] = 255
    found = gans.handwriting(torch.stack([upright, leaning, wide]))
    assert found["ink"] == pytest.approx([40 / 1024, 40 / 1024, 320 / 1024])
    assert found["slant"] == pytest.approx([0, 0.5, 0], abs=0.02)
    assert found["width"][[0, 2]] == pytest.approx([0.5, np.sqrt((16**2 - 1) / 12)])


def test_columns_explain_what_depends_on_them_alone():
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(200, generator=generator)
    rows = torch.arange(10.0)[:, None]
    assert gans.explained_variance(columns + 5 * rows) == pytest.approx(1)
    noise = torch.randn(10, 200, generator=generator)
    assert gans.explained_variance(noise) == pytest.approx(0.1, abs=0.02)
    # As much variance of the noise as of the columns: one half, and a tenth of the other half.
    assert gans.explained_variance(columns + noise) == pytest.approx(0.55, abs=0.05)
