"""Training in two domains: what is trained, recorded, tested and resumed."""

import math

import pytest
import torch
from adaptation_toys import Pixels, digits, network, same_weights, train, two_pixels
from torch.nn import functional as F

from dlapps import adaptation, runtime
from dlapps.datasets import ImageSet


def test_the_learning_rate_falls_along_half_a_cosine():
    """Two whole-batch steps, at the rate and at half of it, taken here by hand."""
    data = two_pixels(20, False, 1)
    trained, expected = Pixels(), Pixels()
    adaptation.train(
        trained, data, data.images,
        adaptation.Settings(
            epochs=2, batch_size=20, learning_rate=0.1, optimizer="sgd", reversal=None
        ),
        tests=(data, data),
    )  # fmt: skip
    optimizer = torch.optim.SGD(expected.parameters(), momentum=0.9)
    for rate in (0.1, 0.05):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(expected(data.images / 255), data.labels).backward()
        optimizer.step()
    for one, other in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_statistics_of_images_are_their_means_and_variances():
    net, images = network(), digits(60, channels=3, seed=5).images
    other = adaptation.adapt_batch_norm(net, images, batch_size=60)
    first = net.feature_extractor[:2](2 * (images.to(runtime.device()) / 255) - 1)
    norm = other.feature_extractor[2]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)), atol=1e-5, rtol=1e-3)
    assert not net.feature_extractor[2].running_mean.any()
    assert other.training == net.training


def test_training_on_the_source_alone_leaves_the_domain_classifier_and_the_target_out():
    trained, fresh = network(), network()
    history = train(trained, reversal=None)
    assert same_weights(trained.domain_classifier, fresh.domain_classifier)
    assert set(history) == {"label_loss", "source_accuracy", "target_accuracy"}
    other_target = network()
    adaptation.train(
        other_target,
        digits(),
        torch.zeros(0, 3, 28, 28, dtype=torch.uint8),
        adaptation.Settings(epochs=3, batch_size=8, reversal=None),
        tests=(digits(20, seed=3), digits(20, channels=3, seed=4)),
    )
    assert same_weights(trained, other_target)


def test_history_has_a_number_per_epoch_and_the_factor_follows_the_schedule():
    net = network()
    history = train(net, epochs=2)
    losses = ["label_loss", "domain_loss", "domain_accuracy"]
    recorded = [*losses, "factor", "source_accuracy", "target_accuracy"]
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(recorded, 2)
    # 4 steps an epoch: the last ones of each epoch are steps 3 and 7 of 8.
    assert history["factor"] == pytest.approx([math.tanh(5 * 3 / 8), math.tanh(5 * 7 / 8)])
    own = adaptation.adapt_batch_norm(net, digits(channels=3, seed=2).images)
    assert history["target_accuracy"][-1] == adaptation.accuracy(own, digits(20, 3, seed=4))
    assert history["source_accuracy"][-1] == adaptation.accuracy(net, digits(20, seed=3))
    joint = network()
    history = train(joint, epochs=1, joint=True)
    assert history["target_accuracy"] == [adaptation.accuracy(joint, digits(20, 3, seed=4))]
    assert train(network(), reversal=0.25, epochs=1)["factor"] == [0.25]


def test_the_consistency_begins_after_its_share_of_the_training():
    """Before it, the teacher's labels change nothing; after it, they do."""
    options = {"epochs": 2, "consistency": 1.0, "confidence": 0.0, "reversal": None}
    options |= {"optimizer": "sgd", "learning_rate": 0.01}
    late, never, early = network(), network(), network()
    train(never, **options | {"consistency": 1e-12})
    train(late, **options, consistency_from=0.99)  # 8 steps: from the ninth on
    train(early, **options, consistency_from=0.5)  # from the fifth on
    for one, other in zip(late.parameters(), never.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(early.label_classifier[0].weight, late.label_classifier[0].weight)


def test_accuracy_is_the_share_of_right_first_choices():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = torch.nn.Parameter(torch.eye(10)[3])

        def forward(self, images):
            return self.scores.expand(len(images), -1)

    test = digits(20)
    assert adaptation.accuracy(Constant(), test) == (test.labels == 3).float().mean().item()


def test_the_scores_after_an_epoch_influence_nothing():
    """The tests only measure: other target labels, the same weights."""
    weights = []
    for relabel in (False, True):
        net = network()
        target_test = digits(20, channels=3, seed=4)
        if relabel:
            target_test = ImageSet(
                target_test.images, 9 - target_test.labels, target_test.classes, "relabelled"
            )
        adaptation.train(
            net,
            digits(),
            digits(channels=3, seed=2).images,
            adaptation.Settings(epochs=2, batch_size=8),
            tests=(digits(20, seed=3), target_test),
        )
        weights.append(net)
    assert same_weights(*weights)


@pytest.mark.parametrize(
    "options",
    [{}, {"reversal": None}, {"consistency": 1.0, "confidence": 0.1, "augment": "shape"}],
)
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, interrupted_twice, options
):
    straight = network()
    expected = train(straight, **options)
    resumed, history = interrupted_twice(
        network, lambda net: train(net, tmp_path / "training.pt", **options)
    )
    assert history == expected
    assert same_weights(straight, resumed)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    nets = [network() for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        train(net, epochs=1, seed=seed)
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reversal": "always"}, "reversal is 'always'"),
        ({"reversal": float("inf")}, "reversal is inf"),
        ({"optimizer": "lbfgs"}, "optimizer is 'lbfgs'"),
        ({"augment": "colour"}, "augment is 'colour'"),
        ({"consistency": -1}, "consistency is -1"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"consistency_from": 1.0}, "consistency_from is 1.0"),
        ({"reversal": float("nan")}, "reversal is nan"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        adaptation.Settings(**settings)


def test_too_few_images_are_named():
    with pytest.raises(ValueError, match="target_images has 4 rows for batches of 8"):
        adaptation.train(
            network(),
            digits(),
            digits(4, channels=3).images,
            adaptation.Settings(batch_size=8),
            tests=(digits(20), digits(20, channels=3)),
        )
