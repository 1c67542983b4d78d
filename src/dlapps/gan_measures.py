"""How good generated images are, by a judge that classifies them: figures of merit of practical 4.

A judge reads features (N, D) and a class from each image. Everything below compares the features
or the classes of two sets of images; a set of real images against another one gives the value
that could be reached at best.
"""

import warnings

import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from dlapps import runtime, steps, training, views
from dlapps.models.checks import check_counts, check_uint8_images


def train_judge(
    judge, images, labels, *, epochs=6, batch_size=128, seed=0, checkpoint=None, description="judge"
):
    """Train a classifier in place on uint8 images (N, C, 32, 32), turned and shifted a little.

    Adam, whose rate of 0.002 falls to 0 along half a cosine. `checkpoint`: see `training.run`.
    Raises ValueError for labels of another number and for fewer images than a batch.
    """
    check_uint8_images(images)
    check_counts(epochs=epochs, batch_size=batch_size)
    if len(labels) != len(images) or len(images) < batch_size:
        raise ValueError(
            f"images has {len(images)} rows and labels {len(labels)}, expected as many of both, "
            f"and at least {batch_size}"
        )
    count = epochs * (len(images) // batch_size)
    steps.place(judge)
    optimizer = steps.optimizer(torch.optim.Adam, judge)
    batches = steps.Batches(images, labels, batch_size, steps=count, seed=seed)

    def step(at):
        x, y = batches(at.t)
        shift = 0.07 * x.shape[-1]
        return steps.supervised_step(judge, optimizer, views.turned(x, shift=shift), y)

    plan = training.Plan(
        count,
        ("loss", "accuracy"),
        {"learning_rate": lambda t: steps.cosine(t, count, 2e-3)},
        seed,
    )
    state = training.State({"judge": judge}, {"judge": optimizer}, (batches,))
    made_from = [epochs, batch_size, images, labels, train_judge, type(judge)]
    training.run(
        step, state, plan, checkpoint=checkpoint, made_from=made_from, description=description
    ).check()
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
