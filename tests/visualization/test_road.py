"""ROAD: imputed pixels beside the equation they solve and another library's, and known maps."""

import numpy as np
import pytest
import torch
from torch import nn

from dlapps.visualization import road


def picture(height=12, width=9, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def some(shape, share, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


class Spot(nn.Module):
    """Two classes; the second's probability grows with the brightness of a square."""

    def forward(self, images):
        score = 10 * (images[:, :, 4:8, 4:8].mean((1, 2, 3)) - 0.5)
        return torch.stack((torch.zeros_like(score), score), 1)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_missing_pixel_is_the_mean_of_its_neighbours(share):
    image, missing = picture(), some((12, 9), share)
    found = road.impute(image, missing, noise=0)
    assert torch.equal(found[:, ~missing], image[:, ~missing])
    for row, column in missing.nonzero().tolist():
        total = weight = 0
        for i in range(max(row - 1, 0), min(row + 2, 12)):
            for j in range(max(column - 1, 0), min(column + 2, 9)):
                if (i, j) != (row, column):
                    one = 1 / 12 if i != row and j != column else 1 / 6
                    total, weight = total + one * found[:, i, j], weight + one
        torch.testing.assert_close(found[:, row, column], total / weight, atol=1e-6, rtol=0)


def test_agrees_with_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam.metrics.road")
    image, missing = picture(20, 20), some((20, 20), 0.6)
    theirs = peer.NoisyLinearImputer(noise=0)(image, (~missing).float())
    torch.testing.assert_close(road.impute(image, missing, noise=0), theirs, atol=1e-5, rtol=0)


def test_a_ramp_is_continued_and_noise_has_its_size():
    ramp = torch.linspace(0.2, 0.8, 40).expand(3, 40, 40)
    missing = torch.zeros(40, 40, dtype=torch.bool)
    missing[10:30, 10:30] = True
    torch.testing.assert_close(road.impute(ramp, missing, noise=0), ramp, atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(0)
    noisy = road.impute(ramp, missing, noise=0.05, generator=generator) - ramp
    assert noisy[:, missing].std().item() == pytest.approx(0.05, rel=0.1)
    assert noisy[:, ~missing].abs().max() == 0


def test_nothing_and_everything_missing():
    image = picture()
    assert torch.equal(road.impute(image, torch.zeros(12, 9, dtype=torch.bool)), image)
    everything = road.impute(image, torch.ones(12, 9, dtype=torch.bool), noise=0)
    assert torch.equal(everything, torch.full_like(image, 0.5))


def test_a_map_that_knows_has_a_high_score_and_its_negative_the_opposite():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 4:8, 4:8] = 1
    knows = image.mean(1)
    score = road.road(Spot(), image, [1], knows, shares=(0.1, 0.5))
    assert score > 0.8
    assert road.road(Spot(), image, [1], -knows, shares=(0.1, 0.5)) < -0.8
    np.testing.assert_array_equal(score, road.road(Spot(), image, [1], knows, shares=(0.1, 0.5)))


def test_each_share_counts_as_much():
    image, knows = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16)
    image[..., 4:8, 4:8], knows[:, 4:8, 4:8] = 1, 1
    both, *alone = (
        road.road(Spot(), image, [1], knows, shares=shares, noise=1e-6)
        for shares in ((0.1, 0.95), (0.1,), (0.95,))
    )
    np.testing.assert_allclose(both, np.mean(alone, axis=0), atol=1e-4)


def test_other_arguments_are_named():
    image = picture(16, 16)[None]
    with pytest.raises(ValueError, match="maps has shape"):
        road.road(Spot(), image, [1], torch.rand(1, 8, 8))
    with pytest.raises(ValueError, match="maps has shape"):
        road.road(Spot(), image, [1], torch.full((1, 16, 16), torch.nan))
    with pytest.raises(ValueError, match="shares holds 1"):
        road.road(Spot(), image, [1], torch.rand(1, 16, 16), shares=(0.5, 1))
    with pytest.raises(ValueError, match="labels"):
        road.road(Spot(), image, [2], torch.rand(1, 16, 16))
