"""How good generated images are, in the features (N, D) of a judge: figures of merit.

A set of real images against another one gives the value that could be reached at best.
"""

import warnings

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from dlapps import runtime

UNITS = {
    "frechet": "Fréchet distance in the judge's features",
    "precision": "share of generated images",
    "recall": "share of real images",
    "density": "real neighbourhoods around a generated image, of 5",
    "coverage": "share of real images",
    "variation": "total variation from uniform shares",
    "agreement": "share of generated images classified as asked",
    "permuted agreement": "share of generated images, after the best permutation of the labels",
    "class coverage": "share of real images, mean of the classes",
    "gan train": "accuracy on real test images",
}


class _Given(nn.Module):
    """Hands on features that have been computed already."""

    def __init__(self, width):
        super().__init__()
        self.num_features = width

    def forward(self, features):
        return features


def frechet_distance(real: Tensor, fake: Tensor) -> float:
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


def radii(features: Tensor, count: int = 5) -> Tensor:
    """Return how far the `count`-th nearest neighbour of each of the features (N, D) is, (N,).

    On the device that computes, in double precision. Raises ValueError for `count` rows or fewer.
    """
    if len(features) <= count:
        raise ValueError(f"features has {len(features)} rows, expected more than {count}")
    features = _on_device(features)
    # The nearest of all is the image itself.
    distances = (torch.cdist(part, features) for part in _chunks(features))
    return torch.cat([rows.topk(count + 1, largest=False).values[:, -1] for rows in distances])


def neighbourhoods(
    real: Tensor, fake: Tensor, count: int = 5, real_radii: Tensor | None = None
) -> dict[str, float]:
    """Return precision, recall, density and coverage of features fake (M, D) against real (N, D).

    The neighbourhood of an image is the ball up to its `count`-th nearest neighbour in its own set
    (`radii`; those of the real images may be handed over).
    Precision: the share of fake images in a real one's neighbourhood; recall: of real images in a
    fake one's (Kynkäänniemi et al., NeurIPS 2019). Density: how many real neighbourhoods a fake
    image lies in, divided by `count`; coverage: the share of real images with a fake one in their
    neighbourhood (Naeem et al., ICML 2020, eq. 5-6).
    Raises ValueError for sets of `count` images or fewer.
    """
    fake_radii = radii(fake, count)
    real_radii = radii(real, count) if real_radii is None else real_radii
    real, fake = _on_device(real), _on_device(fake)
    inside_real, inside_fake, nearest = [], torch.zeros(len(real)).to(real), []
    for part, radius in zip(_chunks(fake), _chunks(fake_radii), strict=True):
        distances = torch.cdist(real, part)
        inside_real.append((distances <= real_radii[:, None]).sum(0))
        inside_fake += (distances <= radius).sum(1)
        nearest.append(distances.amin(1))
    inside_real = torch.cat(inside_real).double()
    covered = torch.stack(nearest).amin(0) <= real_radii
    counted = (inside_real > 0, inside_fake > 0, inside_real / count, covered)
    shares = torch.stack([values.double().mean() for values in counted]).tolist()
    return dict(zip(("precision", "recall", "density", "coverage"), shares, strict=True))


def class_radii(features: Tensor, classes: Tensor, count: int = 5) -> Tensor:
    """Return `radii` of the features (N, D) among those of their own class, (N,)."""
    own_radii = torch.empty(len(features), dtype=torch.float64, device=runtime.device())
    for y in classes.unique():
        own = (classes == y).to(own_radii.device)
        own_radii[own] = radii(features[classes == y], count)
    return own_radii


def class_coverage(
    real: Tensor,
    real_classes: Tensor,
    fake: Tensor,
    fake_classes: Tensor,
    count: int = 5,
    real_radii: Tensor | None = None,
) -> float:
    """Return the mean over the classes of the coverage within a class, see `neighbourhoods`.

    `real_radii` may be handed over, see `class_radii`.
    """
    if real_radii is None:
        real_radii = class_radii(real, real_classes, count)
    shares = []
    for y in real_classes.unique():
        own, others = real_classes == y, fake_classes == y
        radius = real_radii[own.to(real_radii.device)]
        shares.append(neighbourhoods(real[own], fake[others], count, radius)["coverage"])
    return sum(shares) / len(shares)


def _on_device(features):
    return features.to(runtime.device(), torch.float64)


def _chunks(rows):
    return rows.split(1000)  # not all distances at once


def class_shares(classes: Tensor, count: int = 10) -> tuple[Tensor, float]:
    """Return the share of each of `count` classes, and their total variation from uniform shares.

    The variation is half the sum of the absolute differences: 0 if all classes are as frequent,
    1 - 1 / count if there is but one.
    """
    shares = torch.bincount(classes, minlength=count) / len(classes)
    return shares, (shares - 1 / count).abs().sum().item() / 2


def permuted_agreement(asked: Tensor, predicted: Tensor, count: int = 10) -> float:
    """Return the share of predicted classes (N,) that are the ones asked for, renamed at best.

    Over all permutations of the `count` labels, found by the Hungarian algorithm: 1 if each label
    stands for one class of its own, whichever it is.
    """
    confusion = torch.bincount(asked * count + predicted, minlength=count**2).view(count, count)
    rows, columns = linear_sum_assignment(confusion.numpy(), maximize=True)
    return confusion[rows, columns].sum().item() / len(asked)
