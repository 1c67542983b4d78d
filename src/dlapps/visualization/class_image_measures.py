"""Practical 2, what class images show: who recognises them, how rough they are, what changed."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from dlapps.checks import check_images
from dlapps.models.gradients import check_labels
from dlapps.models.pretrained import resize
from dlapps.visualization.attacks import scores_of
from dlapps.visualization.class_images import maximise
from dlapps.visualization.intervals import mean_interval


def recognition(network: nn.Module, images: Tensor, classes: Sequence[int]) -> tuple[float, float]:
    """Return a network's top-1 accuracy on class images, and its mean probability of their classes.

    Images (N, 3, H, W) in [0, 1] of `classes` (N,) are resized to the network's input. A network
    that took no part in the optimisation tells whether an image shows its class or only pleases
    the network that it was made for.
    """
    hits, own = _recognised(network, images, classes)
    return hits.double().mean().item(), own.mean().item()


def _recognised(network, images, classes):
    """Return whether each image (N, ...) is recognised, and the probability of its class."""
    check_images(images)
    parts = resize(network, images).split(8)
    with torch.inference_mode():
        probabilities = torch.cat([network(part).softmax(1) for part in parts]).cpu()
    classes = check_labels(classes, *probabilities.shape, "classes").cpu()
    own = probabilities.gather(1, classes[:, None])[:, 0]
    return probabilities.argmax(1) == classes, own


def roughness(images: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels of images (N, 3, H, W)."""
    return sum(images.diff(dim=axis).abs().mean().item() for axis in (2, 3)) / 2


def stretched(images: Tensor, least=0.2) -> Tensor:
    """Return images (..., 3, H, W) in [0, 1] with more contrast, to be looked at.

    An image whose values have a standard deviation below `least` is stretched to it, about the mean
    of each channel: class images are so near to grey that they are hardly seen otherwise.
    """
    mean, std = images.mean((-2, -1), keepdim=True), images.std((-3, -2, -1), keepdim=True)
    return (mean + (images - mean) * (least / std.clamp_min(1e-3)).clamp_min(1)).clamp(0, 1)


def frames(snapshots: Tensor, size=112) -> list[Tensor]:
    """Return snapshots (S, N, 3, H, W), resized to `size` pixels, as the frames of a film."""
    return [transforms.resize(snapshot, size, antialias=True) for snapshot in snapshots]


def vary(
    network: nn.Module, classes: Sequence[int], variants: dict[str, dict], **usual
) -> dict[str, Tensor]:
    """Return the images of `maximise` for each variant, {title: settings that differ from usual}.

    Variants of the same settings are computed once.
    """
    known, found = {}, {}
    for title, change in variants.items():
        settings = usual | change
        key = tuple(sorted((name, value) for name, value in settings.items() if value is not None))
        if key not in known:
            known[key] = maximise(network, classes, **settings).images
        found[title] = known[key]
    return found


def compare(
    network: nn.Module, judge: nn.Module, classes: Tensor, images: dict[str, Tensor]
) -> pd.DataFrame:
    """Return the mean score and probability of the classes (N,), a judge's verdict and roughness.

    A row for each of the images, {title: (N, 3, H, W)}. "second network" is the probability that
    the judge gives, which took no part.
    """
    rows = {}
    for title, painted in images.items():
        own = scores_of(network, painted).gather(1, classes[:, None].to(painted.device))
        rows[title] = {
            "score": own.mean().item(),
            "probability": recognition(network, painted, classes)[1],
            "second network": recognition(judge, painted, classes)[1],
            "roughness": roughness(painted),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")


def changes(network: nn.Module, start: Tensor, images: Tensor, classes: Tensor) -> pd.DataFrame:
    """Return what an ascent from images `start` changed, a row per image (both (N, 3, H, W))."""
    before, after = (scores_of(network, x).softmax(1).cpu() for x in (start, images))
    own = classes.cpu()[:, None]
    pairs = torch.stack((images, start), 1).flatten(2)
    return pd.DataFrame(
        {
            "probability before": before.gather(1, own)[:, 0].tolist(),
            "probability after": after.gather(1, own)[:, 0].tolist(),
            "reached": (after.argmax(1) == own[:, 0]).tolist(),
            "L2 of the change": (images - start).flatten(1).norm(dim=1).tolist(),
            "correlation with the start": [pair.corrcoef()[0, 1].item() for pair in pairs],
        }
    )


def verdicts(
    galleries: dict[tuple, Tensor], classes: Tensor, judges: dict[str, nn.Module], seed=0
) -> pd.DataFrame:
    """Return what judges, {title: network}, see in class images, a row per gallery and judge.

    galleries: {(recipe, title of the network they were made for): images (S, N, 3, H, W)} of S
    seeds and N classes. The columns are the keys' parts, the judge, how it is related to the maker
    (see `kinship`), its top-1 accuracy for each seed, as a list, their mean, the bootstrap interval
    (95 %) of that mean over the classes, and the mean probability of the classes (N,).
    """
    rows = []
    for (recipe, maker), images in galleries.items():
        for title, judge in judges.items():
            own = [_recognised(judge, of_seed, classes) for of_seed in images]
            hits = torch.stack([hit for hit, _ in own]).double()
            mean, *interval = mean_interval(hits.mean(0).numpy(), seed=seed)
            rows.append(
                {
                    "recipe": recipe,
                    "made for": maker,
                    "judge": title,
                    "kinship": kinship(maker, title),
                    "by seed": hits.mean(1).tolist(),
                    "top-1": mean,
                    "top-1, 95 %": interval,
                    "probability": torch.stack([p for _, p in own]).mean().item(),
                }
            )
    return pd.DataFrame(rows)


def kinship(maker: str, judge: str) -> str:
    """Return how a judge is related to the networks that images were made for, by their titles.

    "maker" is one of them, such as SqueezeNet 1.1 in "SqueezeNet 1.1 + EfficientNet-Lite0";
    "sibling" has their name but for the number; any other is of "another family".
    """
    makers = maker.split(" + ")
    if judge in makers:
        return "maker"
    families = {title.rstrip("0123456789. ") for title in makers}
    return "sibling" if judge.rstrip("0123456789. ") in families else "another family"
