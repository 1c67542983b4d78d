"""How good generated images are, by a judge that classifies them: figures of merit of practical 4.

A judge reads features (N, D) and a class from each image. Everything below compares the features
or the classes of two sets of images; a set of real images against another one gives the value
that could be reached at best.
"""

import math
import sys
import warnings

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.transforms import v2 as transforms

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models.checks import check_uint8_images


def train_judge(
    judge, images, labels, *, epochs=6, batch_size=128, seed=0, checkpoint=None, description="judge"
):
    """Train a classifier in place on uint8 images (N, C, 32, 32), turned and shifted a little.

    Adam, whose rate of 0.002 falls to 0 along half a cosine. With `checkpoint`, a path, the state
    after each epoch is kept, and training goes on from there to the same weights (on a CPU).
    Raises ValueError for labels of another number and for fewer images than a batch.
    """
    check_uint8_images(images)
    if len(labels) != len(images) or len(images) < batch_size:
        raise ValueError(
            f"images has {len(images)} rows and labels {len(labels)}, expected as many of both, "
            f"and at least {batch_size}"
        )
    device = runtime.device()
    judge.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    steps = len(images) // batch_size
    made_from = fingerprint(
        [epochs, batch_size, seed, torch.__version__, device.type],
        images, labels, judge.state_dict(), sys.modules[type(judge).__module__], train_judge,
    )  # fmt: skip
    state = load_checkpoint(checkpoint, made_from) if checkpoint else None
    done = 0
    if state is not None:
        judge.load_state_dict(state["judge"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
    images, labels = images.to(device), labels.to(device)
    moved = transforms.RandomAffine(10, translate=(0.07, 0.07), scale=(0.9, 1.1))
    bar = runtime.progress(None, f"{description} training", epochs * steps, initial=done * steps)
    with bar:
        for epoch in range(done, epochs):
            # Dropout and the views draw from PyTorch's own generator.
            torch.manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(images)).to(device)
            for step, batch in enumerate(order[: steps * batch_size].split(batch_size)):
                progress = (epoch * steps + step) / (epochs * steps)
                optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * progress))
                view = moved(images[batch].to(memory_format=torch.channels_last) / 255)
                loss = F.cross_entropy(judge(view), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
            if checkpoint:
                state = {"judge": judge.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(checkpoint, made_from, state | {"epochs": epoch + 1})
    judge.eval()


def read(judge, images, batch_size=500):
    """Return features (N, D) and the most likely class (N,) of uint8 images (N, C, 32, 32)."""
    check_uint8_images(images)
    device = next(judge.parameters()).device
    judge.eval()
    features = []
    with torch.inference_mode():
        for batch in images.split(batch_size):
            features.append(judge.features(batch.to(device) / 255))
        features = torch.cat(features)
        classes = judge.head(features).argmax(1)
    return features.cpu(), classes.cpu()


class _Given(nn.Module):
    """Hands on features that have been computed already."""

    def __init__(self, width):
        super().__init__()
        self.num_features = width

    def forward(self, features):
        return features


def frechet_distance(real, fake):
    """Return the Fréchet distance of two sets of features (N, D) and (M, D).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) of their means and covariances (Heusel et al., NeurIPS
    2017, eq. 6). In the features of a judge: not comparable with an FID, which is of Inception's.
    Raises ValueError for fewer images than features, whose covariance would be singular.
    """
    if min(len(real), len(fake)) <= real.shape[1]:
        raise ValueError(
            f"real has {len(real)} rows and fake {len(fake)}, expected more than the "
            f"{real.shape[1]} features"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    distance.update(real, real=True)
    distance.update(fake, real=False)
    return max(distance.compute().item(), 0.0)


def neighbourhoods(real, fake, count=5):
    """Return precision, recall, density and coverage of features fake (M, D) against real (N, D).

    The neighbourhood of an image is the ball up to its `count`-th nearest neighbour in its own set.
    Precision: the share of fake images in a real one's neighbourhood; recall: of real images in a
    fake one's (Kynkäänniemi et al., NeurIPS 2019). Density: how many real neighbourhoods a fake
    image lies in, divided by `count`; coverage: the share of real images with a fake one in their
    neighbourhood (Naeem et al., ICML 2020, eq. 5-6).
    Raises ValueError for sets of `count` images or fewer.
    """
    if min(len(real), len(fake)) <= count:
        raise ValueError(
            f"real has {len(real)} rows and fake {len(fake)}, expected more than {count}"
        )
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    among_real, among_fake = (
        NearestNeighbors(n_neighbors=count, algorithm="brute").fit(part) for part in (real, fake)
    )
    # Without an argument an image is not its own neighbour.
    real_radius = among_real.kneighbors()[0][:, -1]
    fake_radius = among_fake.kneighbors()[0][:, -1]
    inside_real, inside_fake = np.zeros(len(fake)), np.zeros(len(real), bool)
    nearest = np.full(len(real), np.inf)
    for first in range(0, len(fake), 1000):
        part = slice(first, first + 1000)
        distances = _distances(real, fake[part])
        inside_real[part] = (distances <= real_radius[:, None]).sum(0)
        inside_fake |= (distances <= fake_radius[None, part]).any(1)
        nearest = np.minimum(nearest, distances.min(1))
    return {
        "precision": float((inside_real > 0).mean()),
        "recall": float(inside_fake.mean()),
        "density": float(inside_real.mean() / count),
        "coverage": float((nearest <= real_radius).mean()),
    }


def _distances(one, other):
    return torch.cdist(torch.from_numpy(one), torch.from_numpy(other)).numpy()


def class_coverage(real, real_classes, fake, fake_classes, count=5):
    """Return the mean over the classes of the coverage within a class, see `neighbourhoods`."""
    return float(
        np.mean(
            [
                neighbourhoods(real[real_classes == y], fake[fake_classes == y], count)["coverage"]
                for y in real_classes.unique()
            ]
        )
    )


def class_shares(classes, count=10):
    """Return the share of each of `count` classes, and their total variation from uniform shares.

    The variation is half the sum of the absolute differences: 0 if all classes are as frequent,
    1 - 1 / count if there is but one.
    """
    shares = torch.bincount(classes, minlength=count) / len(classes)
    return shares, (shares - 1 / count).abs().sum().item() / 2


def handwriting(images):
    """Return {"ink", "slant", "width"}: (N,) each, of uint8 images of digits (N, 1, H, W).

    From the moments of the brightness b over rows y and columns x: ink, its mean, in [0, 1];
    slant, cov(x, y) / var(y), the columns by which a stroke moves to the right from one row to the
    one above it; width, the standard deviation of x in pixels. An image without ink is NaN in the
    last two.
    """
    check_uint8_images(images)
    b = images[:, 0].double() / 255
    y, x = (torch.arange(side).double() for side in b.shape[1:])
    weights = b / b.sum((1, 2), keepdim=True)
    rows, columns = weights.sum(2), weights.sum(1)
    from_y = y - (rows * y).sum(1, keepdim=True)
    from_x = x - (columns * x).sum(1, keepdim=True)
    covariance = torch.einsum("nyx,ny,nx->n", weights, from_y, from_x)
    return {
        "ink": b.mean((1, 2)),
        "slant": -covariance / (rows * from_y.square()).sum(1),
        "width": (columns * from_x.square()).sum(1).sqrt(),
    }


def explained(values):
    """Return the share of the variance of values (rows, columns) that the columns explain.

    Each row's mean is taken off first. By chance it is (columns - 1) / (rows * columns - 1) on
    average, as each column's mean follows its own rows (eta squared of an analysis of variance).
    """
    centred = values - values.mean(1, keepdim=True)
    return (centred.mean(0).square().mean() / centred.square().mean()).item()
