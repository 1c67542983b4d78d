"""Comparisons with libraries, where they are installed and where they are not."""

from importlib import util

import pytest
import torch

from dlapps import datasets
from dlapps.models import pretrained
from dlapps.visualization import attack_measures, minimal_norm, references


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
    assert references.shortest_of_adversarial_library(network, image(), label) == {}


def test_torchattacks_gets_images_and_targets(network):
    pytest.importorskip("torchattacks")
    found = references.carlini_wagner_of_torchattacks(network, image(), torch.tensor([3]), steps=1)
    assert found.shape == (1, 3, 64, 64) and 0 <= found.min() <= found.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("targeted", [True, False])
def test_fmn_is_that_of_adversarial_library_and_ours_no_longer(targeted):
    pytest.importorskip("adv_lib")
    network = pretrained.load("efficientnet_lite0")
    images = network.prepare(datasets.load("photos", split="test").images[:4])
    labels = (attack_measures.scores_of(network, images).argmax(1) + (17 if targeted else 0)) % 1000
    theirs = references.shortest_of_adversarial_library(
        network, images, labels, targeted=targeted, steps=20
    )
    options = {"targeted": targeted, "steps": 20}
    fmn = minimal_norm.fmn(network, images, labels, **options)
    torch.testing.assert_close(fmn.images, theirs["FMN"], rtol=0, atol=1e-3)
    ours = minimal_norm.newton_ddn(network, images, labels, **options)
    lengths = attack_measures.lengths_of(images, ours)
    for found in theirs.values():
        reached = attack_measures.measure(network, images, found, labels, targeted=targeted)
        if reached["success"] == 1:
            assert lengths.median().item() <= 1.01 * reached["l2"]
