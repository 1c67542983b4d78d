"""Fooling images: networks for which the number of steps is known in closed form."""

import dataclasses
import functools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from dlapps import runtime
from dlapps.models import pretrained
from dlapps.visualization import attack_measures, black_box, white_box


class HalfSpaces(nn.Module):
    """Two classes on either side of a plane: scores (0, w . x - b)."""

    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = w, b

    def forward(self, images):
        score = (images * self.w).flatten(1).sum(1) - self.b
        return torch.stack((torch.zeros_like(score), score), dim=1)


def plane(distance, size=4):
    """Return a network whose plane lies `distance` from the even grey image of 0.5."""
    w = torch.randn(3, size, size, generator=torch.Generator().manual_seed(0)).double()
    return HalfSpaces(w, (0.5 * w).sum() + distance * w.norm())


def small_network(seed=0, classes=5):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(96, classes)
    return nn.Sequential(*layers).double().eval()


def random_images(count, size=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator).double()


def other_classes(network, images, offset=1):
    with torch.no_grad():
        scores = network(images)
    return (scores.argmax(1) + offset) % scores.shape[1]


@pytest.mark.parametrize("distance", [0.01, 0.124, 0.126, 0.31])
def test_steps_are_the_distance_divided_by_the_step(distance):
    images, step = torch.full((1, 3, 4, 4), 0.5).double(), 0.025
    result = white_box.fool(plane(distance), images, [1], step=step)
    expected = math.ceil(distance / step)
    assert result.steps.tolist() == [expected] and result.success.tolist() == [True]
    moved = (result.images - images).norm().item()
    assert moved == pytest.approx(expected * step)  # along the plane's normal, nothing clipped
    assert result.confidences.shape == (expected + 1, 1, 2)


def test_confidences_are_those_of_the_first_and_the_target_class():
    network, images = small_network(), random_images(4)
    targets = other_classes(network, images)
    with torch.no_grad():
        first = network(images).softmax(1)
        result = white_box.fool(network, images, targets, step=0.05)
        last = network(result.images).softmax(1)
    index = torch.stack((first.argmax(1), targets), 1)
    torch.testing.assert_close(result.confidences[0], first.gather(1, index))
    torch.testing.assert_close(result.confidences[-1], last.gather(1, index))
    for n, steps in enumerate(result.steps.tolist()):  # a finished image stays as it is
        rest = result.confidences[steps:, n]
        assert torch.equal(rest, rest[:1].expand_as(rest))


def test_success_means_predicted_within_the_range_of_images():
    network, images = small_network(), random_images(8).round()  # pixels at both ends
    targets = other_classes(network, images, offset=2)
    result = white_box.fool(network, images, targets, step=0.5, max_steps=200)
    with torch.no_grad():
        assert torch.equal(network(result.images).argmax(1) == targets, result.success)
    assert result.success.any()
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_an_image_does_not_depend_on_the_batch():
    network, images = small_network(), random_images(6)
    targets = other_classes(network, images)
    together = white_box.fool(network, images, targets, step=0.03)
    assert len(set(together.steps.tolist())) > 1  # they stop at different times
    for n in range(6):
        alone = white_box.fool(network, images[n : n + 1], targets[n : n + 1], step=0.03)
        assert alone.steps[0] == together.steps[n]
        torch.testing.assert_close(alone.images[0], together.images[n])


def test_gives_up_after_max_steps():
    images = torch.full((1, 3, 4, 4), 0.5).double()
    result = white_box.fool(plane(0.3), images, [1], step=0.1, max_steps=2)
    assert result.steps.tolist() == [2] and result.success.tolist() == [False]
    assert result.confidences.shape == (3, 1, 2)
    assert (result.images - images).norm().item() == pytest.approx(0.2)


def test_without_a_gradient_the_image_stays():
    network = HalfSpaces(torch.zeros(3, 4, 4).double(), 1.0)
    images = torch.full((1, 3, 4, 4), 0.5).double()
    result = white_box.fool(network, images, [1], max_steps=3)
    assert not result.success.any() and torch.equal(result.images, images)


def test_nothing_is_left_changed_and_any_layout_is_taken():
    network, images = small_network(), random_images(3)
    targets = other_classes(network, images)
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    before, state = strided.clone(), {k: v.clone() for k, v in network.state_dict().items()}
    given = targets.clone()
    result = white_box.fool(network, strided, targets)
    expected = white_box.fool(network, images, targets)
    torch.testing.assert_close(result.images, expected.images)
    assert torch.equal(strided, before) and not strided.requires_grad
    assert torch.equal(targets, given)
    assert not network.training and all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())


