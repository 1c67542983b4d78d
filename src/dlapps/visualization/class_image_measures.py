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


def recognition(network: nn.Module, images: Tensor, classes: Sequence[int]) -> tuple[float, float]:
    """Return a network's top-1 accuracy on class images, and its mean probability of their classes.

    Images (N, 3, H, W) in [0, 1] of `classes` (N,) are resized to the network's input. A network
    that took no part in the optimisation tells whether an image shows its class or only pleases
    the network that it was made for.
    """
    check_images(images)
    parts = resize(network, images).split(8)
    with torch.inference_mode():
        probabilities = torch.cat([network(part).softmax(1) for part in parts]).cpu()
    classes = check_labels(classes, *probabilities.shape, "classes").cpu()
    own = probabilities.gather(1, classes[:, None])
    return (probabilities.argmax(1) == classes).double().mean().item(), own.mean().item()


def roughness(images: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels of images (N, 3, H, W)."""
    return sum(images.diff(dim=axis).abs().mean().item() for axis in (2, 3)) / 2


def stretched(images: Tensor, least=0.125) -> Tensor:
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
    galleries: dict[str, Tensor], classes: Tensor, judges: dict[str, nn.Module]
) -> pd.DataFrame:
    """Return a row per gallery, {title: images (N, 3, H, W)}: what judges, {title: network}, see.

    For each judge the top-1 accuracy and the mean probability of the images' classes (N,).
    """
    rows = {}
    for title, images in galleries.items():
        rows[title] = {}
        for name, judge in judges.items():
            top1, probability = recognition(judge, images, classes)
            rows[title] |= {f"top-1, {name}": top1, f"probability, {name}": probability}
    return pd.DataFrame.from_dict(rows, orient="index")
