"""Practical 1: a network with a new last layer, its body frozen, fine-tuned or from scratch."""

import copy
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2 as transforms

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models import features
from dlapps.models.checks import check_counts, check_uint8_images

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
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected a positive number")
        for name, below in [("weight_decay", float("inf")), ("label_smoothing", 1)]:
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 <= {name} < {below}")


class Classifier(nn.Module):
    """A copy of a `PretrainedNetwork` up to one layer, and a new last layer of K scores.

        s(x) = W f(x) + b,

    with f the features of `layer` (maps averaged over space), by default the network's own
    default. W and b start at 0: every class is equally probable.
    """

    def __init__(self, network, classes, layer=None):
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

    def forward(self, images):
        """Return the class scores (N, K) of images (N, 3, H, W) in [0, 1]."""
        return self.last(self.network.features(images, [self.layer])[self.layer])

    def fit_last_layer(self, features, labels, C=1.0):
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

    def scores(self, images, size, mirrored=False, quiet=False):
        """Return the scores (N, K) of uint8 images, shown at `size` pixels, in eval mode.

        `mirrored` averages over each image and its mirror image; `quiet` shows no progress bar.
        """
        found = features.extract(
            self.network,
            images,
            [self.layer],
            sizes=[size],
            mirrored=mirrored,
            cache=False,
            quiet=quiet,
        )
        with torch.inference_mode():
            return self.last(found[self.layer].to(self.last.weight.device)).cpu()


def accuracy(model, test, size, mirrored=False, quiet=False):
    """Return the share of an ImageSet's images whose label has the highest score."""
    predictions = model.scores(test.images, size, mirrored, quiet).argmax(1)
    return (predictions == test.labels).double().mean().item()


def augment(images, size):
    """Return a random view of each uint8 image (N, C, H, W): (N, C, size, size), uint8.

    A view is a window of half to all of the image, of a shape from 3:4 to 4:3, resized, and in half
    of the cases flipped from left to right. It draws from PyTorch's global random state.
    """
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.5, 1), antialias=True),
            transforms.RandomHorizontalFlip(),
        ]
    )
    return torch.stack([change(image) for image in images])


def train(model, data, settings, *, test=None, checkpoint=None, description="Training"):
    """Train all of a `Classifier` in place on an ImageSet, with random views of its images.

    `test`, an ImageSet, is classified after each epoch, which influences nothing. With
    `checkpoint`, a path, the state after each epoch is kept, and training goes on from there to
    the same weights, bit for bit (on a CPU).
    Returns {name of RECORDED: list of one number an epoch}: the mean loss in nats and the accuracy
    on the views that were trained on, and the accuracy on `test` (None without it). Raises
    ValueError if the images are fewer than a batch.
    """
    check_uint8_images(data.images)
    if len(data) < settings.batch_size:
        raise ValueError(f"data has {len(data)} images for batches of {settings.batch_size}")
    device = runtime.device()
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = len(data) // settings.batch_size
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.epochs * steps, pct_start=0.2
    )
    made_from = fingerprint(
        [asdict(settings), torch.__version__, device.type, model.layer],
        data.images, data.labels, *((test.images, test.labels) if test else ()),
        model.state_dict(), type(model), type(model.network), augment, accuracy, train, _epoch,
    )  # fmt: skip
    state = load_checkpoint(checkpoint, made_from) if checkpoint else None
    history = {name: [] for name in RECORDED}
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    if state is not None:
        history = state["history"]
        for name, part in parts.items():
            part.load_state_dict(state[name])

    done = len(history["loss"])
    total = settings.epochs * steps
    bar = runtime.progress(None, description, total, initial=done * steps)
    with bar, runtime.naming_memory("batch_size", settings.batch_size):
        for epoch in range(done, settings.epochs):
            # The order, the views and the dropout of an epoch depend on its number alone.
            torch.manual_seed(settings.seed * 1_000_003 + epoch)
            loss, correct = _epoch(model, data, optimizer, scheduler, settings, bar)
            tested = accuracy(model, test, settings.size, quiet=True) if test else None
            for name, value in zip(RECORDED, (loss, correct, tested), strict=True):
                history[name].append(value)
            if checkpoint:
                state = {name: part.state_dict() for name, part in parts.items()}
                save_checkpoint(checkpoint, made_from, state | {"history": history})
    model.eval()
    return history


def _epoch(model, data, optimizer, scheduler, settings, bar):
    """Train for one epoch; return the mean loss and accuracy. The rest of a batch is left out."""
    model.train()
    if not settings.batch_statistics:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    device = model.last.weight.device
    size, sums = settings.batch_size, torch.zeros(2, device=device)
    steps = len(data) // size
    order = torch.randperm(len(data))
    for step in range(steps):
        batch = order[step * size : (step + 1) * size]
        views = model.network.prepare(augment(data.images[batch], settings.size), settings.size)
        labels = data.labels[batch].to(device)
        scores = model(views.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(scores, labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        correct = (scores.argmax(1) == labels).float().mean()
        sums += torch.stack([loss.detach(), correct])
        bar.update()
    return (sums / steps).tolist()
