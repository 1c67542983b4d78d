"""Attacks that ask for scores alone."""

import math
from itertools import pairwise

import pytest
import torch
from attack_networks import GREY, linf_distance, other_classes, plane, random_images, small_network
from torch import nn

from dlapps import runtime
from dlapps.visualization import black_box


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


def test_noise_counts_the_images_that_random_signs_move_across_the_plane():
    network, seeds = plane(0.05), [0, 1, 2, 3]
    near = GREY.expand(2, -1, -1, -1)
    shares = black_box.noise_success(network, near, torch.tensor([0, 0]), seeds, epsilon=0.1)
    expected = []
    for seed in seeds:
        signs = black_box.random_signs((1, 3, 4, 4), torch.Generator().manual_seed(seed))
        assert signs.abs().eq(1).all()
        expected.append(float(network(GREY + 0.1 * signs.double()).argmax(1).item() == 1))
    assert shares == expected and 0 < sum(shares) < 4
    black_box.noise_success(network, near, torch.tensor([0, 0]), [0], stripes=True)
