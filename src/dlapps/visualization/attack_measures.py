"""Practical 2, what attacks achieve: how often, by how large a change, at what cost."""

import time

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from dlapps.checks import check_images
from dlapps.models.gradients import check_labels
from dlapps.visualization.attacks import AttackResult, is_adversarial, scores_of
from dlapps.visualization.intervals import median_interval

ANY_OTHER = "any other"  # the goal of an attack without a target


def measure(
    network: nn.Module, originals: Tensor, changed: Tensor, labels: Tensor, *, targeted=False
) -> dict[str, float | None]:
    """Return what the changed images (N, 3, H, W) achieve, a dictionary of numbers.

    "success" and "success_8bit": the shares that reach the goal (as in the attacks), and that
    still do when rounded to the 256 levels of a saved image; "l2" and "linf": the medians of the
    changes' Euclidean lengths and of their largest values, on the [0, 1] scale, over the images
    that succeed, None if none does. Raises ValueError for images of different shapes.
    """
    check_images(originals, name="originals")
    check_images(changed, name="changed")
    if originals.shape != changed.shape:
        raise ValueError(
            f"changed has shape {tuple(changed.shape)}, expected {tuple(originals.shape)}"
        )
    scores = scores_of(network, changed)
    labels = check_labels(labels, *scores.shape).to(scores.device)
    success = is_adversarial(scores.argmax(1), labels, targeted)
    rounded = scores_of(network, (changed * 255).round() / 255).argmax(1)
    saved = success & is_adversarial(rounded, labels, targeted)
    difference = (changed - originals).flatten(1)[success]
    lengths, largest = difference.norm(dim=1), difference.abs().amax(1)
    return {
        "success": success.double().mean().item(),
        "success_8bit": saved.double().mean().item(),
        "l2": lengths.median().item() if len(lengths) else None,
        "linf": largest.median().item() if len(largest) else None,
    }


def outcome(
    network: nn.Module, images: Tensor, found: AttackResult, labels: Tensor, *, targeted=False
) -> dict[str, float | None]:
    """Return what an attack on images achieved, in the words of a table, and its median cost."""
    reached = measure(network, images, found.images, labels, targeted=targeted)
    return {
        "success": reached["success"],
        "saved": reached["success_8bit"],
        "median L2": reached["l2"],
        "median L∞": reached["linf"],
        "gradients": found.gradients.double().median().item(),
        "queries": found.queries.double().median().item(),
    }


def compare(
    network: nn.Module, images: Tensor, goals: dict[str, Tensor], attacks: dict[str, tuple]
) -> tuple[pd.DataFrame, dict[tuple[str, str], AttackResult]]:
    """Run attacks towards goals and return a table, by attack and goal, and their results.

    goals: {goal: labels (N,)}; "any other" asks for any class but the label, the others are
    targets. attacks: {title: (attack, *goals that it is run for)}. The table has what `outcome`
    says, and the seconds per image.
    """
    rows, results = {}, {}
    for title, (attack, *wished) in attacks.items():
        for goal in wished:
            targeted, begin = goal != ANY_OTHER, time.perf_counter()
            found = attack(network, images, goals[goal], targeted=targeted)
            seconds = (time.perf_counter() - begin) / len(images)
            results[title, goal] = found
            rows[title, goal] = outcome(network, images, found, goals[goal], targeted=targeted)
            rows[title, goal]["seconds per image"] = seconds
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["attack", "goal"]), results


def lengths_of(images: Tensor, found: AttackResult) -> Tensor:
    """Return the Euclidean length (N,) of each image's change; infinite where the attack failed."""
    lengths = (found.images - images).flatten(1).norm(dim=1)
    return torch.where(found.success, lengths, torch.inf).cpu()


def length_by_cost(images: Tensor, results: list[AttackResult]) -> tuple[list[float], list[float]]:
    """Return the median number of gradients and the median length of the changes of each result.

    An image that was not fooled counts as infinitely far; where the median is, it is NaN.
    """
    costs = [found.gradients.double().median().item() for found in results]
    lengths = [lengths_of(images, found).median().item() for found in results]
    return costs, [length if np.isfinite(length) else np.nan for length in lengths]


def paired_lengths(
    images: Tensor, results: dict[tuple[str, str], AttackResult], ours: str, seed=0
) -> pd.DataFrame:
    """Return a table of how the lengths of one attack compare with those of others, by goal.

    results: {(attack, goal): its result}, as `compare` returns them; ours: an attack of them, for
    the goals that it has. "shorter" and "longer": on how many images ours is, a failure being
    infinitely long; "p": that of the sign test, two-sided, ties left out; "ratio": the median over
    the images where both succeed of their length divided by ours, and its bootstrap interval (95
    %), None where there is no such image.
    """
    rows = {}
    for (title, goal), found in results.items():
        if title == ours or (ours, goal) not in results:
            continue
        mine, theirs = lengths_of(images, results[ours, goal]), lengths_of(images, found)
        shorter, longer = int((mine < theirs).sum()), int((mine > theirs).sum())
        p = binomtest(shorter, shorter + longer).pvalue if shorter + longer else 1.0
        both = mine.isfinite() & theirs.isfinite()
        ratio = median_interval((theirs / mine)[both], seed) if both.any() else None
        rows[goal, title] = {"shorter": shorter, "longer": longer, "p": float(p), "ratio": ratio}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["goal", "beside"])


def first_query_share(found: AttackResult) -> float:
    """Return the share of the images for which an attack's very first query reached the goal."""
    return (found.success & (found.queries == 1)).double().mean().item()
