"""Practical 2, whether a saliency map can be trusted: what it finds, and what it depends on."""

import copy

import numpy as np
import torch
from scipy.stats import bootstrap, spearmanr
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.models.checks import check_counts, check_images
from dlapps.models.gradients import check_classes, check_integers


def perturbation_curves(network, images, labels, maps, mode, steps=28):
    """Return the probability of each image's label as its pixels are deleted or inserted.

    "deletion" replaces the pixels of an image by a blurred copy, those with the largest values of
    its map first; "insertion" begins with the blurred copy and puts them back. The result is a
    float array (N, steps + 1), from no pixel to all of them. A map that finds what the network
    uses makes the first curve fall early and the second rise early.

    images: float (N, 3, H, W) in [0, 1]; labels: integers (N,); maps: (N, H, W), larger where it
    matters more; equal values keep the order of the pixels.
    Raises ValueError for another mode, maps of another shape or with NaN, images below 31 pixels.

    Petsiuk, Das, Saenko: "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    BMVC 2018, section 4.1.
    """
    if mode not in ("deletion", "insertion"):
        raise ValueError(f"mode is {mode!r}, expected 'deletion' or 'insertion'")
    check_counts(steps=steps)
    check_images(images)
    labels = check_integers(labels, len(images)).to(images.device)
    blurred = blur(images)
    maps = torch.as_tensor(maps).to(images)
    if maps.shape != (len(images), *images.shape[2:]) or not maps.isfinite().all():
        raise ValueError(
            f"maps has shape {tuple(maps.shape)}, expected "
            f"{(len(images), *images.shape[2:])}, finite"
        )
    start, end = (images, blurred) if mode == "deletion" else (blurred, images)
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).view_as(maps)[:, None]
    count, curves = maps[0].numel(), []
    with torch.inference_mode():
        for step in runtime.progress(range(steps + 1), mode):
            changed = torch.where(rank < count * step / steps, end, start)
            scores = network(changed)
            if step == 0:
                check_classes(labels, scores.shape[1])
            curves.append(scores.softmax(1).gather(1, labels[:, None])[:, 0])
    return torch.stack(curves, 1).cpu().numpy()


def blur(images, sigma=10.0):
    """Return images (N, 3, H, W) in [0, 1] blurred so far that nothing in them is recognised.

    Raises ValueError for images too small to be blurred by `sigma` pixels.
    """
    reach = round(3 * sigma)
    if min(images.shape[2:]) <= reach:
        raise ValueError(
            f"images has shape {tuple(images.shape)}, expected sides above {reach} pixels"
        )
    return transforms.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2).clamp(0, 1)


def area(curves):
    """Return the area under each of the curves (N, T) over [0, 1], by the trapezoidal rule."""
    return np.trapezoid(curves, dx=1 / (np.shape(curves)[1] - 1), axis=1)


def mean_interval(values, confidence=0.95, seed=0):
    """Return the mean of values (N,) and the ends of its bootstrap interval (percentiles)."""
    values = np.asarray(values, dtype=float)
    found = bootstrap(
        (values,), np.mean, confidence_level=confidence, method="percentile", rng=seed
    ).confidence_interval
    return float(values.mean()), float(found.low), float(found.high)


def random_maps(images, seed=0):
    """Return maps (N, H, W) of uniform noise: a control that knows nothing.

    They lie where the images do.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    return torch.rand(len(images), *images.shape[2:], generator=generator).to(images.device)


def centre_maps(images):
    """Return maps (N, H, W) that fall from the centre: a control that knows photographers.

    They lie where the images do.
    """
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[2:])
    return (-(rows[:, None] ** 2 + columns**2)).expand(len(images), -1, -1)


def rank_correlation(first, second):
    """Return Spearman's rank correlation of each pair of maps (N, H, W), an array (N,).

    The maps are arrays, or tensors on any device. It is NaN where a map has but one value, which
    ranks nothing.
    """
    arrays = (maps.cpu() if isinstance(maps, torch.Tensor) else maps for maps in (first, second))
    flat = (np.asarray(maps).reshape(len(maps), -1) for maps in arrays)
    pairs = zip(*flat, strict=True)
    return np.array(
        [spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else np.nan for a, b in pairs]
    )


def learned_layers(network):
    """Return the layers with weights: convolutions, fully connected ones and batch norms."""
    kinds = nn.Conv2d, nn.Linear, nn.BatchNorm2d
    return [module for module in network.modules() if isinstance(module, kinds)]


def randomise(network, layers, seed=0):
    """Return a copy of `network` whose last `layers` layers with weights are initialised anew.

    A map that explains what the network has learned must change with them (Adebayo et al.: "Sanity
    Checks for Saliency Maps", NeurIPS 2018, section 3: cascading randomisation).
    Raises ValueError if the network has fewer layers.
    """
    other = copy.deepcopy(network)
    learned = learned_layers(other)
    if not 0 <= layers <= len(learned):
        raise ValueError(f"layers is {layers}, expected 0 to {len(learned)}")
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # all that manual_seed seeds
        torch.manual_seed(seed)
        for module in learned[len(learned) - layers :]:
            module.reset_parameters()
    return other
