"""Pseudo-labelling in rounds."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dlapps.adaptation.settings import Settings
from dlapps.adaptation.trainer import predict, target_network, train
from dlapps.datasets import ImageSet


def pseudo_labels(network: nn.Module, images: Tensor, threshold: float) -> Tensor:
    """Return the label (N,) of each uint8 image (N, C, 28, 28) that is accepted, -1 for the others.

        ŷ_n = argmax_k p_nk  if  max_k p_nk >= threshold,  else -1,

    with p the network's probabilities in eval mode, see `predict` (Lee: "Pseudo-Label", ICML
    workshop 2013). Raises ValueError for a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected a probability in [0, 1]")
    p, ŷ = predict(network, images).softmax(1).max(1)
    return torch.where(p >= threshold, ŷ, -1)


def self_train(
    network: nn.Module,
    source: ImageSet,
    target_images: Tensor,
    settings: Settings,
    *,
    threshold: float | None,
    rounds: int,
    tests: tuple[ImageSet, ImageSet],
    checkpoint: Path | None = None,
    description: str = "pseudo-labels",
) -> list[tuple[Tensor, dict]]:
    """Train `network` in place in rounds on the source and on labels that it gave the target.

    Each round asks the network, with the target's averages unless joint, for its `pseudo_labels`,
    and trains for `settings.epochs` on them beside the source's labels. What is wrong among them
    it then learns: the share of right ones bounds what it can gain. A threshold of None accepts no
    label: as much training without pseudo-labels, for comparison.
    `checkpoint` is the path of the first round's, the others stand beside it. Other arguments as in
    `train`. Returns for each round the labels that it learned from (N,), -1 for none, and its
    history.
    """
    done = []
    for number in range(1, rounds + 1):
        labels = torch.full((len(target_images),), -1)
        if threshold is not None:
            adapted = target_network(network, settings, target_images)
            labels = pseudo_labels(adapted, target_images, threshold)
        history = train(
            network,
            source,
            target_images,
            settings,
            tests=tests,
            target_labels=labels,
            checkpoint=checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number}"),
            description=f"{description}, round {number}",
        )
        done.append((labels, history))
    return done