def test_a_target_that_is_predicted_already_is_refused():
    network, images = small_network(), random_images(3)
    targets = other_classes(network, images)
    targets[1] = other_classes(network, images, offset=0)[1]
    with pytest.raises(ValueError, match=rf"targets\[1\] is {targets[1]}, .* the network predicts"):
        white_box.fool(network, images, targets)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": [5, 0]}, ValueError, "targets holds 5, expected 0 to 4"),
        ({"targets": [0]}, ValueError, "targets has shape"),
        ({"targets": [0.5, 1.5]}, TypeError, "targets is torch.float32"),
        ({"step": 0}, ValueError, "step is 0"),
        ({"step": -1.0}, ValueError, "step is -1.0"),
        ({"step": math.nan}, ValueError, "step is nan"),
        ({"step": math.inf}, ValueError, "step is inf"),
        ({"max_steps": 0}, ValueError, "max_steps is 0"),
        ({"images": random_images(2) + 0.5}, ValueError, "images has values"),
        ({"images": random_images(2) * torch.nan}, ValueError, "images has values"),
        ({"images": random_images(2)[:0]}, ValueError, "images has shape"),
        ({"images": random_images(2)[:, :1]}, ValueError, "images has shape"),
    ],
)
def test_arguments_that_are_refused(change, error, message):
    network, images = small_network(), random_images(2)
    arguments = {"images": images, "targets": other_classes(network, images)} | change
    with pytest.raises(error, match=message):
        white_box.fool(network, **arguments)


def test_a_real_network_is_fooled():
    network = pretrained.load("efficientnet_lite0")
    images = random_images(2, size=64).to(network.mean)
    targets = other_classes(network, images, offset=100)
    result = white_box.fool(network, images, targets, step=0.5, max_steps=100)
    with torch.no_grad():
        assert torch.equal(network(result.images).argmax(1), targets)
    assert result.success.all()


# The attacks of one call shape


ATTACKS = {
    "fgsm": white_box.fgsm,
    "pgd linf": white_box.pgd,
    "pgd l2": functools.partial(white_box.pgd, norm="l2", epsilon=1.0),
    "carlini_wagner": white_box.carlini_wagner,
    "minimal_norm": white_box.ddn,
    "one_pixel": black_box.one_pixel,
    "square": functools.partial(black_box.square, max_queries=200),
    "nes": functools.partial(black_box.nes, max_queries=200),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
GREY = torch.full((1, 3, 4, 4), 0.5).double()


FEW = {
    attack: {"max_queries": 30} if name in ("square", "nes") else {"steps": 3}
    for name, attack in ATTACKS.items()
} | {
    white_box.fgsm: {},
    black_box.one_pixel: {"generations": 1, "population": 5},
    white_box.fool: {"max_steps": 3},
}


@functools.cache
def squeezenet():
    torch.manual_seed(0)
    return pretrained.build("squeezenet1_1").requires_grad_(False)


def linf_distance(network, images):
    """Return the largest change of a value that is needed to reach the plane."""
    score = network(images)[:, 1]
    return (score.abs() / network.w.abs().sum()).item()


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_fgsm_and_pgd_succeed_from_the_distance_of_the_plane_on(factor, targeted):
    """Along the signs of the normal, a plane is |w x - b| / |w|_1 away in the largest change."""
    network = plane(0.2)
    label = [1 if targeted else 0]
    epsilon = factor * linf_distance(network, GREY)
    options = {"targeted": targeted, "epsilon": epsilon}
    for result in (
        white_box.fgsm(network, GREY, label, **options),
        white_box.pgd(network, GREY, label, **options),
    ):
        assert result.success.tolist() == [factor > 1]
        assert (result.images - GREY).abs().max() <= epsilon * (1 + 1e-9)
    options["epsilon"] = factor * 0.2
    result = white_box.pgd(network, GREY, label, norm="l2", **options)
    assert result.success.tolist() == [factor > 1]
    assert (result.images - GREY).norm() <= factor * 0.2 * (1 + 1e-9)


@pytest.mark.parametrize(("factor", "reached"), [(0.98, False), (1.3, True)])
def test_an_estimated_gradient_reaches_the_plane_from_a_little_further_on(factor, reached):
    network = plane(0.2)
    epsilon = factor * linf_distance(network, GREY)
    result = black_box.nes(
        network, GREY, [1], targeted=True, epsilon=epsilon, max_queries=3000, step=epsilon / 10
    )
    assert result.success.tolist() == [reached]
    assert (result.images - GREY).abs().max() <= epsilon * (1 + 1e-9)
    assert result.queries.item() % 21 == 0 and (result.queries < 2900) == reached


@pytest.mark.parametrize("targeted", [True, False])
def test_an_estimated_gradient_is_the_papers_sum(targeted):
    """One step of `nes` beside a loop over images, directions and signs."""
    network, images = small_network(), random_images(3) * 0.8 + 0.1
    labels = other_classes(network, images, offset=1 if targeted else 0)
    settings = {"samples": 10, "noise": 0.01, "step": 0.02, "seed": 5}
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(1, *images.shape[1:], generator=generator) for _ in range(5)]
    expected = images.clone()
    for n, label in enumerate(labels):
        g = torch.zeros_like(images[n : n + 1])
        for u in directions:
            for sign in (1, -1):
                tried = (images[n : n + 1] + sign * 0.01 * u).clamp(0, 1)
                with torch.no_grad():
                    log_p = network(tried).log_softmax(1)[0, label]
                g += sign * (log_p if targeted else -log_p) * u
        expected[n] += 0.02 * g[0].sign()
    found = black_box.nes(
        network, images, labels, targeted=targeted, epsilon=0.1, max_queries=11, **settings
    )
    torch.testing.assert_close(found.images, expected)


