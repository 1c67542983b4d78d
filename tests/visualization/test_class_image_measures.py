"""What class images show, measured by hand."""

import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode

from dlapps.visualization import class_image_measures, class_images


class Linear(nn.Module):
    """Scores w_k . x of images of 5 x 5 pixels."""

    input_size, interpolation = 5, InterpolationMode.BILINEAR

    def __init__(self, classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.rand(classes, 3, 5, 5, generator=generator).double() * 2 - 1
        self.mean, self.std = (torch.full((1, 3, 1, 1), v).double() for v in (0.4, 0.5))

    def forward(self, images):
        return torch.einsum("nchw,kchw->nk", (images - self.mean) / self.std, self.weights)


def random_images(count, size=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator).double()


def test_recognised_is_the_accuracy_at_the_networks_own_size():
    network = Linear()
    images = random_images(6, size=5)
    with torch.no_grad():
        probabilities = network(images).softmax(1)
    predicted = probabilities.argmax(1)
    classes = torch.where(torch.arange(6) < 4, predicted, (predicted + 1) % 3)
    top1, mean = class_image_measures.recognition(network, images, classes)
    assert top1 == pytest.approx(4 / 6)
    assert mean == pytest.approx(probabilities.gather(1, classes[:, None]).mean().item())

    even = torch.linspace(0.1, 0.9, 6).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).double()
    again = class_image_measures.recognition(network, even, classes)  # of another size, but even
    assert again == pytest.approx(
        class_image_measures.recognition(network, even[..., :5, :5], classes)
    )
    with pytest.raises(ValueError, match="classes"):
        class_image_measures.recognition(network, images, [0, 1, 2, 3, 0, 0])


def test_roughness_is_the_mean_step_between_neighbours():
    board = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    assert class_image_measures.roughness(board.expand(2, 3, 6, 6).double()) == 1
    ramp = torch.linspace(0, 1, 6).expand(1, 3, 6, 6)
    assert class_image_measures.roughness(ramp) == pytest.approx(0.2 / 2)  # along one axis alone


def test_stretching_adds_contrast_where_there_is_little():
    images = 0.4 + 0.01 * (random_images(4, size=20) - 0.5).view(2, 2, 3, 20, 20)
    seen = class_image_measures.stretched(images)
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    assert seen.mean().item() == pytest.approx(0.4, abs=0.02)
    assert seen.std((-3, -2, -1)).flatten().tolist() == pytest.approx([0.2] * 4, abs=0.008)
    photo = random_images(1)
    torch.testing.assert_close(class_image_measures.stretched(photo), photo)
    even = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(class_image_measures.stretched(even), even)


def test_equal_variants_are_computed_once(monkeypatch):
    calls = []

    def counted(*given, **settings):
        calls.append(settings)
        return class_images.maximise(*given, **settings)

    monkeypatch.setattr(class_image_measures, "maximise", counted)
    variants = {"usual": {}, "the same": {"l2": 1e-3}, "no blur": {"blur_every": None}}
    usual = {"l2": 1e-3, "iterations": 2, "blur_every": 1, "jitter": 1}
    found = class_image_measures.vary(Linear(), [0, 2], variants, **usual)
    assert list(found) == list(variants) and len(calls) == 2
    assert torch.equal(found["usual"], found["the same"])
    assert not torch.equal(found["usual"], found["no blur"])


def test_tables_hold_what_the_networks_say():
    network, judge, classes = Linear(), Linear(), torch.tensor([0, 2])
    judge.weights = -network.weights
    images = {"first": random_images(2), "second": random_images(2, seed=2)}
    table = class_image_measures.compare(network, judge, classes, images)
    scores = network(images["second"])[[0, 1], classes]
    assert table.loc["second", "score"] == pytest.approx(scores.mean().item())
    own = judge(images["second"]).softmax(1)[[0, 1], classes]
    assert table.loc["second", "second network"] == pytest.approx(own.mean().item())


def test_verdicts_over_seeds():
    network, other, classes = Linear(), Linear(), torch.tensor([0, 2])
    other.weights = -network.weights
    images = torch.stack([random_images(2), random_images(2, seed=2), random_images(2, seed=3)])
    judges = {"Net 2": network, "Other": other}
    table = class_image_measures.verdicts({("a recipe", "Net 1"): images}, classes, judges)
    assert table["judge"].tolist() == [*judges] and set(table["made for"]) == {"Net 1"}
    for row, judge in zip(table.to_dict("records"), judges.values(), strict=True):
        each = [class_image_measures.recognition(judge, one, classes) for one in images]
        assert row["by seed"] == [top1 for top1, _ in each]
        assert row["top-1"] == pytest.approx(sum(row["by seed"]) / 3)
        assert row["probability"] == pytest.approx(sum(p for _, p in each) / 3)
        assert row["top-1, 95 %"][0] <= row["top-1"] <= row["top-1, 95 %"][1]


@pytest.mark.parametrize(
    ("judge", "related"),
    [
        ("EfficientNet-Lite0", "maker"),
        ("EfficientNet-Lite1", "sibling"),
        ("SqueezeNet 1.1", "maker"),
        ("SqueezeNet 1.0", "sibling"),
        ("VGG16", "another family"),
    ],
)
def test_kinship_goes_by_the_titles(judge, related):
    maker = "SqueezeNet 1.1 + EfficientNet-Lite0"
    assert class_image_measures.kinship(maker, judge) == related


def test_changes_from_the_start():
    network, start = Linear(), random_images(2)
    images, classes = start.clone(), torch.tensor([1, 2])
    images[1] = (1 - start[1]).clamp(0, 1)
    table = class_image_measures.changes(network, start, images, classes)
    assert table["L2 of the change"].tolist() == pytest.approx(
        [0, (1 - 2 * start[1]).norm().item()]
    )
    assert table["correlation with the start"].tolist() == pytest.approx([1, -1])
    before = network(start).softmax(1)[[0, 1], classes]
    assert table["probability before"].tolist() == pytest.approx(before.tolist())
    assert table["reached"].tolist() == (network(images).argmax(1) == classes).tolist()


def test_frames_have_the_size_of_a_film():
    frames = class_image_measures.frames(random_images(6).view(3, 2, 3, 5, 5), size=8)
    assert len(frames) == 3 and frames[0].shape == (2, 3, 8, 8)
