"""Gradient reversal, its schedule, and training in two domains."""

import math

import pytest
import torch
from torch.nn import functional as F

from dlapps import adaptation, runtime
from dlapps.adaptation import teacher
from dlapps.datasets import ImageSet
from dlapps.models import dann


class Toy(torch.nn.Module):
    """Two players with few weights, in double precision: features tanh(W x), linear heads."""

    def __init__(self):
        super().__init__()
        self.extractor = torch.nn.Linear(3, 2, bias=False).double()
        self.label_classifier = torch.nn.Linear(2, 3, bias=False).double()
        self.domain_head = torch.nn.Linear(2, 1, bias=False).double()

    def features(self, x):
        return torch.tanh(self.extractor(x))

    def domain_logits(self, features, factor):
        return self.domain_head(dann.GradientReversal.apply(features, factor)).squeeze(1)


def network(**options):
    runtime.seed_everything(0)
    return dann.DANN(**options).to(runtime.device())


def digits(count=32, channels=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(
        0, 256, (count, channels, 28, 28), dtype=torch.uint8, generator=generator
    )
    return ImageSet(images, torch.arange(count) % 10, tuple("0123456789"), "toy digits")


def train(net, checkpoint=None, epochs=3, **settings):
    return adaptation.train(
        net,
        digits(),
        digits(channels=3, seed=2).images,
        adaptation.Settings(epochs=epochs, batch_size=8, **settings),
        tests=(digits(20, seed=3), digits(20, channels=3, seed=4)),
        checkpoint=checkpoint,
    )


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("factor", [0.0, 0.3, 2.5])
def test_reversal_is_the_identity_forwards_and_minus_the_factor_backwards(factor):
    x = torch.randn(4, 5, requires_grad=True)
    y = dann.GradientReversal.apply(x, factor)
    assert torch.equal(x, y)
    upstream = torch.randn(4, 5)
    y.backward(upstream)
    torch.testing.assert_close(x.grad, -factor * upstream)


@pytest.mark.parametrize("factor", [0.0, 0.7, 3.0])
def test_both_players_follow_the_finite_differences_of_their_own_objective(factor):
    """The features descend label - factor * domain, each head descends its own loss."""
    torch.manual_seed(0)
    toy = Toy()
    source, target = torch.randn(6, 3).double(), torch.randn(5, 3).double()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def losses():
        features = toy.features(source)
        label_loss = F.cross_entropy(toy.label_classifier(features), labels)
        return label_loss, adaptation.adversarial_loss(toy, features, toy.features(target), factor)[
            0
        ]

    label_loss, domain_loss = losses()
    (label_loss + domain_loss).backward()
    objectives = {
        "extractor.weight": lambda label, domain: label - factor * domain,
        "label_classifier.weight": lambda label, domain: label,
        "domain_head.weight": lambda label, domain: domain,
    }
    step = 1e-6
    for name, parameter in toy.named_parameters():
        for index in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[index] += sign * step
                    values.append(objectives[name](*losses()).item())
                    parameter.view(-1)[index] -= sign * step
            slope = (values[0] - values[1]) / (2 * step)
            assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, abs=1e-8)


def test_the_schedule_runs_from_0_to_almost_1():
    assert adaptation.reversal_schedule(0) == 0
    assert adaptation.reversal_schedule(1) == pytest.approx(math.tanh(5))
    shares = [i / 50 for i in range(51)]
    factors = [adaptation.reversal_schedule(p) for p in shares]
    assert factors == sorted(factors)
    # 2 / (1 + exp(-10 p)) - 1 = tanh(5 p)
    assert factors == pytest.approx([math.tanh(5 * p) for p in shares])
    for share in (-0.01, 1.01, float("nan")):
        with pytest.raises(ValueError, match="expected a share"):
            adaptation.reversal_schedule(share)


def test_an_undecided_domain_classifier_has_the_loss_and_accuracy_of_chance():
    toy = Toy()
    torch.nn.init.zeros_(toy.domain_head.weight)
    x = torch.randn(4, 3).double()
    for joint in (False, True):
        features = toy.features(x)
        domain_loss, _ = adaptation.adversarial_loss(toy, features, features, 1.0, joint)
        assert domain_loss.item() == pytest.approx(2 * math.log(2))


def test_another_target_changes_what_the_source_costs_only_in_a_joint_batch():
    label_losses = {}
    for joint in (False, True):
        for brightness in (1, 0.1):
            target = digits(channels=3, seed=2)
            images = (target.images * brightness).byte()
            settings = adaptation.Settings(epochs=1, batch_size=32, reversal=0.0, joint=joint)
            history = adaptation.train(
                network(), digits(), images, settings, tests=(digits(20), target)
            )
            label_losses[joint, brightness] = history["label_loss"]
    assert label_losses[False, 1] == label_losses[False, 0.1]
    assert label_losses[True, 1] != label_losses[True, 0.1]


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


def test_a_factor_of_0_is_training_on_the_source_alone_bit_for_bit():
    """But for chance: dropout of the target's features draws in between."""
    alone, beside = network(dropout=0.0), network(dropout=0.0)
    first = train(alone, reversal=None)
    second = train(beside, reversal=0.0)
    assert first["label_loss"] == second["label_loss"]
    assert first["source_accuracy"] == second["source_accuracy"]
    for (name, one), other in zip(
        alone.state_dict().items(), beside.state_dict().values(), strict=True
    ):
        if not name.startswith("domain_classifier"):
            assert torch.equal(one, other), name
    assert not same_weights(alone.domain_classifier, beside.domain_classifier)


