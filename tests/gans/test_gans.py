"""Generators, discriminators, their losses and the training loop."""

import math

import pytest
import torch
from torch.nn import functional as F

from dlapps import gans, runtime
from dlapps.models import gan

WIDTH = 4


def conditional_pair():
    runtime.seed_everything(0)
    networks = (
        gan.ConditionalDCGANGenerator(latent=8, width=2 * WIDTH),
        gan.ConditionalDCGANDiscriminator(width=WIDTH),
    )
    return tuple(network.apply(gan.init_weights) for network in networks)


def toy_digits(count=24):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# Architectures


@pytest.mark.parametrize(("width", "channels", "latent"), [(32, 1, 100), (128, 3, 10)])
def test_dcgan_has_the_parameters_of_its_formula(width, channels, latent):
    w, k = width, 4 * 4
    convolutions = k * (latent * 4 * w + 4 * w * 2 * w + 2 * w * w + w * channels)
    batch_norms = 2 * (4 * w + 2 * w + w)
    assert parameters(gan.DCGANGenerator(latent, w, channels)) == convolutions + batch_norms
    convolutions = k * (channels * w + w * 2 * w + 2 * w * 4 * w + 4 * w)
    assert parameters(gan.DCGANDiscriminator(w, channels)) == convolutions + batch_norms


def test_cdcgan_has_the_parameters_of_its_formula():
    k = 4 * 4
    convolutions = k * (100 * 256 + 10 * 256 + 512 * 256 + 256 * 128 + 128)
    batch_norms = 2 * (256 + 256 + 256 + 128)
    assert parameters(gan.ConditionalDCGANGenerator()) == convolutions + batch_norms
    convolutions = k * (64 + 10 * 64 + 128 * 256 + 256 * 512 + 512)
    batch_norms = 2 * (256 + 512)
    assert parameters(gan.ConditionalDCGANDiscriminator()) == convolutions + batch_norms


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_32_pixels_and_lie_between_0_and_1(channels):
    z, labels = torch.randn(5, 100), torch.arange(5)
    for generator, discriminator in (
        (gan.DCGANGenerator(channels=channels), gan.DCGANDiscriminator(channels=channels)),
        (
            gan.ConditionalDCGANGenerator(width=16, channels=channels),
            gan.ConditionalDCGANDiscriminator(width=4, channels=channels),
        ),
    ):
        images = generator(z, labels)
        assert images.shape == (5, channels, 32, 32)
        assert images.min() >= 0
        assert images.max() <= 1
        assert discriminator(images, labels).shape == (5,)


def test_images_in_0_1_are_tanh_images_moved():
    generator = gan.DCGANGenerator().eval()
    z = torch.randn(3, 100)
    torch.testing.assert_close(2 * generator(z) - 1, generator.body(z[:, :, None, None]))


def test_initial_weights_have_dcgans_mean_and_deviation():
    runtime.seed_everything(0)
    generator = gan.DCGANGenerator(width=64).apply(gan.init_weights)
    convolution, batch_norm = generator.body[1][0], generator.body[0][1]
    assert convolution.weight.mean().abs() < 1e-3
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert batch_norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert batch_norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not batch_norm.bias.any()


def test_the_label_changes_the_image_and_the_verdict():
    generator, discriminator = (network.eval() for network in conditional_pair())
    z, three, five = torch.randn(1, 8), torch.tensor([3]), torch.tensor([5])
    assert not torch.equal(generator(z, three), generator(z, five))
    image = torch.rand(1, 1, 32, 32)
    assert discriminator(image, three) != discriminator(image, five)


