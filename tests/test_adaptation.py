"""Gradient reversal, its schedule, and training in two domains."""

import math

import pytest
import torch

from dlapps import adaptation, runtime
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


def network():
    runtime.seed_everything(0)
    return dann.DANN()


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
        label_loss, domain_loss, _ = adaptation.adversarial_loss(
            toy, source, labels, target, factor
        )
        return label_loss, domain_loss

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
    _, domain_loss, _ = adaptation.adversarial_loss(toy, x, torch.zeros(4).long(), x, 1.0)
    assert domain_loss.item() == pytest.approx(2 * math.log(2))


def test_each_domain_is_normalised_by_its_own_statistics():
    net = network().train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
    source, target = torch.rand(8, 1, 28, 28), torch.rand(8, 3, 28, 28)
    labels = torch.arange(8)
    losses = [
        adaptation.adversarial_loss(net, source, labels, domain, 1.0)[0]
        for domain in (target, target * 0.1)
    ]
    torch.testing.assert_close(*losses)


def test_grey_images_are_read_like_grey_images_in_rgb():
    net = network().eval()
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(net(images), net(images.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(2, 3, 32, 32), ValueError, r"expected \(N, C, 28, 28\)"),
        (torch.rand(2, 2, 28, 28), ValueError, "expected"),
        (torch.rand(3, 28, 28), ValueError, "expected"),
        (torch.rand(2, 3, 28, 28) * 255, ValueError, r"expected \[0, 1\]"),
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
    assert history["target_accuracy"][-1] == adaptation.accuracy(net, digits(20, 3, seed=4))
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


@pytest.mark.parametrize("reversal", ["scheduled", None])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, monkeypatch, reversal
):
    straight = network()
    expected = train(straight, reversal=reversal)
    checkpoint = tmp_path / "training.pt"
    save, saves = adaptation.save_checkpoint, []

    def save_and_stop(*arguments):
        save(*arguments)
        saves.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(adaptation, "save_checkpoint", save_and_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(network(), checkpoint, reversal=reversal)
    monkeypatch.setattr(adaptation, "save_checkpoint", save)
    resumed = network()
    torch.rand(5)  # chance spent elsewhere does not matter
    assert train(resumed, checkpoint, reversal=reversal) == expected
    assert same_weights(straight, resumed)
    assert [len(arguments[2]["history"]["factor"]) for arguments in saves] == [1, 2]


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
        ({"reversal": -0.5}, "reversal is -0.5"),
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
