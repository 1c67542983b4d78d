"""Class images: a linear score, whose best image is known, and what a call may depend on."""

import math

import pytest
import torch
from torch import nn

from dlapps import runtime
from dlapps.models import pretrained
from dlapps.visualization import class_images

PLAIN = {"blur_every": None, "jitter": 0}


class Linear(nn.Module):
    """scores = w_k . z with z = (x - mean) / std; score - l2 ||z||^2 is largest at z = w / 2 l2."""

    input_size = 5

    def __init__(self, classes=3, mean=0.4, std=0.5):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.rand(classes, 3, 5, 5, generator=generator).double() * 2 - 1
        self.mean, self.std = (torch.full((1, 3, 1, 1), v).double() for v in (mean, std))

    def forward(self, images):
        return torch.einsum("nchw,kchw->nk", (images - self.mean) / self.std, self.weights)


class Small(nn.Module):
    input_size = 12

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1).double())
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1).double())
        layers = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(600, classes)
        self.body = nn.Sequential(*layers).double()
        self.eval()

    def forward(self, images):
        return self.body((images - self.mean) / self.std)


def random_images(count, size=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator).double()


def test_converges_to_the_optimum_of_a_linear_score():
    network, l2, rate = Linear(), 1.0, 0.03
    result = class_images.maximise(
        network, [0, 2], iterations=400, learning_rate=rate, l2=l2, **PLAIN
    )
    best = network.weights[[0, 2]] / (2 * l2)  # within [-0.5, 0.5]: pixels in [0.15, 0.65]
    reached = (result.images - network.mean) / network.std
    # Steps have one length, so the ascent ends on the way to and fro around the optimum.
    assert (reached - best).flatten(1).norm(dim=1).max() <= rate


def test_without_a_penalty_pixels_end_at_the_borders():
    network = Linear()
    result = class_images.maximise(network, [1], iterations=300, learning_rate=10, l2=0, **PLAIN)
    clear = network.weights[1].abs() > 0.01  # the others are still on their way
    assert torch.equal(result.images[0][clear], (network.weights[1][clear] > 0).double())


def test_one_iteration_by_hand():
    network, start, rate, l2 = Small(), random_images(2) * 0.2 + 0.4, 0.1, 0.05
    result = class_images.maximise(
        network, [1, 3], start, iterations=1, learning_rate=rate, l2=l2, **PLAIN
    )
    for n, label in enumerate([1, 3]):
        z = ((start[n : n + 1] - network.mean) / network.std).requires_grad_()
        score = network.body(z)[0, label]
        (score - l2 * z.square().sum()).backward()
        stepped = z.detach() + rate * z.grad / z.grad.norm()
        expected = (stepped * network.std + network.mean)[0]
        torch.testing.assert_close(result.images[n], expected)
        torch.testing.assert_close(result.scores[0, n], score.detach())


def test_seed_decides():
    network = Small()
    first, same, other = (
        class_images.maximise(network, [0, 1], iterations=5, jitter=4, seed=s) for s in (3, 3, 4)
    )
    assert torch.equal(first.images, same.images) and torch.equal(first.scores, same.scores)
    assert not torch.equal(first.images, other.images)


def test_a_class_does_not_depend_on_the_others():
    network, options = Small(), {"iterations": 12, "jitter": 4, "learning_rate": 0.5, "seed": 1}
    together = class_images.maximise(network, [2, 0, 3], **options)
    for n, label in enumerate([2, 0, 3]):
        alone = class_images.maximise(network, [label], **options)
        torch.testing.assert_close(alone.images[0], together.images[n])
        torch.testing.assert_close(alone.scores[:, 0], together.scores[:, n])


def test_snapshots_are_the_images_on_the_way():
    network, options = Small(), {"jitter": 4, "seed": 1}
    result = class_images.maximise(network, [0, 1], iterations=6, snapshots_at=[0, 4, 6], **options)
    assert result.snapshots.shape == (3, 2, 3, 12, 12) and result.scores.shape == (6, 2)
    shorter = class_images.maximise(network, [0, 1], iterations=4, **options)
    assert torch.equal(result.snapshots[1], shorter.images)
    assert torch.equal(result.snapshots[2], result.images)
    assert torch.equal(result.snapshots[0, 0], result.snapshots[0, 1])  # the same noise for each
    assert len(shorter.snapshots) == 0