def test_all_directions_of_all_images_take_as_few_passes_as_the_memory_allows(monkeypatch):
    network, images = small_network(), random_images(3)
    labels = other_classes(network, images)
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    settings = {"targeted": True, "max_queries": 11, "samples": 10, "epsilon": 1e-9}
    for most in (64, 4):
        monkeypatch.setattr(runtime, "images_at_once", lambda device, most=most: most)
        sizes.clear()
        black_box.nes(network, images, labels, **settings)
        # The check of the labels, three images in each direction to and fro, and what came of it.
        assert sizes == ([3, 30, 3] if most == 64 else [3, 4, 4, 4, 4, 4, 4, 4, 2, 3]), sizes


@pytest.mark.parametrize("targeted", [True, False])
def test_shortest_changes_end_at_the_plane(targeted):
    network, distance = plane(0.3), 0.3
    label = [1 if targeted else 0]
    for attack, slack in [
        (white_box.ddn, 1.03),
        (functools.partial(white_box.carlini_wagner, constant=10.0, steps=400), 1.05),
    ]:
        result = attack(network, GREY, label, targeted=targeted)
        length = (result.images - GREY).norm().item()
        assert result.success.tolist() == [True]
        assert distance <= length < slack * distance
        assert result.gradients.tolist() in ([100], [400])


def test_a_constant_too_small_leaves_the_image():
    result = white_box.carlini_wagner(plane(0.3), GREY, [1], targeted=True, constant=1e-6)
    assert result.success.tolist() == [False]
    assert torch.equal(result.images, GREY)


def test_carlini_and_wagners_loss_has_their_gradient():
    """One step of Adam moves each w by the learning rate against the sign of the gradient."""
    network, images = small_network(), random_images(2) * 0.8 + 0.1
    targets = other_classes(network, images)
    w = torch.atanh(2 * images - 1).requires_grad_()
    changed = (w.tanh() + 1) / 2
    scores = network(changed)
    margin = torch.stack(
        [max(s[k] for k in range(5) if k != t) - s[t] for s, t in zip(scores, targets, strict=True)]
    )
    loss = ((changed - images) ** 2).sum() + 3.0 * margin.clamp_min(0).sum()
    (gradient,) = torch.autograd.grad(loss, w)
    seen = []

    def watched(x):
        seen.append(x.detach())
        return network(x)

    white_box.carlini_wagner(watched, images, targets, targeted=True, constant=3.0, steps=2)
    expected = ((w - 0.01 * gradient.sign()).tanh() + 1) / 2
    torch.testing.assert_close(seen[-1], expected.detach(), rtol=1e-5, atol=1e-7)


