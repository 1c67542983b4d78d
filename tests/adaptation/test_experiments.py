"""Methods compared: one network per method and seed, their tables, and separability."""

import math

import numpy as np
import pytest
import torch
from adaptation_toys import digits, network, same_weights

from dlapps import adaptation, runtime
from dlapps.adaptation import experiments
from dlapps.datasets import ImageSet

TESTS = digits(20, seed=3), digits(20, channels=3, seed=4)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "run_each", lambda function, items, _: map(function, items))
    settings = adaptation.Settings(epochs=1, batch_size=8)
    target = digits(channels=3, seed=2)
    return adaptation.Experiment(digits(), target, TESTS, settings, [0, 1], tmp_path)


def runs_of(*target_accuracies):
    return adaptation.Runs([None] * len(target_accuracies), [
        {"target_accuracy": [0.0, t], "source_accuracy": [0.0, 0.5]} for t in target_accuracies
    ])  # fmt: skip


def test_a_method_has_a_network_per_seed_and_is_what_differs_from_the_settings(experiment):
    methods = {"DANN": {}, "no reversal": {"reversal": 0.0, "network": {"dropout": 0.1}}}
    trained = experiment.train(methods, epochs=2)
    assert list(trained) == list(methods)
    for number, seed in enumerate(experiment.seeds):
        expected = network(seed, dropout=0.1)
        settings = adaptation.Settings(epochs=2, batch_size=8, reversal=0.0, seed=seed)
        history = adaptation.train(
            expected, experiment.source, experiment.target.images, settings, tests=TESTS
        )
        assert same_weights(trained["no reversal"].networks[number], expected)
        assert trained["no reversal"].histories[number] == history
    assert not same_weights(*trained["DANN"].networks)


def test_a_method_may_start_from_networks_and_learn_from_another_source(experiment):
    first = experiment.train({"source only": {"reversal": None}})["source only"]
    changes = {"start": first, "source": experiment.target, "reversal": None}
    second = experiment.train({"continued": changes})["continued"]
    expected = network()
    expected.load_state_dict(first.networks[0].state_dict())
    settings = adaptation.Settings(epochs=1, batch_size=8, reversal=None)
    adaptation.train(expected, experiment.target, experiment.target.images, settings, tests=TESTS)
    assert same_weights(second.networks[0], expected)
    assert changes == {"start": first, "source": experiment.target, "reversal": None}


def test_statistics_of_the_target_change_its_accuracy_and_no_weight(experiment):
    plain = experiment.train({"source only": {"reversal": None}})["source only"]
    retested = experiment.with_target_statistics(plain)
    assert retested.networks == plain.networks
    assert retested.last("source_accuracy") == plain.last("source_accuracy")
    own = [adaptation.adapt_batch_norm(n, experiment.target.images) for n in plain.networks]
    assert retested.last() == [adaptation.accuracy(n, TESTS[1]) for n in own]
    averages = {"own": experiment.target.images, "the source's": experiment.source.images}
    found = experiment.target_accuracies({"plain": plain, "again": plain}, averages)
    assert found["own"] == {"plain": retested.last(), "again": retested.last()}
    other = [adaptation.adapt_batch_norm(n, experiment.source.images) for n in plain.networks]
    assert found["the source's"]["plain"] == [adaptation.accuracy(n, TESTS[1]) for n in other]


def test_rounds_without_any_label_are_rows_as_well(experiment):
    start = experiment.train({"DANN": {}})["DANN"]
    starts = {"DANN": {"start": start, "thresholds": (None, 0.0)}}
    scores = experiment.self_train(starts, source=digits(), rounds=2, reversal=None)
    assert scores["seed"].tolist() == [0, 0, 1, 1] * 2
    assert scores["round"].tolist() == [1, 2] * 4
    nothing, everything = (scores[scores["threshold"] == t] for t in ("no labels", "0"))
    assert (nothing["accepted"] == 0).all() and nothing["right"].isna().all()
    assert (everything["accepted"] == 1).all() and everything["right"].between(0, 1).all()
    assert adaptation.round_table(scores)["right"].tolist()[:2] == ["n/a", "n/a"]
    last = adaptation.last_round(scores)
    assert ("DANN", "no labels", "right") not in last
    assert last["DANN", "0", "accepted"] == [1.0, 1.0]
    rounds, rows = adaptation.round_curves(scores, "target accuracy")["DANN, τ = 0"]
    assert rounds == [1, 2] and rows.shape == (2, 2)
    assert rows[:, -1].tolist() == last["DANN", "0", "target accuracy"]


