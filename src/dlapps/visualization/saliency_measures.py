"""Practical 2, whether a saliency map can be trusted: what it finds, and what it depends on."""

import copy
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.checks import check_counts, check_images
from dlapps.models.gradients import check_classes, check_integers
from dlapps.visualization.road import SHARES, road

MODES = "insertion", "deletion"
MEASURES = *MODES, "ROAD"


def perturbation_curves(
    network: nn.Module, images: Tensor, labels: Tensor, maps: Tensor, mode: str, steps=28
) -> np.ndarray:
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
    if mode not in MODES:
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


def blur(images: Tensor, sigma=10.0) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] blurred so far that nothing in them is recognised.

    Raises ValueError for images too small to be blurred by `sigma` pixels.
    """
    reach = round(3 * sigma)
    if min(images.shape[2:]) <= reach:
        raise ValueError(
            f"images has shape {tuple(images.shape)}, expected sides above {reach} pixels"
        )
    return transforms.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2).clamp(0, 1)


def area(curves: np.ndarray) -> np.ndarray:
    """Return the area under each of the curves (N, T) over [0, 1], by the trapezoidal rule."""
    return np.trapezoid(curves, dx=1 / (np.shape(curves)[1] - 1), axis=1)


def faithfulness(
    network: nn.Module, images: Tensor, labels: Tensor, maps: Tensor, steps=28
) -> Tensor:
    """Return (A_insertion - A_deletion) / p (N,): how far a map is from a useless order of pixels.

    A are the areas under `perturbation_curves`, p is the probability of the label. About 0 means
    that it does not matter whether the map's largest pixels come first or last; near 1, that few of
    them carry the prediction. Raises as `perturbation_curves` does.
    """
    inserted, deleted = (
        perturbation_curves(network, images, labels, maps, mode, steps) for mode in MODES
    )
    return torch.from_numpy((area(inserted) - area(deleted)) / inserted[:, -1])


def judge(
    network: nn.Module, images: Tensor, labels: Tensor, maps: dict, steps=28, seed=0, shares=SHARES
) -> tuple[dict, dict]:
    """Measure maps, {method: (N, H, W)}, and two controls, "random" and "centre", on each image.

    Returns {measure: {method: (N,)}} for the measures "insertion" and "deletion", areas under
    `perturbation_curves`, and "ROAD" (see `road.road`, with `shares` of the pixels); and the mean
    curves, {mode: {method: (steps + 1,)}}. The controls are `random_maps` and `centre_maps`.
    Raises as `perturbation_curves` and `road.road` do.
    """
    maps = maps | {"random": random_maps(images, seed), "centre": centre_maps(images)}
    curves, values = {mode: {} for mode in MODES}, {measure: {} for measure in MEASURES}
    for method, heat in maps.items():
        for mode in MODES:
            found = perturbation_curves(network, images, labels, heat, mode, steps)
            curves[mode][method], values[mode][method] = found.mean(0), area(found)
        values["ROAD"][method] = road(network, images, labels, heat, shares, seed=seed)
    return values, curves


def concentration(maps: Tensor, share=0.1) -> Tensor:
    """Return how much of its sum (N,) each map (N, H, W) has in its largest `share` of pixels."""
    heat = maps.flatten(1)
    largest = heat.sort(descending=True).values[:, : int(share * heat.shape[1])]
    return largest.sum(1) / heat.sum(1)


def random_maps(images: Tensor, seed=0) -> Tensor:
    """Return maps (N, H, W) of uniform noise: a control that knows nothing.

    They lie where the images do.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    return torch.rand(len(images), *images.shape[2:], generator=generator).to(images.device)


def centre_maps(images: Tensor) -> Tensor:
    """Return maps (N, H, W) that fall from the centre: a control that knows photographers.

    They lie where the images do.
    """
    rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[2:])
    return (-(rows[:, None] ** 2 + columns**2)).expand(len(images), -1, -1)


def rank_correlation(first: Tensor, second: Tensor) -> np.ndarray:
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


def learned_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers with weights: convolutions, fully connected ones and batch norms."""
    kinds = nn.Conv2d, nn.Linear, nn.BatchNorm2d
    return [module for module in network.modules() if isinstance(module, kinds)]


def randomise(network: nn.Module, layers: int, seed=0) -> nn.Module:
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


def after_randomising(
    network: nn.Module, images: Tensor, labels: Tensor, methods: dict[str, Callable],
    maps: dict[str, Tensor], depths: list[int], seed=0,
) -> pd.DataFrame:  # fmt: skip
    """Return what is left of maps (N, H, W) once the last layers are initialised anew.

    A row per number of layers in `depths`, a column per method: the mean rank correlation of its
    absolute values with those of `maps`, the trained network's. A map of one value ranks nothing
    and counts as 0. Raises as `randomise` does.
    """
    table = pd.DataFrame(
        index=pd.Index(depths, name="layers anew"), columns=[*methods], dtype=float
    )
    for depth in depths:
        other = randomise(network, depth, seed)
        for method, explain in methods.items():
            found = explain(other, images, labels).cpu().abs()
            ranks = np.nan_to_num(rank_correlation(maps[method].abs(), found))
            table.loc[depth, method] = float(ranks.mean())
    return table


def agreement(predicted: dict[str, Tensor], maps: dict[str, Tensor]) -> dict[str, dict]:
    """Return how much maps of several networks agree with the first one's, {name: {column: value}}.

    predicted: {name: classes (N,)}, maps: {name: (N, H, W)}, resized to the first's. The columns:
    how many predictions are the same, the mean rank correlation of all maps, and of those.
    """
    (first, classes), *_ = predicted.items()
    rows = {}
    for name, found in maps.items():
        resized = transforms.resize(found, maps[first].shape[1:], antialias=True)
        ranks, same = rank_correlation(maps[first], resized), (predicted[name] == classes).numpy()
        rows[name] = {
            "share of the top tenth": concentration(found).mean().item(),
            "same prediction": same.mean(),
            "correlation": ranks.mean(),
            "correlation, same prediction": ranks[same].mean() if same.any() else np.nan,
        }
    return rows