def test_a_start_image_and_the_network_are_left_alone():
    network, start = Small(), random_images(2)
    before, state = start.clone(), {k: v.clone() for k, v in network.state_dict().items()}
    result = class_images.maximise(network, [0, 1], start, iterations=3, snapshots_at=[0])
    assert torch.equal(start, before) and not start.requires_grad
    assert torch.equal(result.snapshots[0], start)
    assert not network.training and all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())


def test_images_stay_in_range_and_scores_rise():
    result = class_images.maximise(Small(), [0, 1, 2, 3], iterations=40, jitter=2)
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert (result.scores[-1] > result.scores[0]).all()


def test_blur_smooths_and_jitter_is_undone():
    network, start = Linear(), random_images(1, size=5)
    tiny = {"iterations": 1, "learning_rate": 1e-9, "l2": 0}
    moved = class_images.maximise(network, [0], start, jitter=4, blur_every=None, **tiny)
    torch.testing.assert_close(moved.images, start, rtol=0, atol=1e-8)

    even = torch.full((1, 3, 12, 12), 0.5).double()
    point = even.clone()
    point[..., 6, 6] = 1
    small = {"iterations": 1, "learning_rate": 1e-9, "l2": 0, "jitter": 0}
    assert torch.allclose(class_images.maximise(Small(), [0], even, **small).images, even)
    blurred = class_images.maximise(Small(), [0], point, blur_sigma=0.5, **small).images - 0.5
    weight = [math.exp(-(k**2) / (2 * 0.5**2)) for k in (-2, -1, 0, 1, 2)]
    centre, beside = weight[2] / sum(weight), weight[1] / sum(weight)
    torch.testing.assert_close(blurred[0, 0, 6, 6].item(), 0.5 * centre**2, rtol=1e-5, atol=0)
    torch.testing.assert_close(blurred[0, 0, 6, 7].item(), 0.5 * centre * beside, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": [4]}, ValueError, "classes holds 4, expected 0 to 3"),
        ({"classes": []}, ValueError, "classes is empty"),
        ({"classes": [0.5]}, TypeError, "classes is torch.float32"),
        ({"start": random_images(2)}, ValueError, r"classes has shape \(1,\), expected \(2,\)"),
        ({"start": random_images(1) + 1}, ValueError, "start has values"),
        ({"start": random_images(1) * math.nan}, ValueError, "start has values"),
        ({"start": random_images(1)[:, :1]}, ValueError, "start has shape"),
        ({"iterations": 0}, ValueError, "iterations is 0, expected at least 1"),
        ({"learning_rate": 0}, ValueError, "learning_rate is 0, expected above 0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate is nan"),
        ({"l2": -1}, ValueError, "l2 is -1"),
        ({"blur_every": 0}, ValueError, "blur_every is 0"),
        ({"blur_sigma": 0}, ValueError, "blur_sigma is 0"),
        ({"jitter": -1}, ValueError, "jitter is -1"),
        ({"snapshots_at": [300]}, ValueError, "snapshots_at holds 300, expected 0 to 200"),
    ],
)
def test_arguments_that_are_refused(change, error, message):
    arguments = {"classes": [0]} | change
    with pytest.raises(error, match=message):
        class_images.maximise(Small(), **arguments)


def test_a_real_network_knows_its_image():
    network = pretrained.load("efficientnet_lite0")
    start = torch.full((1, 3, 64, 64), 0.5).to(network.mean)
    result = class_images.maximise(network, [985], start, 20, learning_rate=2, jitter=0)
    with torch.no_grad():
        assert network(start).argmax(1).item() != 985
        assert network(result.images).argmax(1).item() == 985


def test_a_start_of_another_type_is_taken():
    network, start = Small().float(), random_images(2)
    options = {"iterations": 4, "learning_rate": 0.5}
    expected = class_images.maximise(network, [1, 3], start.float(), **options)
    found = class_images.maximise(network.double(), [1, 3], start.float(), **options)
    torch.testing.assert_close(found.images.float(), expected.images, rtol=1e-4, atol=1e-4)


# The spectrum


FIXED = {"jitter": 0, "scales": (1, 1), "degrees": 0}