@pytest.mark.parametrize("training", [True, False])
def test_cdcgan_is_the_convolution_of_joined_maps(training):
    labels = torch.tensor([3, 5, 3, 9, 3, 5])
    one_hot = F.one_hot(labels, 10).double()[:, :, None, None]
    z, images = torch.randn(6, 8).double(), torch.rand(6, 1, 32, 32).double()

    def joined(generator, discriminator):
        maps = [generator.noise_branch(z[:, :, None, None]), generator.label_branch(one_hot)]
        drawn = (generator.body(torch.cat(maps, 1)) + 1) / 2
        label_maps = discriminator.label_branch(one_hot.expand(-1, -1, 32, 32))
        maps = [discriminator.image_branch(2 * images - 1), label_maps]
        return drawn, discriminator.body(torch.cat(maps, 1)).flatten()

    def as_used(generator, discriminator):
        return generator(z, labels), discriminator(images, labels)

    results = []
    for forward in (joined, as_used):
        networks = [network.double().train(training) for network in conditional_pair()]
        outputs = forward(*networks)
        torch.manual_seed(1)
        loss = sum((output * torch.rand_like(output)).sum() for output in outputs)
        loss.backward()
        gradients = [p.grad for network in networks for p in network.parameters()]
        averages = [b for network in networks for b in network.buffers()]
        results.append([*outputs, *gradients, *averages])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("z", "labels", "message"),
    [
        (torch.randn(3, 7), torch.arange(3), r"z has shape \(3, 7\), expected \(N, 8\)"),
        (torch.randn(0, 8), torch.arange(0), "N at least 1"),
        (torch.randn(3, 8), torch.arange(2), r"expected int64 \(3,\)"),
        (torch.randn(3, 8), torch.arange(3.0), "labels is torch.float32"),
        (torch.randn(3, 8), None, "labels is None"),
    ],
)
def test_bad_noise_and_labels_are_named(z, labels, message):
    with pytest.raises(ValueError, match=message):
        conditional_pair()[0](z, labels)


# Losses


def test_losses_are_binary_cross_entropies():
    real, fake = torch.randn(50), torch.randn(50)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(50))
    expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(50))
    torch.testing.assert_close(gans.discriminator_loss(real, fake), expected)
    expected = F.binary_cross_entropy_with_logits(fake, torch.ones(50))
    torch.testing.assert_close(gans.generator_loss(fake), expected)
    expected = torch.log(1 - torch.sigmoid(fake)).mean()
    torch.testing.assert_close(gans.generator_loss(fake, "saturating"), expected)


def test_losses_at_chance_are_logarithms_of_two():
    zero = torch.zeros(4)
    log2 = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(gans.discriminator_loss(zero, zero), 2 * log2)
    torch.testing.assert_close(gans.generator_loss(zero), log2)
    torch.testing.assert_close(gans.generator_loss(zero, "saturating"), -log2)


def test_hinge_losses_are_piecewise_linear():
    real, fake = torch.tensor([-2.0, 0.5, 3.0]), torch.tensor([-3.0, -0.5, 2.0])
    loss = gans.discriminator_loss(real, fake, "hinge")
    assert loss.item() == pytest.approx((3 + 0.5 + 0) / 3 + (0 + 0.5 + 3) / 3)
    assert gans.generator_loss(fake, "hinge").item() == pytest.approx(0.5)
    real.requires_grad_()
    gans.discriminator_loss(real, fake, "hinge").backward()
    torch.testing.assert_close(real.grad, torch.tensor([-1 / 3, -1 / 3, 0.0]))


def test_the_gradient_penalty_of_a_linear_discriminator_is_half_its_squared_weights():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

        def forward(self, x, labels):
            return x @ self.weight

    discriminator = Linear()
    penalty = gans.gradient_penalty(discriminator, torch.randn(7, 2))
    assert penalty.item() == pytest.approx(25 / 2)
    penalty.backward()  # d (|w|² / 2) / dw = w
    torch.testing.assert_close(discriminator.weight.grad, discriminator.weight.data)


