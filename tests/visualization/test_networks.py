"""Networks side by side, one of which cannot be had."""

import numpy as np
import pytest

from dlapps.models import pretrained
from dlapps.visualization.networks import Networks, numbers

LITE, LACKING = "efficientnet_lite0", "vgg16"


@pytest.fixture
def networks(monkeypatch):
    """Return networks of which the first is unavailable."""
    load = pretrained.load

    def lacking(name):
        if name == LACKING:
            raise pretrained.WeightsUnavailable("weights of VGG16 unavailable")
        return load(name)

    monkeypatch.setattr(pretrained, "load", lacking)
    return Networks([LACKING, LITE])


def test_what_is_lacking_stays_in_the_table(networks, capsys):
    assert list(networks.titles.values()) == ["VGG16", "EfficientNet-Lite0"]
    assert list(networks.loaded) == [LITE] and networks.first.name == LITE
    table = networks.table({LITE: {"top-1": 0.5}})
    assert table["network"].tolist() == ["VGG16", "EfficientNet-Lite0"]
    assert table["result"].tolist()[0] == "weights unavailable"
    assert table.loc[LITE, "top-1"] == 0.5 and np.isnan(table.loc[LACKING, "top-1"])


def test_numbers_are_named_after_all_but_the_first(networks):
    table = networks.table({LITE: {"top-1": 0.5}})
    found = networks.numbers(table, {"top1": ("top-1", "accuracy")})
    assert found == {
        "numbers": {"top1 vgg16": None, "top1": 0.5},
        "unit": {"top1 vgg16": "accuracy", "top1": "accuracy"},
        "model": {"top1 vgg16": "VGG16", "top1": "EfficientNet-Lite0"},
    }
    cells = {"first": (LITE, "top-1", "share"), "none": (LACKING, "top-1", "share")}
    assert numbers(table, cells) == {
        "numbers": {"first": 0.5, "none": None},
        "unit": {"first": "share", "none": "share"},
    }


def test_two_groups_become_one(networks):
    both = networks | Networks([LITE])
    assert list(both.titles) == [LACKING, LITE] and both.loaded == {LITE: both.loaded[LITE]}
    assert list(networks.titles) == [LACKING, LITE]
