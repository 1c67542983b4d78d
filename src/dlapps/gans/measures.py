"""How good generated images are, in the features (N, D) of a judge: figures of merit.

A set of real images against another one gives the value that could be reached at best.
"""

import warnings

import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from dlapps import runtime


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


def radii(features, count=5):
    """Return how far the `count`-th nearest neighbour of each of the features (N, D) is, (N,).

    On the device that computes, in double precision. Raises ValueError for `count` rows or fewer.
    """
    if len(features) <= count:
        raise ValueError(f"features has {len(features)} rows, expected more than {count}")
    features = _placed(features)
    # The nearest of all is the image itself.
    parts = [torch.cdist(part, features).kthvalue(count + 1).values for part in _parts(features)]
    return torch.cat(parts)


def neighbourhoods(real, fake, count=5, real_radii=None):
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
    real, fake = _placed(real), _placed(fake)
    inside_real, inside_fake, nearest = [], torch.zeros(len(real)).to(real), []
    for part, radius in zip(_parts(fake), _parts(fake_radii), strict=True):
        distances = torch.cdist(real, part)
        inside_real.append((distances <= real_radii[:, None]).sum(0))
        inside_fake += (distances <= radius).sum(1)
        nearest.append(distances.amin(1))
    inside_real = torch.cat(inside_real).double()
    covered = torch.stack(nearest).amin(0) <= real_radii
    found = (inside_real > 0, inside_fake > 0, inside_real / count, covered)
    shares = torch.stack([values.double().mean() for values in found]).tolist()
    return dict(zip(("precision", "recall", "density", "coverage"), shares, strict=True))


def class_radii(features, classes, count=5):
    """Return `radii` of the features (N, D) among those of their own class, (N,)."""
    found = torch.empty(len(features), dtype=torch.float64, device=runtime.device())
    for y in classes.unique():
        own = (classes == y).to(found.device)
        found[own] = radii(features[classes == y], count)
    return found


def class_coverage(real, real_classes, fake, fake_classes, count=5, real_radii=None):
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


def _placed(features):
    return features.to(runtime.device(), torch.float64)


def _parts(rows):
    return rows.split(1000)  # not all distances at once


def class_shares(classes, count=10):
    """Return the share of each of `count` classes, and their total variation from uniform shares.

    The variation is half the sum of the absolute differences: 0 if all classes are as frequent,
    1 - 1 / count if there is but one.
    """
    shares = torch.bincount(classes, minlength=count) / len(classes)
    return shares, (shares - 1 / count).abs().sum().item() / 2
