"""What all attacks share: one call shape, what they refuse, and that they keep what they say."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from attack_networks import other_classes, random_images, small_network

from dlapps import runtime
from dlapps.models import pretrained
from dlapps.visualization import attacks, black_box, minimal_norm, white_box

ATTACKS = {
    "fgsm": white_box.fgsm,
    "pgd linf": white_box.pgd,
    "pgd l2": functools.partial(white_box.pgd, norm="l2", epsilon=1.0),
    "carlini_wagner": white_box.carlini_wagner,
    "carlini_wagner, search": functools.partial(
        white_box.carlini_wagner, constant=0.01, steps=20, searches=4
    ),
    "minimal_norm": white_box.ddn,
    "fmn": minimal_norm.fmn,
    "superdeepfool": minimal_norm.superdeepfool,
    "newton_ddn": minimal_norm.newton_ddn,
    "one_pixel": black_box.one_pixel,
    "square": functools.partial(black_box.square, max_queries=200),
    "nes": functools.partial(black_box.nes, max_queries=200),
}


each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


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
        (white_box.carlini_wagner, {"searches": 0}, "searches is 0"),
        (white_box.ddn, {"steps": 0}, "steps is 0"),
        (minimal_norm.fmn, {"alpha": 0}, "alpha is 0"),
        (minimal_norm.superdeepfool, {"searches": 0}, "searches is 0"),
        (minimal_norm.newton_ddn, {"longer": -1}, "longer is -1"),
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


def test_adversarial_is_the_label_if_targeted_and_any_other_if_not():
    predictions, labels = torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3])
    assert attacks.is_adversarial(predictions, labels).tolist() == [False, True, False]
    assert attacks.is_adversarial(predictions, labels, True).tolist() == [True, False, True]
