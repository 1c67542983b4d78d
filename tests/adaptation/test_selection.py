"""Scores that need no label of the target, and how well they would have chosen."""

import math

import pytest
import torch
from adaptation_toys import digits, network
from scipy.stats import entropy

from dlapps import adaptation
from dlapps.adaptation import experiments, selection
from dlapps.datasets import ImageSet


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    for module in (experiments, selection):
        monkeypatch.setattr(module, "run_each", lambda function, items, _: map(function, items))
    settings = adaptation.Settings(epochs=1, batch_size=8)
    target = digits(channels=3, seed=2)
    tests = digits(20, seed=3), digits(20, channels=3, seed=4)
    return adaptation.Experiment(digits(), target, tests, settings, [0, 1], tmp_path)


def test_entropy_and_information_are_those_of_scipy():
    scores = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    p = scores.double().softmax(1).numpy()
    assert adaptation.mean_entropy(scores) == pytest.approx(entropy(p, axis=1).mean())
    expected = entropy(p.mean(0)) - entropy(p, axis=1).mean()
    assert adaptation.information(scores) == pytest.approx(expected)


def test_one_confident_class_has_no_entropy_and_no_information():
    collapsed = torch.tensor([[1e4, 0.0, 0.0]]).expand(6, 3)
    assert adaptation.mean_entropy(collapsed) == adaptation.information(collapsed) == 0
    confident = 1e4 * torch.eye(3)
    assert adaptation.mean_entropy(confident) == 0
    assert adaptation.information(confident) == pytest.approx(math.log(3))
    assert adaptation.mean_entropy(torch.zeros(2, 3)) == pytest.approx(math.log(3))


def test_reverse_validation_learns_from_the_answers_and_is_tested_on_the_source(experiment):
    runs = {"DANN": adaptation.Runs([network(5), network(6)], [])}
    found = adaptation.reverse_validation(experiment, runs, 24, epochs=2)
    assert list(found) == ["DANN"]
    images = experiment.target.images
    for number, seed in enumerate(experiment.seeds):
        own = adaptation.adapt_batch_norm(runs["DANN"].networks[number], images)
        labels = adaptation.predict(own, images[:24]).argmax(1)
        taught = network(seed)
        answers = ImageSet(images[:24], labels, experiment.target.classes, "answers")
        settings = adaptation.Settings(epochs=2, batch_size=8, reversal=None, seed=seed)
        adaptation.train(taught, answers, images, settings, tests=experiment.tests)
        on_source = adaptation.adapt_batch_norm(taught, experiment.source.images)
        assert found["DANN"][number] == adaptation.accuracy(on_source, experiment.tests[0])


def test_no_score_depends_on_labels_of_the_target(experiment):
    runs = {"a": adaptation.Runs([network(5), network(6)], [])}
    scores = adaptation.label_free_scores(experiment, runs, 16)
    relabelled = [ImageSet(d.images, 9 - d.labels, d.classes, "relabelled") for d in
                  (experiment.target, experiment.tests[1])]  # fmt: skip
    other = adaptation.Experiment(
        experiment.source, relabelled[0], (experiment.tests[0], relabelled[1]),
        experiment.settings, experiment.seeds, experiment.folder / "other",
    )  # fmt: skip
    assert adaptation.label_free_scores(other, runs, 16) == scores
    assert len(scores) == 3 and all(len(score["a"]) == 2 for score in scores.values())


def test_a_choice_loses_what_the_best_has_more():
    accuracies = {"λ = 0": [0.5, 0.9], "λ = 1": [0.8, 0.7], "λ = 3": [0.6, 0.8]}
    scores = {
        "the accuracy itself": accuracies,
        "its opposite": {k: [-a for a in v] for k, v in accuracies.items()},
    }
    right, wrong = adaptation.choices(scores, accuracies).to_dict("records")
    assert right["chosen"] == ["λ = 1", "λ = 0"] and right["lost"] == [0, 0]
    assert right["rank correlation"] == pytest.approx([1, 1])
    assert wrong["chosen"] == ["λ = 0", "λ = 1"]
    assert wrong["lost"] == pytest.approx([30, 20])
    assert wrong["rank correlation"] == pytest.approx([-1, -1])
    table = adaptation.choice_table(adaptation.choices(scores, accuracies))
    assert table["chosen per seed"].tolist() == ["λ = 1, λ = 0", "λ = 0, λ = 1"]
    assert table["points lost"].tolist() == ["0.00 ± 0.00", "25.00 ± 7.07"]
