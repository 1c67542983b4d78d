"""Measures of saliency maps, on networks whose use of the pixels is known."""

import warnings

import numpy as np
import pytest
import torch
from pretend_cuda import pretend_cuda
from torch import nn

from dlapps.models import pretrained
from dlapps.visualization import road
from dlapps.visualization import saliency_measures as measures


class Spot(nn.Module):
    """Two classes; the second's probability grows with the brightness of one pixel alone."""

    def __init__(self, row, column):
        super().__init__()
        self.row, self.column = row, column

    def forward(self, images):
        score = 20 * (images[:, :, self.row, self.column].mean(1) - 0.5)
        return torch.stack((torch.zeros_like(score), score), 1)


def bright_spot(size=32, at=(20, 11)):
    """Return an image that is black but for one pixel, and the network that looks at it."""
    image = torch.zeros(1, 3, size, size)
    image[:, :, at[0], at[1]] = 1
    return Spot(*at), image


def knowing(image):
    return image.mean(1)


@pytest.mark.parametrize(("mode", "first"), [("deletion", False), ("insertion", True)])
def test_a_map_that_knows_acts_at_the_first_step(mode, first):
    network, image = bright_spot()
    curve = measures.perturbation_curves(network, image, [1], knowing(image), mode, steps=8)[0]
    assert curve.shape == (9,)
    assert (curve[0] > 0.9) != first
    assert ((curve[1:] > 0.9) == first).all()  # changed by the first pixels already
    worst = measures.perturbation_curves(network, image, [1], -knowing(image), mode, steps=8)[0]
    assert ((worst[:-1] > 0.9) != first).all()  # and by the last ones otherwise
    assert (worst[-1] > 0.9) == first


def test_curves_end_at_the_image_and_at_its_blur():
    network, image = bright_spot()
    images = torch.cat([image, torch.rand(1, 3, 32, 32)])
    maps = measures.random_maps(images)
    with torch.no_grad():
        ends = [network(x).softmax(1)[:, 1].numpy() for x in (images, measures.blur(images))]
    for mode, (start, end) in {"deletion": ends, "insertion": ends[::-1]}.items():
        curves = measures.perturbation_curves(network, images, [1, 1], maps, mode, steps=4)
        np.testing.assert_allclose(curves[:, 0], start, rtol=1e-5)
        np.testing.assert_allclose(curves[:, -1], end, rtol=1e-5)


def test_each_step_changes_the_same_number_of_pixels():
    seen = []

    def counting(images):
        seen.append((images == image).all(1).sum().item())
        return torch.zeros(len(images), 2)

    image = torch.full((1, 3, 40, 40), 0.5)
    image[..., ::2, ::2] = 1  # the blur differs from 0.5 nearly everywhere
    maps = measures.random_maps(image)
    measures.perturbation_curves(counting, image, [0], maps, "deletion", steps=5)
    left = np.array(seen)
    assert abs(np.diff(left) + 1600 / 5).max() <= 2


def test_area_is_the_integral():
    x = np.linspace(0, 1, 101)
    np.testing.assert_allclose(
        measures.area(np.stack([x, x**2, 0 * x])), [1 / 2, 1 / 3, 0], atol=1e-4
    )


def test_controls():
    images = torch.zeros(2, 3, 7, 9)
    centre = measures.centre_maps(images)
    assert centre.shape == (2, 7, 9)
    assert centre[0].argmax() == 3 * 9 + 4
    assert centre[0, 0, 0] == centre[0, -1, -1] == centre.min()
    first, again = measures.random_maps(images), measures.random_maps(images)
    assert torch.equal(first, again) and not torch.equal(first[0], first[1])