def test_rounded_changes_survive_being_saved():
    network, images = small_network(), (random_images(6) * 255).round() / 255
    targets = other_classes(network, images)
    result = white_box.ddn(network, images, targets, targeted=True, levels=256)
    saved = (result.images * 255).round() / 255
    torch.testing.assert_close(result.images, saved, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(network(saved).argmax(1) == targets, result.success)
    assert result.success.all()


class Pixel(nn.Module):
    """Two classes; the second is seen when one pixel's red exceeds its green by more than 0.9."""

    def forward(self, images):
        score = images[:, 0, 3, 2] - images[:, 1, 3, 2] - 0.9
        return torch.stack((torch.zeros_like(score), score), 1)


def test_one_pixel_finds_the_one_that_counts():
    images = torch.full((2, 3, 5, 5), 0.4).double()
    result = black_box.one_pixel(
        Pixel(), images, [1, 1], targeted=True, population=60, generations=60
    )
    changed = (result.images != images).any(1).flatten(1)
    assert result.success.all()
    assert (changed.sum(1) == 1).all() and changed[:, 3 * 5 + 2].all()
    assert result.gradients.tolist() == [0, 0] and (result.queries >= 60).all()
    three = black_box.one_pixel(plane(5.0), GREY, [1], targeted=True, pixels=3, generations=2)
    assert 1 <= (three.images != GREY).any(1).sum() <= 3 and not three.success.any()


def test_square_attack_changes_to_the_edge_of_the_ball_and_counts_its_queries():
    network, images = small_network(), random_images(4)
    labels = other_classes(network, images, offset=0)
    asked = []

    def counted(x):
        asked.append(len(x))
        return network(x)

    result = black_box.square(counted, images, labels, epsilon=0.1, max_queries=300)
    assert sum(asked) - len(images) == result.queries.sum()  # but for the check of the labels
    change = (result.images - images).abs()
    at_edge = (change - 0.1).abs() < 1e-9
    clipped = (result.images == 0) | (result.images == 1)
    assert (at_edge | clipped).all()
    with torch.no_grad():
        assert torch.equal(network(result.images).argmax(1) != labels, result.success)
    assert result.success.any() and result.gradients.sum() == 0


def test_square_attack_never_loses_margin():
    network, images = small_network(), random_images(2)
    targets = other_classes(network, images)
    margins = []
    for queries in (1, 5, 25, 125):
        result = black_box.square(
            network, images, targets, targeted=True, epsilon=0.02, max_queries=queries
        )
        with torch.no_grad():
            scores = network(result.images)
        own = scores.gather(1, targets[:, None])[:, 0]
        margins.append(own - scores.scatter(1, targets[:, None], -math.inf).amax(1))
    assert all((later >= earlier).all() for earlier, later in pairwise(margins))


@each_attack
@pytest.mark.parametrize("targeted", [True, False])
def test_every_attack_says_what_it_did(attack, targeted):
    network, images = small_network(), random_images(3)
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)  # not contiguous
    labels = other_classes(network, images, offset=1 if targeted else 0)
    before, state = strided.clone(), {k: v.clone() for k, v in network.state_dict().items()}
    random_state = torch.get_rng_state()
    result = attack(network, strided, labels, targeted=targeted)
    assert result.images.shape == images.shape
    assert result.images.min() >= 0 and result.images.max() <= 1
    with torch.no_grad():
        assert torch.equal((network(result.images).argmax(1) == labels) == targeted, result.success)
    assert (result.gradients + result.queries > 0).all()
    again = attack(network, images, labels, targeted=targeted)
    torch.testing.assert_close(again.images, result.images)
    assert torch.equal(strided, before) and not result.images.requires_grad
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not network.training and all(p.grad is None for p in network.parameters())
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("attack", [*ATTACKS.values(), white_box.fool], ids=[*ATTACKS, "fool"])
def test_images_of_another_type_are_attacked(attack):
    """A `PretrainedNetwork` in single precision, images in double precision as NumPy draws them."""
    network = squeezenet()
    images = torch.from_numpy(np.random.default_rng(0).random((2, 3, 32, 32)))
    labels = other_classes(network, images, offset=1 if attack is white_box.fool else 0)
    result = attack(network, images, labels, **FEW[attack])
    assert result.images.dtype == torch.float64 and result.images.shape == images.shape
    reached = network(result.images).argmax(1) == labels
    assert torch.equal(reached == (attack is white_box.fool), result.success)