def test_the_best_discriminator_of_two_gaussians_is_their_log_ratio():
    """Real N(0, 1) and fake N(2, 1): the best logit is log p(x) / q(x) = 2 - 2 x."""
    quantiles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    real = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
    fake = real + 2
    slope, offset = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([slope, offset], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = gans.discriminator_loss(slope * real + offset, slope * fake + offset)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert (slope.item(), offset.item()) == pytest.approx((-2, 2), abs=2e-3)


@pytest.mark.parametrize("logit", [-20.0, -3.0, 0.0, 3.0, 20.0])
def test_the_gradients_of_both_generator_losses_are_the_closed_forms(logit):
    sigmoid = 1 / (1 + torch.exp(torch.tensor(-logit)))
    for loss, expected in (("non-saturating", sigmoid - 1), ("saturating", -sigmoid)):
        logits = torch.tensor([logit], requires_grad=True)
        gans.generator_loss(logits, loss).backward()
        torch.testing.assert_close(logits.grad[0], expected)
    # So where D rejects everything, one loss teaches at full strength and the other nothing.


# Training


def train(networks, checkpoint=None, epochs=3, **settings):
    generator, discriminator = networks
    images, labels = toy_digits()
    return gans.train(
        generator,
        discriminator,
        images,
        labels,
        gans.Settings(epochs=epochs, batch_size=8, **settings),
        fixed=gans.fixed_inputs(generator, 20),
        snapshots=(0, 4),
        checkpoint=checkpoint,
    )


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for network, twin in zip(one, other, strict=True)
        for a, b in zip(network.state_dict().values(), twin.state_dict().values(), strict=True)
    )


def test_a_step_is_goodfellows_algorithm_on_a_network_known_by_hand():
    """G(z) = b z and D(x) = sigmoid(c x): each update is Adam's first, the sign of the gradient."""

    class Scale(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(factor))

        def forward(self, x, labels=None):
            return self.factor * x

    generator, discriminator = Scale(0.5), Scale(0.3)
    rate = 0.01
    optimizers = [torch.optim.Adam(n.parameters(), rate) for n in (generator, discriminator)]
    real, z = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])
    found = gans.gan_step(
        (generator, discriminator), optimizers, [(real, None)], [z], gans.Settings()
    )
    loss_d, loss_g, d_real, d_fake, length_d, length_g, spread = (v.item() for v in found.values())
    sigmoid = torch.sigmoid
    assert d_real == pytest.approx(sigmoid(0.3 * real).mean().item())
    assert d_fake == pytest.approx(sigmoid(0.3 * 0.5 * z).mean().item())
    expected = -(sigmoid(0.3 * real).log().mean() + (1 - sigmoid(0.15 * z)).log().mean())
    assert loss_d == pytest.approx(expected.item())
    # d loss_d / d c = -mean(x (1 - D(x))) + mean(G(z) D(G(z))) < 0, so c grows by the rate.
    slope = -(real * (1 - sigmoid(0.3 * real))).mean() + (0.5 * z * sigmoid(0.15 * z)).mean()
    assert slope < 0
    assert discriminator.factor.item() == pytest.approx(0.3 + rate, abs=1e-6)
    # G sees the new D, and its score grows with b.
    assert loss_g == pytest.approx(-sigmoid((0.3 + rate) * 0.5 * z).log().mean().item(), rel=1e-5)
    assert generator.factor.item() == pytest.approx(0.5 + rate, abs=1e-6)
    assert discriminator.factor.requires_grad
    assert length_d == pytest.approx(-slope.item())
    assert length_g == pytest.approx(
        ((0.3 + rate) * z * (1 - sigmoid((0.3 + rate) * 0.5 * z))).mean().item(), rel=1e-5
    )
    assert spread == pytest.approx(0.25)  # of 0.5 and 1


def test_each_network_is_updated_as_often_as_asked():
    networks, steps = conditional_pair(), []
    images, labels = toy_digits(8)
    batch = images / 255, labels
    optimizers = [torch.optim.SGD(network.parameters(), 1e-3) for network in networks]
    for number, optimizer in enumerate(optimizers):
        optimizer.register_step_post_hook(lambda *_, number=number: steps.append("GD"[number]))
    settings = gans.Settings()
    for batches, noises, expected in ((3, 3, "DDDG"), (1, 3, "DGGG"), (2, 3, "DDGG")):
        steps.clear()
        gans.gan_step(
            networks, optimizers, [batch] * batches, list(torch.randn(noises, 8, 8)), settings
        )
        assert "".join(steps) == expected