def test_rank_correlation_of_known_pairs():
    first = np.arange(12.0).reshape(1, 3, 4)
    maps = np.concatenate([first, first])
    found = measures.rank_correlation(maps, np.concatenate([np.exp(first), -first]))
    np.testing.assert_allclose(found, [1, -1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a notebook would print it
        found = measures.rank_correlation(torch.zeros(2, 3, 3), torch.rand(2, 3, 3))
    assert np.isnan(found).all()


def test_controls_lie_where_the_images_do_and_curves_on_the_cpu():
    network, image = bright_spot()
    expected = [measures.random_maps(image), measures.centre_maps(image)]
    curve = measures.perturbation_curves(network, image, [1], expected[0], "deletion", steps=3)
    with pretend_cuda():
        there = image.cuda()
        found = [measures.random_maps(there), measures.centre_maps(there)]
        assert all(maps.is_cuda for maps in found)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
        for maps in (found[0], expected[0]):  # maps that are elsewhere are moved
            again = measures.perturbation_curves(network, there, [1], maps, "deletion", steps=3)
            np.testing.assert_array_equal(again, curve)
        assert measures.rank_correlation(found[0], expected[0]) == pytest.approx([1])


@pytest.mark.parametrize("on", ["cpu", "cuda"])
def test_randomising_leaves_the_generators_alone(on):
    torch.manual_seed(0)
    network = pretrained.build("squeezenet1_1")
    with pretend_cuda():
        network.to(on)
        torch.rand(3, device="cuda")
        states = torch.get_rng_state(), torch.cuda.get_rng_state()
        first, again = (measures.randomise(network, 1).state_dict() for _ in range(2))
        assert all(torch.equal(first[key], again[key]) for key in first)
        after = torch.get_rng_state(), torch.cuda.get_rng_state()
        assert all(torch.equal(a, b) for a, b in zip(states, after, strict=True))


def test_randomising_goes_from_the_top():
    torch.manual_seed(0)
    network = pretrained.build("squeezenet1_1")
    names = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for layers in (0, 1, 3, len(names)):
        other = measures.randomise(network, layers).state_dict()
        changed = {
            key.removesuffix(".weight")
            for key, value in other.items()
            if key.endswith("weight") and not torch.equal(value, before[key])
        }
        assert changed == set(names[len(names) - layers :])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match=f"layers is 99, expected 0 to {len(names)}"):
        measures.randomise(network, 99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "both"}, "mode is 'both', expected 'deletion' or 'insertion'"),
        ({"maps": torch.zeros(1, 8, 8)}, r"maps has shape \(1, 8, 8\), expected \(1, 32, 32\)"),
        ({"maps": torch.full((1, 32, 32), torch.nan)}, "finite"),
        ({"labels": [2]}, "labels holds 2, expected 0 to 1"),
        ({"images": torch.full((1, 3, 32, 32), 2.0)}, "images has values"),
    ],
)
def test_curves_refuse(change, message):
    network, image = bright_spot()
    arguments = {"images": image, "labels": [1], "maps": knowing(image), "mode": "deletion"}
    with pytest.raises(ValueError, match=message):
        measures.perturbation_curves(network, **arguments | change)


def test_faithfulness_is_large_for_a_map_that_knows_and_small_for_one_that_errs():
    network, image = bright_spot()
    right = measures.faithfulness(network, image, [1], knowing(image), steps=8)
    wrong = measures.faithfulness(network, image, [1], -knowing(image), steps=8)
    # Half a step of each curve is the way from one end to the other, of p and of nearly nothing.
    assert right.item() == pytest.approx(1 - 1 / 8, abs=0.01)
    assert wrong.item() == pytest.approx(-(1 - 1 / 8), abs=0.01)


def test_judging_adds_two_controls():
    network, image = bright_spot()
    images = image.expand(3, -1, -1, -1)
    maps = {"knows": knowing(images)}
    values, curves = measures.judge(network, images, [1, 1, 1], maps, steps=4, shares=(0.5,))
    expected = measures.perturbation_curves(
        network, images, [1, 1, 1], knowing(images), "insertion", 4
    )
    np.testing.assert_array_equal(curves["insertion"]["knows"], expected.mean(0))
    np.testing.assert_array_equal(values["insertion"]["knows"], measures.area(expected))
    found = road.road(network, images, [1, 1, 1], knowing(images), shares=(0.5,))
    np.testing.assert_array_equal(values["ROAD"]["knows"], found)
    assert [*values] == [*measures.MEASURES]


def test_concentration_of_an_even_map_is_the_share_and_of_a_spot_is_all():
    maps = torch.ones(2, 10, 10)
    maps[1] = 0
    maps[1, 3, 4] = 2.0
    assert measures.concentration(maps).tolist() == pytest.approx([0.1, 1.0])
    assert measures.concentration(maps, share=0.5)[0].item() == pytest.approx(0.5)


def test_a_map_that_does_not_look_at_the_network_stays():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4))
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    methods = {
        "edges": lambda network, images, labels: images.mean(1),
        "weights": lambda network, images, labels: (
            network[1].weight.detach()[labels, :36].view(-1, 6, 6)
        ),
        "even": lambda network, images, labels: torch.ones(len(images), 6, 6),
    }
    labels = torch.tensor([0, 2])
    maps = {name: method(network, images, labels) for name, method in methods.items()}
    left = measures.after_randomising(network, images, labels, methods, maps, [0, 1])
    assert left.index.tolist() == [0, 1]
    assert left["edges"].tolist() == pytest.approx([1, 1])
    assert left["weights"][0] == pytest.approx(1) and abs(left["weights"][1]) < 0.5
    assert left["even"].tolist() == [0, 0]  # one value ranks nothing


def test_agreement_is_with_the_first_network_at_its_size():
    generator = torch.Generator().manual_seed(0)
    maps = {"one": torch.rand(3, 8, 8, generator=generator)}
    maps["same"], maps["opposite"] = maps["one"], 1 - maps["one"]
    maps["double"] = maps["one"].repeat_interleave(2, 1).repeat_interleave(2, 2)
    classes = dict.fromkeys(maps, torch.tensor([1, 2, 3]))
    classes["opposite"] = torch.tensor([0, 0, 0])
    found = measures.agreement(classes, maps)
    assert found["same"]["correlation"] == pytest.approx(1)
    assert found["opposite"]["correlation"] == pytest.approx(-1)
    assert found["double"]["correlation"] > 0.9
    assert found["one"]["same prediction"] == 1 and found["opposite"]["same prediction"] == 0
    assert np.isnan(found["opposite"]["correlation, same prediction"])
