"""Attacks for the shortest change, on planes and balls whose distance is known."""

import pytest
import torch
from attack_networks import GREY, other_classes, plane, random_images, small_network
from torch import nn

from dlapps.visualization import minimal_norm, white_box

ATTACKS = minimal_norm.fmn, minimal_norm.superdeepfool, minimal_norm.newton_ddn


class Ball(nn.Module):
    """Two classes; the second lies outside of a ball around a point, which is not a plane."""

    def __init__(self, centre, radius):
        super().__init__()
        self.centre, self.radius = centre, radius

    def forward(self, images):
        score = (images - self.centre).flatten(1).square().sum(1) - self.radius**2
        return torch.stack((torch.zeros_like(score), score), 1)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("attack", ATTACKS[1:])  # FMN's first step ends in the plane, not beyond
def test_changes_end_at_the_plane_after_few_gradients(attack, targeted):
    for distance in (0.02, 0.3):  # DDN, from 1 on, is still ten times too long at the first
        result = attack(plane(distance), GREY, [1 if targeted else 0], targeted=targeted, steps=20)
        length = (result.images - GREY).norm().item()
        assert result.success.all() and distance <= length < 1.03 * distance, length
        assert result.gradients.max() <= 20


@pytest.mark.parametrize("attack", ATTACKS)
def test_changes_find_the_nearest_point_of_a_curved_boundary(attack):
    centre = GREY + 0.1 * (random_images(1, 4) - 0.5)
    offset = (GREY - centre).norm().item()
    result = attack(Ball(centre, 3 * offset), GREY, [0], steps=60)
    length = (result.images - GREY).norm().item()
    assert result.success.all() and 2 * offset <= length < 1.05 * 2 * offset


def test_superdeepfools_first_step_and_foot_are_the_formulas():
    """On a plane DeepFool's step reaches it, and the foot of the perpendicular lies in it."""
    network, seen = plane(0.2), []

    def watched(x):
        seen.append(x.detach().clone())
        return network(x)

    result = minimal_norm.superdeepfool(watched, GREY, [1], targeted=True, searches=1)
    w = network.w / network.w.norm()
    step = ((seen[2] - GREY) * w).sum().item()
    assert step == pytest.approx(1.02 * (0.2 + 1e-4 / network.w.norm().item()), rel=1e-6)
    torch.testing.assert_close(seen[3], GREY + step * w[None])  # its foot is where it is
    assert result.queries.tolist() == [1] and result.gradients.tolist() == [3]


def test_newtons_step_is_at_once_of_the_right_size():
    network = plane(0.004)
    result = minimal_norm.newton_ddn(network, GREY, [0], steps=5)
    ddn = white_box.ddn(network, GREY, [0], steps=5)
    assert (result.images - GREY).norm() < 0.0045 < 0.5 < (ddn.images - GREY).norm()


def test_rounding_keeps_what_can_be_saved_and_is_no_longer_than_ddns():
    network, images = small_network(), (random_images(6) * 255).round() / 255
    targets = other_classes(network, images)
    options = {"targeted": True, "levels": 256, "steps": 50}
    ours, ddn = (
        attack(network, images, targets, **options)
        for attack in (minimal_norm.newton_ddn, white_box.ddn)
    )
    saved = (ours.images * 255).round() / 255
    torch.testing.assert_close(ours.images, saved, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert (network(saved).argmax(1) == targets).all()
    lengths = [(r.images - images).flatten(1).norm(dim=1).median() for r in (ours, ddn)]
    assert lengths[0] <= 1.02 * lengths[1]


def test_smooth_margins_have_the_gradient_of_the_loss():
    """log(p / (1 - p)) and log p have one direction: the change goes along the cross-entropy's."""
    network, images = small_network(), random_images(2)
    targets = other_classes(network, images)
    attack = minimal_norm.Attack(network, images, targets, True)
    _, smooth = attack.margin_gradients(images, smooth=True)
    _, loss = attack.loss_gradients(images)
    torch.testing.assert_close(minimal_norm.unit(smooth), -minimal_norm.unit(loss))