def test_an_averaged_generator_is_what_is_kept():
    plain, averaged = conditional_pair(), conditional_pair()
    train(plain)
    history = train(averaged, average=0.9)
    assert same_weights(plain[1:], averaged[1:])  # it changes nothing for D
    assert not same_weights(plain[:1], averaged[:1])
    z, labels = gans.fixed_inputs(averaged[0], 20)
    assert torch.equal(history.snapshots[9], gans.generate(averaged[0], z, labels))


def watch_adam(monkeypatch, settings):
    """Train with Adam; return the (betas, rate) of both optimisers at each of their steps."""
    seen = []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            (group,) = self.param_groups
            seen.append((group["betas"], float(group["lr"])))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    train(conditional_pair(), **settings)
    return seen


def test_a_rate_along_a_cosine_begins_at_its_peak_and_ends_near_0(monkeypatch):
    settings = {"learning_rate": 0.01, "schedule": "cosine", "beta1": 0.4, "beta2": 0.9}
    seen = watch_adam(monkeypatch, settings)
    assert {betas for betas, _ in seen} == {(0.4, 0.9)} and len(seen) == 2 * 9
    wanted = [0.01 * (1 + math.cos(math.pi * t / 9)) / 2 for t in range(9)]
    assert [rate for _, rate in seen[::2]] == pytest.approx(wanted, rel=1e-6)
    assert [rate for _, rate in seen[1::2]] == pytest.approx(wanted, rel=1e-6)


def test_a_constant_rate_stays(monkeypatch):
    seen = watch_adam(monkeypatch, {"learning_rate": 0.01})
    assert {betas for betas, _ in seen} == {(0.5, 0.999)}
    assert [rate for _, rate in seen] == pytest.approx([0.01] * 18, rel=1e-6)


def records(count=300, **changed):
    usual = {"d_real": 0.6, "d_fake": 0.4, "spread": 0.2}
    columns = {name: [usual.get(name, 1.0)] * count for name in gans.RECORDED}
    for name, (first, value) in changed.items():
        columns[name] = columns[name][:first] + [value] * (count - first)
    return columns


def test_what_goes_wrong_is_named_with_the_iteration_at_which_it_began():
    assert gans.failures(records(), 0.2) == {}
    assert gans.failures(records(spread=(150, 0.001)), 0.2) == {"collapse": 141}
    # Of a window of 100, 91 or more must be collapsed for a mean below a tenth: 0.2 k + ... < 2.
    assert gans.failures(records(generator_loss=(120, float("nan"))), 0.2) == {"not finite": 120}
    won = records(d_real=(100, 1.0), d_fake=(100, 0.0))
    assert gans.failures(won, 0.2) == {"discriminator won": 98}
    recovered = records(spread=(0, 0.001))
    recovered["spread"][200:] = [0.2] * 100
    assert gans.failures(recovered, 0.2) == {}


def test_a_training_that_diverges_stops_and_says_when(capsys):
    networks = conditional_pair()
    history = train(networks, learning_rate=1e30)
    first = history.failures["not finite"]
    assert f"not finite from iteration {first}" in capsys.readouterr().out
    assert {len(values) for values in history.records.values()} == {first + 1}
    assert first < 8


def test_training_records_each_iteration_and_keeps_snapshots():
    networks = conditional_pair()
    history = train(networks)
    assert {name: len(values) for name, values in history.records.items()} == dict.fromkeys(
        gans.RECORDED, 9
    )
    assert list(history.snapshots) == [0, 4, 9]
    assert history.snapshots[9].dtype == torch.uint8
    assert history.snapshots[9].shape == (20, 1, 32, 32)
    z, labels = gans.fixed_inputs(networks[0], 20)
    torch.testing.assert_close(
        history.snapshots[9], gans.generate(networks[0], z, labels), rtol=0, atol=0
    )


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    pairs = [conditional_pair() for _ in range(3)]
    for networks, seed in zip(pairs, (0, 0, 1), strict=True):
        train(networks, seed=seed)
    assert same_weights(pairs[0], pairs[1])
    assert not same_weights(pairs[0], pairs[2])


