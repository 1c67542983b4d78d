"""Pseudo-labelling in rounds."""

import torch

from dlapps.adaptation.trainer import predict, target_network, train


def pseudo_labels(network, images, threshold):
    """Return the label (N,) of each uint8 image that the network is sure of, -1 for the others.

    Sure means a largest probability of at least `threshold` (Lee: "Pseudo-Label", ICML workshop
    2013). Raises ValueError for a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected a probability in [0, 1]")
    probabilities, labels = predict(network, images).softmax(1).max(1)
    return torch.where(probabilities >= threshold, labels, -1)


def self_train(
    network,
    source,
    target_images,
    settings,
    *,
    threshold,
    rounds,
    tests,
    checkpoint=None,
    description="pseudo-labels",
):
    """Train `network` in place in rounds on the source and on labels that it gave the target.

    A round asks the network, as it reads the target, for the labels that it is sure of
    (`pseudo_labels`), and trains for `settings.epochs` on them beside the source's labels. What
    it is wrong about it then learns: the share of right ones among them bounds what it can gain.
    `checkpoint` is the path of the first round's, the others stand beside it. Other arguments as in
    `train`. Returns for each round the labels that it learned from (N,), -1 for none, and its
    history.
    """
    done = []
    for number in range(1, rounds + 1):
        labels = pseudo_labels(
            target_network(network, settings, target_images), target_images, threshold
        )
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
