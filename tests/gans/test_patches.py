"""Patches of photographs: where they come from."""

import pytest
import torch

from dlapps import gans


def photograph(height, width, red):
    """Return a photograph whose pixels say where they are, and which one it is."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.full_like(y, red), y, x]).to(torch.uint8)


def test_patches_are_squares_of_the_photographs_in_turn():
    photographs = [photograph(40, 60, 0), photograph(50, 34, 1)]
    patches = gans.cut_patches(photographs, 1001, side=32, size=32, seed=1)
    assert patches.shape == (1001, 3, 32, 32) and patches.dtype == torch.uint8
    for number, (red, y, x) in enumerate(patches):
        top, left = y[0, 0].item(), x[0, 0].item()
        expected = photographs[number % 2][:, top : top + 32, left : left + 32]
        assert torch.equal(torch.stack([red, y, x]), expected)
    corners = patches[1::2, 1:, 0, 0].amax(0).tolist()
    assert corners == [18, 2]  # the last places there are
    again = gans.cut_patches(photographs, 1001, side=32, size=32, seed=1)
    assert torch.equal(again, patches)


def test_patches_are_resized():
    patches = gans.cut_patches([photograph(64, 64, 7)], 3, side=64, size=16)
    assert patches.shape == (3, 3, 16, 16) and (patches[:, 0] == 7).all()


def test_photographs_have_to_hold_a_patch():
    with pytest.raises(ValueError, match="side is 33, expected at most 32"):
        gans.cut_patches([photograph(32, 90, 0)], 2, side=33)
    with pytest.raises(ValueError, match="count is 0"):
        gans.cut_patches([photograph(32, 90, 0)], 0, side=32)