def test_numbers_over_seeds_are_means_and_sample_standard_deviations():
    assert adaptation.mean_and_deviation([0.1, 0.3]) == "0.2000 ± 0.1414"
    assert adaptation.mean_and_deviation([0.5]) == "0.5000"
    assert adaptation.mean_and_deviation([math.nan]) == "n/a"
    groups = {"target": {"a": [0.1, 0.3], "b": [0.5, 0.5]}}
    drawn = adaptation.over_seeds(groups)
    assert drawn["series"] == {"target": pytest.approx([0.2, 0.5])}
    assert drawn["errors"] == {"target": pytest.approx([math.sqrt(0.02), 0.0])}
    assert adaptation.over_seeds({"target": {"a": [0.1]}})["errors"] == {"target": [0.0]}
    table = adaptation.mean_table(groups, "method")
    assert table.columns.tolist() == ["method", "target"] and table["method"].tolist() == ["a", "b"]


def test_tables_count_points_from_the_reference():
    methods = {"source only": runs_of(0.4, 0.5), "DANN": runs_of(0.8, 0.7)}
    table = adaptation.table(methods, reference="source only")
    assert table["target accuracy"].tolist() == ["0.4500 ± 0.0707", "0.7500 ± 0.0707"]
    assert table["points"].tolist() == ["+0.0", "+30.0"]
    assert "domain classifier right" not in table and "points" not in adaptation.table(methods)
    assert adaptation.last_epoch(methods, "target_accuracy")["DANN"] == [0.8, 0.7]
    assert methods["DANN"].mean() == pytest.approx(0.75)
    epochs, rows = adaptation.learning_curves(methods, "target_accuracy")["DANN"]
    assert list(epochs) == [1, 2] and rows == [[0.0, 0.8], [0.0, 0.7]]


def test_what_needs_a_gpu_is_a_row_that_says_so():
    methods = {"DANN": runs_of(0.8, 0.7), "large": adaptation.Runs()}
    table = adaptation.table(methods, reference="DANN")
    assert table["target accuracy"].tolist() == ["0.7500 ± 0.0707", "needs a GPU"]
    assert table["points"].isna().tolist() == [False, True]


class Says(torch.nn.Module):
    """Gives images the classes that it was told, one after the other."""

    def __init__(self, classes):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.eye(10)[classes])

    def forward(self, images):
        return self.scores[: len(images)]


def test_disagreements_are_counted_in_both_directions():
    images = torch.zeros(10, 1, 28, 28, dtype=torch.uint8)
    test = ImageSet(images, torch.zeros(10, dtype=int), tuple("0123456789"), "zeros")
    one, other = ([0] * 9 + [1], [1] * 8 + [0, 0])
    pairs = {"pair": tuple(adaptation.Runs([Says(c)], []) for c in (one, other))}
    (row,) = adaptation.disagreements(pairs, test, [0]).to_dict("records")
    # 8 against 1 of 9 coins: 2 (1 + 9) / 2**9.
    assert (row["only the first"], row["only the second"], row["p"]) == (8, 1, f"{20 / 512:.2g}")
    same = {"pair": pairs["pair"][:1] * 2}
    assert adaptation.disagreements(same, test, [0])["p"].tolist() == ["1"]


def test_a_shift_is_seen_by_the_regression_and_not_by_the_domain_classifier():
    f = np.random.default_rng(0).normal(size=(100, 8))
    assert adaptation.separability(f[:50], f[50:]) < 0.7
    assert adaptation.separability(f[:50], f[50:] + 5) == 1
    net = network()
    f = torch.randn(64, net.width, device=runtime.device())
    with torch.no_grad():
        torch.testing.assert_close(
            net.domain_logits(f + 5, 1.0), net.domain_logits(f, 1.0), atol=1e-3, rtol=1e-3
        )
        joint = net.domain_logits(torch.cat([f, f + 5]), 1.0)
    assert (joint[:64] - joint[64:]).abs().max() > 0.1


def test_domains_are_told_apart_on_other_digits_of_the_target(experiment):
    nets = [network(0), network(1)]
    runs, (source, target) = adaptation.Runs(nets, []), TESTS
    for own in (True, False):
        reader = adaptation.adapt_batch_norm(nets[0], experiment.target.images) if own else nets[0]
        f_s, f_t = adaptation.features_of_tests(experiment, nets[0], 10, own_averages=own)
        assert np.array_equal(f_s, adaptation.features(nets[0], source.images[:10]))
        assert np.array_equal(f_t, adaptation.features(reader, target.images[10:]))
        found = adaptation.told_apart(experiment, runs, 10, own_averages=own)
        assert len(found) == 2 and found[0] == adaptation.separability(f_s, f_t)
    halves = (adaptation.features(nets[1], part) for part in source.images.split(10))
    assert adaptation.chance(experiment, runs, 10)[1] == adaptation.separability(*halves)


def test_features_are_those_of_eval_mode_and_the_mode_stays():
    net, images = network(), digits(4).images
    found = adaptation.features(net, images)
    assert net.training and found.shape == (4, net.width)
    with torch.no_grad():
        expected = net.eval().features(images.to(runtime.device()) / 255)
    assert np.array_equal(found, expected.cpu().numpy())
    points = adaptation.plane(np.tile(found, (10, 1)), np.tile(found, (5, 1)) + 1)
    assert [p.shape for p in points] == [(40, 2), (20, 2)]
