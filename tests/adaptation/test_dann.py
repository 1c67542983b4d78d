"""Gradient reversal, its schedule, the losses and what they lead to."""

import math

import pytest
import torch
from adaptation_toys import Pixels, digits, network, same_weights, train, two_pixels
from torch.nn import functional as F

from dlapps import adaptation, runtime
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


def test_grey_images_are_classified_like_grey_images_in_rgb():
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


@pytest.mark.parametrize(
    ("convolutions", "width", "multiplications"),
    [(dann.PAPER, 768, 1.0), (dann.DEEPER, 1152, 1.7), (dann.MEDIUM, 1152, 4.4),
     (dann.LARGE, 2304, 29)],
)  # fmt: skip
def test_networks_have_the_sizes_that_their_docstring_names(convolutions, width, multiplications):
    counts = []
    for kind in (dann.PAPER, convolutions):
        net, count = dann.DANN(convolutions=kind), [0]

        def add(layer, inputs, output, count=count):
            count[0] += layer.weight.numel() * output[0, 0].numel()

        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(add)
        with torch.no_grad():
            f = net.features(torch.rand(2, 3, 28, 28))
            net.label_classifier(f), net.domain_logits(f, 1.0)
        counts.append(count[0])
    assert net.width == width == f.shape[1]
    assert counts[1] / counts[0] == pytest.approx(multiplications, rel=0.02)


def test_instance_norm_forgets_brightness_and_contrast():
    images = 0.2 + 0.5 * torch.rand(3, 3, 28, 28, device=runtime.device())
    other = 0.1 + 0.8 * images
    plain, normalised = (network(instance_norm=on).eval() for on in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(
            normalised.features(other), normalised.features(images), atol=1e-3, rtol=1e-3
        )
        assert (plain.features(other) - plain.features(images)).abs().max() > 0.01


def test_without_batch_norm_an_answer_depends_on_no_other_image():
    images = torch.rand(8, 3, 28, 28, device=runtime.device())
    for kept in (True, False):
        net = network(batch_norm=kept, dropout=0.0)
        alone, among = net(images[:2]), net(images)[:2]
        assert torch.allclose(alone, among, atol=1e-5) != kept
        assert bool(list(adaptation.batch_norm.batch_norms(net))) == kept


def test_dropout_inside_comes_after_each_pooling_and_the_slope_lets_negative_values_pass():
    net = network(convolutions=dann.LARGE, dropout=0.2, dropout_inside=True, slope=0.1)
    kinds = [type(layer).__name__ for layer in net.feature_extractor]
    assert kinds.count("Dropout2d") == kinds.count("MaxPool2d") == 3
    assert net.feature_extractor[3](torch.tensor(-1.0)).item() == pytest.approx(-0.1)
    assert [type(x).__name__ for x in network().feature_extractor].count("Dropout2d") == 1