@pytest.mark.parametrize(
    "settings", [{}, {"average": 0.9, "r1": 0.1, "discriminator_steps": 2, "generator_steps": 2}]
)
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, interrupted_twice, settings
):
    straight = conditional_pair()
    expected = train(straight, **settings)
    resumed, history = interrupted_twice(
        conditional_pair, lambda pair: train(pair, tmp_path / "training.pt", **settings)
    )
    assert same_weights(straight, resumed)
    assert history.records == expected.records
    assert all(torch.equal(history.snapshots[k], expected.snapshots[k]) for k in (0, 4, 9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
        ({"beta2": -0.1}, "beta2 is -0.1"),
        ({"schedule": "linear"}, "schedule is 'linear', expected one of constant, cosine"),
        ({"average": 1.0}, "average is 1.0"),
        ({"loss": "wgan"}, "loss is 'wgan'"),
        ({"r1": -1.0}, "r1 is -1.0"),
        ({"discriminator_steps": 0}, "discriminator_steps is 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        gans.Settings(**settings)


def test_bad_data_are_named():
    images, labels = toy_digits()
    networks = conditional_pair()
    fixed = gans.fixed_inputs(networks[0])
    with pytest.raises(ValueError, match="images has 24 rows for batches of 25"):
        gans.train(*networks, images, labels, gans.Settings(batch_size=25), fixed=fixed)
    with pytest.raises(ValueError, match="labels has 23 rows for 24 images"):
        gans.train(*networks, images, labels[1:], gans.Settings(batch_size=8), fixed=fixed)
    with pytest.raises(TypeError, match="expected a uint8 tensor"):
        gans.train(*networks, images / 255, labels, gans.Settings(batch_size=8), fixed=fixed)


# Sampling


def test_generated_images_do_not_depend_on_their_batch_or_mode():
    generator, _ = conditional_pair()
    train((generator, conditional_pair()[1]))
    z, labels = gans.fixed_inputs(generator, 7)
    together = gans.generate(generator, z, labels)
    alone = [
        gans.generate(generator, z[i : i + 1], labels[i : i + 1], batch_size=1) for i in range(7)
    ]
    assert (together.int() - torch.cat(alone).int()).abs().max() <= 1  # rounding to 8 bits
    assert generator.training


def test_every_label_meets_every_noise_vector():
    generator, _ = conditional_pair()
    z, labels = gans.label_grid(generator, columns=4)
    assert z.shape == (40, 8)
    for row in range(10):
        assert labels[4 * row : 4 * row + 4].tolist() == [row] * 4
        torch.testing.assert_close(z[4 * row : 4 * row + 4], z[:4])
    assert len(z[:4].unique(dim=0)) == 4
    with pytest.raises(ValueError, match="takes no labels"):
        gans.label_grid(gan.DCGANGenerator())


def test_interpolation_is_a_straight_line_from_end_to_end():
    start, end = torch.randn(100), torch.randn(100)
    line = gans.interpolate(start, end, 5)
    torch.testing.assert_close(line[0], start)
    torch.testing.assert_close(line[4], end)
    torch.testing.assert_close(line[1], 0.75 * start + 0.25 * end)
    with pytest.raises(ValueError, match="steps 1"):
        gans.interpolate(start, end, 1)


def test_spherical_interpolation_turns_by_equal_angles_at_a_constant_length():
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    arc = gans.interpolate(start, end, 4, spherical=True)
    angles = [0, math.pi / 6, math.pi / 3, math.pi / 2]
    torch.testing.assert_close(
        arc, torch.tensor([[2 * math.cos(a), 2 * math.sin(a)] for a in angles])
    )
    with pytest.raises(ValueError, match="an angle between them"):
        gans.interpolate(start, -start, 4, spherical=True)


def test_spread_is_the_deviation_of_the_pixels_within_each_class():
    black, white = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.full((4, 1, 8, 8), 255).byte()
    both, labels = torch.cat([black, white]), torch.arange(8) // 4
    assert gans.spread(black) == 0
    assert gans.spread(both) == 0.5
    assert gans.spread(both, labels) == 0
    assert gans.spread(both, torch.arange(8) % 2) == 0.5
    one_white = both[3:]  # one black, four white: p (1 - p) with p = 4 / 5
    assert gans.spread(one_white) == pytest.approx(0.4)