def test_statistics_of_images_are_their_means_and_variances():
    net, images = network(), digits(60, channels=3, seed=5).images
    other = adaptation.adapt_batch_norm(net, images, batch_size=60)
    first = net.feature_extractor[:2](2 * (images.to(runtime.device()) / 255) - 1)
    norm = other.feature_extractor[2]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)), atol=1e-5, rtol=1e-3)
    assert not net.feature_extractor[2].running_mean.any()
    assert other.training == net.training


class Pixels(torch.nn.Module):
    """Reads two pixels of an image: one shows the class, the other the class and the domain."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.extractor = torch.nn.Linear(2, 2, bias=False)
        self.label_classifier = torch.nn.Linear(2, 2)
        self.domain_head = torch.nn.Linear(2, 1)

    def features(self, images):
        return self.extractor(4 * images[:, 0, 0, :2] - 2)

    def forward(self, images):
        return self.label_classifier(self.features(images))

    def domain_logits(self, features, factor):
        return self.domain_head(dann.GradientReversal.apply(features, factor)).squeeze(1)


def two_pixels(count, shifted, seed):
    """Return images whose pixel 0 is 0.5 -+ 0.12 by class, in noise of 0.06, in both domains.

    Pixel 1 is 0.5 -+ 0.3 by class in the source, and 0.95 in the target: who relies on it calls all
    of the target class 1. Pixel 0 alone is right with a probability of Phi(0.12 / 0.06) = 0.977.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    sign = 2.0 * labels - 1
    first = 0.5 + 0.12 * sign + 0.06 * torch.randn(count, generator=generator)
    second = torch.full((count,), 0.95) if shifted else 0.5 + 0.3 * sign
    images = torch.zeros(count, 1, 28, 28)
    images[:, 0, 0, :2] = torch.stack([first, second], 1).clamp(0, 1)
    return ImageSet((255 * images).round().byte(), labels, ("0", "1"), "two pixels")


def test_adaptation_finds_what_both_domains_share():
    accuracies = {}
    for reversal in (None, "scheduled"):
        settings = adaptation.Settings(
            epochs=30, batch_size=50, learning_rate=0.01, reversal=reversal
        )
        history = adaptation.train(
            Pixels(),
            two_pixels(2000, False, 1),
            two_pixels(2000, True, 2).images,
            settings,
            tests=(two_pixels(1000, False, 3), two_pixels(1000, True, 4)),
        )
        accuracies[reversal] = history["source_accuracy"][-1], history["target_accuracy"][-1]
    assert accuracies[None][0] > 0.99 and accuracies[None][1] < 0.6
    assert min(accuracies["scheduled"]) > 0.9


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
            chances = torch.tensor([[0.95, 0.05], [0.3, 0.7], [0.1, 0.9]])
            return chances.log() * self.weight

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


def test_grey_images_are_read_like_grey_images_in_rgb():
    net = network().eval()
    images = torch.rand(4, 1, 28, 28).to(runtime.device())
    torch.testing.assert_close(net(images), net(images.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(2, 3, 32, 32), ValueError, r"expected \(N, C, 28, 28\)"),
        (torch.rand(2, 2, 28, 28), ValueError, "expected"),
        (torch.rand(3, 28, 28), ValueError, "expected"),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), TypeError, "uint8"),
    ],
)
def test_bad_images_are_named(images, error, message):
    with pytest.raises(error, match=message):
        network()(images)


def test_training_on_the_source_alone_leaves_the_domain_classifier_and_the_target_out():
    trained, fresh = network(), network()
    history = train(trained, reversal=None)
    assert same_weights(trained.domain_classifier, fresh.domain_classifier)
    assert history["domain_loss"] == [None] * 3
    other_target = network()
    adaptation.train(
        other_target,
        digits(),
        torch.zeros(0, 3, 28, 28, dtype=torch.uint8),
        adaptation.Settings(epochs=3, batch_size=8, reversal=None),
        tests=(digits(20, seed=3), digits(20, channels=3, seed=4)),
    )
    assert same_weights(trained, other_target)


def test_history_has_a_number_an_epoch_and_the_factor_follows_the_schedule():
    net = network()
    history = train(net, epochs=2)
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        adaptation.RECORDED, 2
    )
    # 4 steps an epoch: the last ones of each epoch are steps 3 and 7 of 8.
    assert history["factor"] == pytest.approx([math.tanh(5 * 3 / 8), math.tanh(5 * 7 / 8)])
    own = adaptation.adapt_batch_norm(net, digits(channels=3, seed=2).images)
    assert history["target_accuracy"][-1] == adaptation.accuracy(own, digits(20, 3, seed=4))
    assert history["source_accuracy"][-1] == adaptation.accuracy(net, digits(20, seed=3))
    joint = network()
    history = train(joint, epochs=1, joint=True)
    assert history["target_accuracy"] == [adaptation.accuracy(joint, digits(20, 3, seed=4))]
    assert train(network(), reversal=0.25, epochs=1)["factor"] == [0.25]


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
