"""What becomes of fooling images, for networks that look at one colour each."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode

from dlapps.visualization import attack_transfer, white_box


class Colour(nn.Module):
    """Two classes; the second is seen where a colour is brighter than a half on average."""

    input_size, interpolation = 8, InterpolationMode.BILINEAR

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        score = images[:, self.channel].mean((1, 2)) - 0.5
        return torch.stack((torch.zeros_like(score), score), 1)

    def prepare(self, images):
        return attack_transfer.resize(self, images.double() / 255)


def grey(count=2, level=130):
    return torch.full((count, 3, 8, 8), level, dtype=torch.uint8)


def test_an_image_fools_those_that_look_at_what_was_changed():
    networks = {"red": Colour(0), "red too": Colour(0), "blue": Colour(2)}
    changed = attack_transfer.transfer(networks, grey(), {"FGSM": white_box.fgsm})
    table = attack_transfer.shares_of(changed)
    assert list(table.index) == [("FGSM", name) for name in networks] + [("random signs", "red")]
    assert table.loc["FGSM"].to_numpy().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    to_others = attack_transfer.to_others(changed)
    assert list(to_others.index) == ["FGSM", "random signs"]
    assert to_others.loc["FGSM", "share"] == pytest.approx((1 / 3, 1 / 3, 1 / 3))  # 2 of 6 pairs
    assert to_others.loc["FGSM", ["least", "most"]].tolist() == [0, 1]
    assert to_others.loc["random signs", "more than random signs"] == (0, 0, 0)


def test_the_interval_is_over_images():
    hits = np.array([True, True, False, False])
    changed = {
        ("FGSM", "a"): {"a": np.ones(4, bool), "b": hits},
        ("random signs", "a"): {"a": np.ones(4, bool), "b": np.zeros(4, bool)},
    }
    share, low, high = attack_transfer.to_others(changed).loc["FGSM", "share"]
    assert share == 0.5 and low == 0 and high == 1  # of four images no sample is sure


def test_random_signs_have_one_size_and_a_seed():
    images = torch.full((2, 3, 8, 8), 0.5)
    moved = attack_transfer.random_signs(images, 0.1, seed=3)
    torch.testing.assert_close((moved - images).abs(), torch.full_like(images, 0.1))
    assert torch.equal(moved[0], moved[1])
    assert torch.equal(moved, attack_transfer.random_signs(images, 0.1, seed=3))
    assert not torch.equal(moved, attack_transfer.random_signs(images, 0.1, seed=4))
    assert attack_transfer.random_signs(images.round(), 0.1).max() <= 1


def test_a_defence_that_rounds_undoes_what_lies_between_two_levels():
    network, labels = Colour(1), torch.tensor([1, 0])
    # Half a level above 127 and below 128: rounded to even, each is back on its own side.
    images = torch.tensor([128.4, 127.6 - 0.3]).view(2, 1, 1, 1).expand(2, 3, 8, 8) / 255
    table = attack_transfer.survival(network, {"all": images}, labels)
    assert isinstance(table, pd.DataFrame) and list(table) == list(attack_transfer.DEFENCES)
    assert table.loc["all"].tolist() == pytest.approx([1, 1, 1, 1])
    swapped = attack_transfer.survival(network, {"all": images.flip(0)}, labels)
    assert swapped.loc["all", "as it is"] == 0


def test_predictions_are_of_the_networks_own_size():
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    network = Colour(0)
    expected = network(attack_transfer.resize(network, images)).argmax(1)
    assert torch.equal(attack_transfer.predict(network, images), expected)
