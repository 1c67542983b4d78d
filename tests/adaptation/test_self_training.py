"""Labels that networks gave: the teacher's, and pseudo-labels."""

import math

import pytest
import torch
from adaptation_toys import digits, network, same_weights, train

from dlapps import adaptation
from dlapps.adaptation import teacher


def test_consistency_counts_what_the_teacher_is_sure_of():
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    teacher = torch.tensor([[4.0, 0.0], [0.1, 0.0], [0.0, 4.0]])
    loss, share = adaptation.consistency_loss(scores, teacher, 0.9)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(3))) / 3
    assert loss.item() == pytest.approx(expected)
    assert share.item() == pytest.approx(2 / 3)


def test_the_teacher_is_the_average_that_is_tested_and_kept():
    net = network()
    history = train(net, epochs=2, consistency=1.0, confidence=0.0, augment="shape")
    assert history["accepted"] == [1.0, 1.0]
    own = adaptation.adapt_batch_norm(net, digits(channels=3, seed=2).images)
    assert history["target_accuracy"][-1] == adaptation.accuracy(own, digits(20, 3, seed=4))
    images = digits(60, channels=3, seed=5).images
    expected, found = (
        adaptation.adapt_batch_norm(n, images) for n in (net, teacher.teacher_of(net))
    )
    assert same_weights(expected, found)  # batch norms' averages among them
    student = network()
    train(student, epochs=2, augment="shape")
    assert not same_weights(net, student)


def test_pseudo_labels_are_first_choices_above_the_threshold():
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            probabilities = torch.tensor([[0.95, 0.05], [0.3, 0.7], [0.1, 0.9]])
            return probabilities.log() * self.weight

    images = digits(3).images
    assert adaptation.pseudo_labels(Fixed(), images, 0.8).tolist() == [0, -1, 1]
    assert adaptation.pseudo_labels(Fixed(), images, 0).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        adaptation.pseudo_labels(Fixed(), images, 1.5)


def test_only_given_target_labels_are_learned():
    """No label at all is the same as none for the weights; given ones change them."""
    nets = [network(dropout=0.0) for _ in range(3)]
    target = digits(channels=3, seed=2)
    nothing = torch.full((len(target),), -1)
    for net, labels in zip(nets, (None, nothing, target.labels), strict=True):
        adaptation.train(
            net, digits(), target.images, adaptation.Settings(epochs=1, batch_size=8),
            tests=(digits(20), target), target_labels=labels,
        )  # fmt: skip
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(ValueError, match="target_labels has shape"):
        adaptation.train(
            network(), digits(), target.images, adaptation.Settings(epochs=1, batch_size=8),
            tests=(digits(20), target), target_labels=nothing[:5],
        )  # fmt: skip


def test_rounds_learn_from_the_labels_that_the_round_before_gave(tmp_path):
    target = digits(channels=3, seed=2)
    settings = adaptation.Settings(epochs=1, batch_size=8, reversal=None)

    def self_train(net):
        return adaptation.self_train(
            net, digits(), target.images, settings, threshold=0.11, rounds=2,
            tests=(digits(20), target), checkpoint=tmp_path / "rounds.pt",
        )  # fmt: skip

    net, by_hand, again = (network() for _ in range(3))
    rounds = self_train(net)
    for labels, history in rounds:
        own = adaptation.adapt_batch_norm(by_hand, target.images)
        assert torch.equal(labels, adaptation.pseudo_labels(own, target.images, 0.11))
        expected = adaptation.train(
            by_hand, digits(), target.images, settings,
            tests=(digits(20), target), target_labels=labels,
        )  # fmt: skip
        assert history == expected
    assert same_weights(net, by_hand)
    assert sorted(path.name[:9] for path in tmp_path.iterdir()) == ["rounds-1-", "rounds-2-"]
    assert [history for _, history in self_train(again)] == [history for _, history in rounds]
    assert same_weights(net, again)
