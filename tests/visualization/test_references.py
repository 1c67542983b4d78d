"""Comparisons with libraries, where they are installed and where they are not."""

from importlib import util

import pytest
import torch

from dlapps.models import pretrained
from dlapps.visualization import references


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return pretrained.build("squeezenet1_1").requires_grad_(False)


def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_our_maps_are_captums(network):
    pytest.importorskip("captum")
    found = references.differences_from_captum(network, image(), torch.tensor([3]), 2, 2)
    assert set(found) == {"gradient", "SmoothGrad", "integrated gradients", "Grad-CAM"}
    assert max(found.values()) < 1e-6


def test_nothing_is_compared_without_the_libraries(network, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    label = torch.tensor([3])
    assert references.differences_from_captum(network, image(), label) == {}
    assert references.carlini_wagner_of_torchattacks(network, image(), label) is None


def test_torchattacks_gets_images_and_targets(network):
    pytest.importorskip("torchattacks")
    found = references.carlini_wagner_of_torchattacks(network, image(), torch.tensor([3]), steps=1)
    assert found.shape == (1, 3, 64, 64) and 0 <= found.min() <= found.max() <= 1
