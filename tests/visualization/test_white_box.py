"""Attacks that follow gradients, on planes whose distance is known in closed form."""

import functools
import math

import pytest
import torch
from attack_networks import (
    GREY,
    HalfSpaces,
    linf_distance,
    other_classes,
    plane,
    random_images,
    small_network,
)

from dlapps.models import pretrained
from dlapps.visualization import white_box


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


def test_a_fooling_step_is_the_formula():
    x, g = random_images(3), random_images(3, seed=2) - 0.5
    g[2] = 0
    moved = white_box.fooling_step(x, g, 0.1)
    for n in range(2):
        expected = (x[n] + 0.1 * g[n] / (g[n] ** 2).sum().sqrt()).clamp(0, 1)
        torch.testing.assert_close(moved[n], expected)
    assert torch.equal(moved[2], x[2])


def test_fooling_is_an_attack_towards_a_target():
    network, images = small_network(), random_images(3)
    targets = other_classes(network, images)
    result = white_box.fool(network, images, targets, targeted=True)
    assert torch.equal(result.gradients, result.steps + 1) and result.queries.sum() == 0
    with pytest.raises(ValueError, match="targeted is False"):
        white_box.fool(network, images, targets, targeted=False)


def test_the_rule_climbs_until_the_rounded_image_fools():
    network, images = small_network(), (random_images(6) * 255).round() / 255
    targets = other_classes(network, images)
    plain = white_box.fool(network, images, targets, step=0.001, max_steps=3000)
    result = white_box.fool(network, images, targets, step=0.001, max_steps=3000, levels=256)
    saved = (result.images * 255).round() / 255
    torch.testing.assert_close(result.images, saved, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(network(saved).argmax(1) == targets, result.success)
        lost = network((plain.images * 255).round() / 255).argmax(1) != targets
    assert result.success.all() and lost.any()  # or the rule had nothing to mend
    coarse = white_box.fool(network, images, targets, step=0.01, levels=4)
    assert set((coarse.images * 3).round().unique().tolist()) <= {0, 1, 2, 3}


def test_the_search_finds_a_constant_for_each_image():
    """A plane Z = d - <w, δ>: the shortest change has c = 2 d / |w|² or more."""
    network, distance = plane(0.3), 0.3
    options = {"targeted": True, "constant": 1e-4, "learning_rate": 0.02, "steps": 60}
    once = white_box.carlini_wagner(network, GREY, [1], **options)
    searched = white_box.carlini_wagner(network, GREY, [1], searches=10, **options)
    assert not once.success.any() and searched.success.all()
    assert searched.gradients.tolist() == [600]
    length = (searched.images - GREY).norm().item()
    assert distance <= length < 1.05 * distance
    far = white_box.carlini_wagner(network, GREY, [1], **options | {"constant": 100.0})
    assert (far.images - GREY).norm() > length


def test_to_the_end_the_loss_only_grows_beyond_the_first_success():
    network, images = small_network(), random_images(4)
    labels = other_classes(network, images, offset=0)
    options = {"epsilon": 0.2, "steps": 10}
    stopped = white_box.pgd(network, images, labels, **options)
    ended = white_box.pgd(network, images, labels, to_the_end=True, **options)
    assert ended.gradients.tolist() == [11] * 4 and (stopped.gradients < 11).any()
    assert (ended.images - images).abs().max() <= 0.2 * (1 + 1e-9)

    def loss(found):
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(network(found.images), labels).item()

    assert loss(ended) > loss(stopped)
