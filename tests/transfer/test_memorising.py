"""Networks from scratch that learn their images by heart: on images that chance decides."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torchvision.models import vgg16_bn

from dlapps import runtime
from dlapps.datasets import ImageSet
from dlapps.transfer import memorising
from dlapps.transfer.memorising import Settings

TINY = Settings(size=32, epochs=24, watch_every=8, batch_size=8)


def noise(count=24, classes=2, seed=0):
    """Return images of noise, whose labels nothing tells."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 40, 40), generator=generator).to(torch.uint8)
    names = tuple("abcdef"[:classes])
    return ImageSet(images, torch.arange(count) % classes, names, f"noise {seed}")


def test_noise_is_memorised_and_nothing_is_learnt_of_other_noise():
    data, test = noise(), noise(64, seed=1)
    curve = memorising.train(data, test, TINY)
    assert list(curve) == [8, 16, 24]
    assert curve[24][0] == 1
    assert 0.3 < curve[24][1] < 0.7  # chance is 0.5 ± 0.06


def test_last_epoch_is_always_watched():
    curve = memorising.train(noise(), noise(8), replace(TINY, epochs=3, watch_every=2))
    assert list(curve) == [2, 3]


def test_random_labels_are_the_same_labels_in_another_order():
    data = noise(24, 3)
    dealt = memorising.with_random_labels(data, seed=1)
    assert torch.equal(dealt.images, data.images)
    assert torch.equal(dealt.labels.bincount(), data.labels.bincount())
    assert not torch.equal(dealt.labels, data.labels)
    assert torch.equal(dealt.labels, memorising.with_random_labels(data, seed=1).labels)
    assert not torch.equal(dealt.labels, memorising.with_random_labels(data, seed=2).labels)


def test_accuracy_is_counted_in_evaluation_mode_on_any_device():
    class Bright(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            assert not self.training and images.max() <= 1
            bright = images.mean((1, 2, 3)) > 0.5
            return torch.stack([~bright, bright], 1).float()

    images = torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    data = ImageSet(images, torch.tensor([0, 1, 1, 1]), ("dark", "bright"), "grey")
    network = Bright().to(runtime.device()).train()
    assert memorising.accuracy(network, data, batch_size=3) == 0.75
    assert network.training


def test_vgg16_is_torchvisions():
    with torch.device("meta"):
        network, reference = memorising.build("vgg16", 15), vgg16_bn(num_classes=15)
    assert str(network.body.features) == str(reference.features)
    shapes = {key: value.shape for key, value in reference.state_dict().items()}
    assert {key: value.shape for key, value in network.body.state_dict().items()} == shapes


@pytest.mark.parametrize("size", [32, 64, 96])
def test_small_vgg_takes_grey_and_colour(size):
    network = memorising.build("small_vgg", 7).eval()
    grey = torch.rand(2, 1, size, size)
    assert network(grey).shape == (2, 7)
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))


def test_comparison_has_a_run_for_each_label_and_seed(tmp_path):
    settings = replace(TINY, epochs=2, watch_every=1)
    path = tmp_path / "memorising.pt"
    runs = memorising.compare_labels(noise(), noise(8, seed=1), settings, [0, 1], path)
    assert len(runs) == 2 * 2 * 2 and set(runs["labels"]) == {"true", "random"}
    assert sorted(p.name for p in tmp_path.glob("*.pt"))[0].startswith("memorising-random-0")
    again = memorising.compare_labels(noise(), noise(8, seed=1), settings, [0, 1], path)
    pd.testing.assert_frame_equal(runs, again)
    alone = memorising.train(noise(), noise(8, seed=1), replace(settings, seed=1))
    row = runs.query("labels == 'true' and seed == 1 and epoch == 2").iloc[0]
    assert (row["train"], row["test"]) == alone[2]

    last = memorising.final_accuracies(runs)
    assert len(last) == 4 and (last["gap"] == last["train"] - last["test"]).all()
    epochs, accuracies = memorising.learning_curves(runs, "random")["test images"]
    assert epochs.tolist() == [1, 2] and accuracies.shape == (2, 2)
    expected = runs.query("labels == 'random' and seed == 0")["test"].tolist()
    assert accuracies[0].tolist() == expected


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="network is 'vgg', expected one of vgg16, small_vgg"):
        Settings(network="vgg")
    for name in ("size", "epochs", "watch_every", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
            Settings(**{name: 0})
    with pytest.raises(ValueError, match="learning_rate is 0"):
        Settings(learning_rate=0)
    with pytest.raises(ValueError, match="data has 4 images for batches of 8"):
        memorising.train(noise(4), noise(4), TINY)
