"""Practical 1: a network with a new last layer, its body frozen, fine-tuned or from scratch."""

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from dlapps import steps, training, views
from dlapps.checks import check_counts, check_positive, check_uint8_images
from dlapps.datasets import ImageSet
from dlapps.datasets.image_set import resize
from dlapps.models import features

RECORDED = ("loss", "train_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Settings:
    """How a `Classifier` is trained: AdamW, with a learning rate that rises and falls once.

    `size` is the side of the training images in pixels. `batch_statistics`: whether batch norms
    use and learn the statistics of the batches; without it they keep those that they have.
    """

    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    size: int = 224
    batch_statistics: bool = True
    seed: int = 0

    def __post_init__(self):
        check_counts(epochs=self.epochs, batch_size=self.batch_size, size=self.size)
        check_positive(learning_rate=self.learning_rate)
        for name, below in [("weight_decay", float("inf")), ("label_smoothing", 1)]:
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 <= {name} < {below}")


class Classifier(nn.Module):
    """A copy of a `PretrainedNetwork` up to one layer, and a new last layer of K scores.

        s(x) = W f(x) + b,

    with f the features of `layer` (maps averaged over space), by default the network's own
    default. W and b start at 0: every class is equally probable.
    """

    def __init__(self, network: nn.Module, classes: int, layer: str | None = None):
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(True)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # EfficientNet-Lite's 0.01 is for thousands of steps
        self.layer = layer or network.default_layer
        size = network.input_size
        with torch.inference_mode():
            image = torch.zeros(1, 3, size, size, device=network.mean.device)
            dimension = network.features(image, [self.layer])[self.layer].shape[1]
        self.last = nn.Linear(dimension, classes, device=network.mean.device)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores (N, K) of images (N, 3, H, W) in [0, 1]."""
        return self.last(self.network.features(images, [self.layer])[self.layer])

    def fit_last_layer(self, features: ArrayLike, labels: ArrayLike, C: float = 1.0) -> None:
        """Set the last layer to the softmax regression of features (N, D), the body frozen.

        It minimises the cross-entropy plus |W|² / 2C, which has one minimum: a solver finds it
        without a learning rate. Raises ValueError if not all classes, 0 to K - 1, have a row.
        """
        labels = np.asarray(labels)
        if not np.array_equal(np.unique(labels), np.arange(self.last.out_features)):
            raise ValueError(
                f"labels holds {np.unique(labels)}, expected 0 to {self.last.out_features - 1}"
            )
        model = LogisticRegression(C=C, max_iter=10_000).fit(np.asarray(features), labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes share one vector
            weight, bias = (np.concatenate([-part, part]) / 2 for part in (weight, bias))
        with torch.no_grad():
            self.last.weight.copy_(torch.from_numpy(weight))
            self.last.bias.copy_(torch.from_numpy(bias))

    def scores(
        self, images: Tensor, size: int, mirrored: bool = False, quiet: bool = False
    ) -> Tensor:
        """Return the scores (N, K) of uint8 images, shown at `size` pixels, in eval mode.

        `mirrored` averages over each image and its mirror image; `quiet` shows no progress bar.
        """
        options = {"sizes": [size], "mirrored": mirrored, "cache": False, "quiet": quiet}
        found = features.extract(self.network, images, [self.layer], **options)
        with torch.inference_mode():
            return self.last(found[self.layer].to(self.last.weight.device)).cpu()


def accuracy(model: Classifier, test: ImageSet, size: int, quiet: bool = False) -> float:
    """Return the share of an ImageSet's images whose label has the highest score."""
    predictions = model.scores(test.images, size, quiet=quiet).argmax(1)
    return (predictions == test.labels).double().mean().item()


def prepared(images: Tensor, size: int) -> Tensor:
    """Return uint8 images (N, C, H, W) of which random windows are shown at `size` pixels.

    Smaller if they are so large that a window of half an image would be shown smaller than it is:
    reduced well once, not each time badly.
    """
    side = round(size / math.sqrt(0.5))
    return resize(images, side) if min(images.shape[2:]) > side else images


def train(
    model: Classifier,
    data: ImageSet,
    settings: Settings,
    *,
    test: ImageSet | None = None,
    checkpoint: Path | None = None,
    description: str = "training",
) -> dict[str, list]:
    """Train all of a `Classifier` in place on an ImageSet, with random views of its images.

    A view is a window of half to all of the image, mirrored in half of the cases, see
    `views.random_crops`. `test` is classified after each epoch; nothing depends on it.
    `checkpoint`: see `training.run`.
    Returns {name of RECORDED: list of one number per epoch}: the mean loss in nats and the accuracy
    on the views that were trained on, and the accuracy on `test` (None without it). Raises
    ValueError if the images are fewer than a batch, FloatingPointError for a loss that is not
    finite.
    """
    check_uint8_images(data.images)
    if len(data) < settings.batch_size:
        raise ValueError(f"data has {len(data)} images for batches of {settings.batch_size}")
    per_epoch = len(data) // settings.batch_size
    count = settings.epochs * per_epoch
    steps.to_device(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(settings.batch_statistics)
    optimizer = steps.optimizer(torch.optim.AdamW, model, weight_decay=settings.weight_decay)
    images = prepared(data.images, settings.size)
    order = {"steps": count, "seed": settings.seed}
    batches = steps.Batches(images, data.labels, settings.batch_size, **order)

    def step(at):
        x, y = batches(at.t)
        x = views.random_crops(x, settings.size).expand(-1, 3, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        return steps.supervised_step(model, optimizer, x, y, settings.label_smoothing)

    plan = training.Plan(
        count,
        ("loss", "accuracy"),
        {"learning_rate": lambda t: steps.one_cycle(t, count, settings.learning_rate)},
        settings.seed,
        watch=lambda t: accuracy(model, test, settings.size, quiet=True) if test else None,
        watch_at=tuple(range(per_epoch, count + 1, per_epoch)),
    )
    state = training.State({"model": model}, {"model": optimizer}, (batches,))
    tested = (test.images, test.labels) if test else ()
    made_from = [asdict(settings), model.layer, data.images, data.labels, *tested]
    made_from += [train, type(model), type(model.network)]
    result = training.run(
        step, state, plan, checkpoint=checkpoint, made_from=made_from, description=description
    ).check()
    model.eval()
    columns = *result.means(settings.epochs).values(), [result.watched[t] for t in plan.watch_at]
    return dict(zip(RECORDED, columns, strict=True))