@each_attack
def test_every_attack_refuses_the_same(attack):
    network, images = small_network(), random_images(2)
    predicted = other_classes(network, images, offset=0)
    with pytest.raises(ValueError, match=rf"labels\[0\] is {predicted[0]}, expected another class"):
        attack(network, images, predicted, targeted=True)
    for labels, error in [([5, 0], ValueError), ([0], ValueError), ([0.5, 1.5], TypeError)]:
        with pytest.raises(error, match="labels"):
            attack(network, images, labels)
    for given, error in [
        (images + 0.5, ValueError), (images * torch.nan, ValueError), (images[:0], ValueError),
        (images[:, :1], ValueError), (images[0], ValueError), (images.numpy(), TypeError),
    ]:  # fmt: skip
        with pytest.raises(error, match="images"):
            attack(network, given, predicted)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (white_box.fgsm, {"epsilon": 0}, "epsilon is 0, expected a positive number"),
        (white_box.pgd, {"epsilon": math.nan}, "epsilon is nan"),
        (white_box.pgd, {"steps": 0}, "steps is 0"),
        (white_box.pgd, {"norm": "l1"}, "norm is 'l1', expected 'linf' or 'l2'"),
        (white_box.carlini_wagner, {"constant": -1}, "constant is -1"),
        (white_box.ddn, {"steps": 0}, "steps is 0"),
        (black_box.one_pixel, {"pixels": 0}, "pixels is 0"),
        (black_box.square, {"max_queries": 0}, "max_queries is 0"),
        (black_box.nes, {"samples": 3}, "samples is 3, expected an even number"),
        (black_box.nes, {"noise": 0.0}, "noise is 0.0"),
    ],
)
def test_settings_that_are_refused(attack, options, message):
    with pytest.raises(ValueError, match=message):
        attack(small_network(), random_images(2), [0, 1], **options)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("attack", [*ATTACKS.values(), white_box.fool], ids=[*ATTACKS, "fool"])
def test_few_images_are_in_the_networks_memory_at_a_time(attack, most, monkeypatch):
    network, images = small_network(), random_images(5)
    labels = other_classes(network, images, offset=1 if attack is white_box.fool else 0)
    whole = attack(network, images, labels)
    monkeypatch.setattr(runtime, "images_at_once", lambda device: most)
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    parts = attack(network, images, labels)
    assert max(sizes) == most
    for field in dataclasses.fields(whole):
        torch.testing.assert_close(getattr(parts, field.name), getattr(whole, field.name))


# What is measured


def test_measure_by_hand():
    network = HalfSpaces(torch.ones(1, 3, 2, 2).double(), 6.5)  # class 1 above a sum of 6.5
    grey = torch.full((4, 3, 2, 2), 0.5).double()  # a sum of 6
    changed = grey.clone()
    changed[0, 0] += 0.5  # a sum of 8: reached, as saved too
    changed[1] += 0.51 / 12  # a sum of 6.51: reached
    changed[2, 0, 0, 0] += 0.3  # a sum of 6.3: not reached
    changed[3, :2] += 0.1  # a sum of 6.8: reached, as saved too
    values = attack_measures.measure(network, grey, changed, [1, 1, 1, 1], targeted=True)
    assert values["success"] == 0.75
    # 0.5425 is 138.3 levels of 255; twelve times 138 / 255 is 6.494.
    assert values["success_8bit"] == 0.5
    lengths = [1.0, (12 * 0.0425**2) ** 0.5, (8 * 0.1**2) ** 0.5]
    assert values["l2"] == pytest.approx(sorted(lengths)[1])
    assert values["linf"] == pytest.approx(0.1)
    untargeted = attack_measures.measure(network, grey, changed, [0, 0, 0, 0])
    assert untargeted == values  # of two classes "not 0" is 1


def test_measure_of_failures_has_no_length():
    network, images = small_network(), random_images(2)
    with torch.no_grad():
        predicted = network(images).argmax(1)
    values = attack_measures.measure(network, images, images, predicted)
    assert values == {"success": 0, "success_8bit": 0, "l2": None, "linf": None}
    with pytest.raises(ValueError, match="changed has shape"):
        attack_measures.measure(network, images, images[:1], predicted)
    with pytest.raises(ValueError, match="labels"):
        attack_measures.measure(network, images, images, [0, 9])