def test_the_spectrum_begins_as_faint_noise_that_falls_with_the_frequency():
    network = Small()
    network.input_size = 64
    network.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)).double()
    result = class_images.maximise_spectrum(network, [0], iterations=1, snapshots_at=[0], **FIXED)
    image = result.snapshots[0, 0]
    assert (image - 0.5).abs().max() < 0.2
    power = torch.fft.rfft2(image - image.mean((1, 2), True)).abs().square().mean(0)
    frequency = (torch.fft.fftfreq(64)[:, None] ** 2 + torch.fft.rfftfreq(64) ** 2).sqrt()
    low, high = ((frequency > f) & (frequency < 1.3 * f) for f in (0.08, 0.32))
    assert 8 < power[low].mean() / power[high].mean() < 32  # 1 / f: 16 over two octaves


def test_climbing_the_spectrum_raises_the_score_of_its_class():
    network = Small()
    result = class_images.maximise_spectrum(network, [1, 3], iterations=60, seed=1, **FIXED)
    assert result.images.shape == (2, 3, 12, 12) and result.scores.shape == (60, 2)
    assert (result.scores[-1] > result.scores[0] + 0.5).all()
    with torch.no_grad():
        last = network(result.images)[[0, 1], [1, 3]]
    assert (last >= result.scores[-1] - 0.1).all()
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_a_spectrum_does_not_depend_on_the_other_classes_and_has_a_seed():
    network = Small()
    options = {"iterations": 8, "jitter": 2, "snapshots_at": [0, 8]}
    together = class_images.maximise_spectrum(network, [0, 2], **options)
    alone = class_images.maximise_spectrum(network, [2], **options)
    torch.testing.assert_close(together.images[1:], alone.images)
    torch.testing.assert_close(together.snapshots[1], together.images)
    again = class_images.maximise_spectrum(network, [2], **options)
    other = class_images.maximise_spectrum(network, [2], seed=1, **options)
    assert torch.equal(alone.images, again.images) and not torch.equal(alone.images, other.images)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "classes is empty"),
        ({"classes": [4]}, "classes holds 4, expected 0 to 3"),
        ({"iterations": 0}, "iterations is 0"),
        ({"scales": (0, 1)}, r"scales is \(0, 1\)"),
        ({"scales": (1.2, 1.0)}, r"scales is \(1.2, 1.0\)"),
        ({"degrees": -1}, "degrees is -1"),
        ({"snapshots_at": [9], "iterations": 8}, "snapshots_at holds 9"),
    ],
)
def test_spectrum_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        class_images.maximise_spectrum(Small(), **{"classes": [0]} | options)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("recipe", [class_images.maximise, class_images.maximise_spectrum])
def test_few_images_are_in_the_networks_memory_at_a_time(recipe, most, monkeypatch):
    network, options = Small(), {"iterations": 8, "jitter": 2}
    whole = recipe(network, [2, 0, 3], **options)
    monkeypatch.setattr(runtime, "images_at_once", lambda device: most)
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    parts = recipe(network, [2, 0, 3], **options)
    assert max(sizes) == most
    torch.testing.assert_close(parts.images, whole.images)
    torch.testing.assert_close(parts.scores, whole.scores)


@pytest.mark.parametrize("recipe", [class_images.maximise, class_images.maximise_spectrum])
def test_a_gallery_goes_on_where_it_was_interrupted(recipe, tmp_path, monkeypatch):
    network, classes, path = Small(), [0, 3, 1, 2, 1], tmp_path / "gallery.pt"
    options = {"iterations": 3, "batch_size": 2, "seed": 4}
    expected = class_images.gallery(recipe, network, classes, **options)
    assert expected.shape == (5, 3, 12, 12)
    for i in (0, 2):
        part = recipe(network, classes[i : i + 2], iterations=3, seed=4).images
        assert torch.equal(expected[i : i + 2], part)

    calls = []

    def failing(network, batch, **options):
        calls.append(batch.tolist())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return recipe(network, batch, **options)

    failing.__name__ = recipe.__name__
    with pytest.raises(KeyboardInterrupt):
        class_images.gallery(failing, network, classes, checkpoint=path, **options)
    for _ in range(2):  # the second time all is there
        again = class_images.gallery(failing, network, classes, checkpoint=path, **options)
        assert torch.equal(again, expected)
        assert calls == [[0, 3], [1, 2], [1, 2], [1]]

    other = options | {"seed": 5}
    assert not torch.equal(
        class_images.gallery(failing, network, classes, checkpoint=path, **other), expected
    )
    assert len([*tmp_path.iterdir()]) == 2  # each has a file of its own
    with pytest.raises(ValueError, match="batch_size is 0"):
        class_images.gallery(recipe, network, classes, batch_size=0)
    with pytest.raises(ValueError, match="classes is empty"):
        class_images.gallery(recipe, network, [])
