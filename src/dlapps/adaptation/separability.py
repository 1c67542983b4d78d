"""How well the features of two domains can be told apart."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import cross_val_score

from dlapps.adaptation.batch_norm import adapt_batch_norm
from dlapps.adaptation.experiments import Experiment, Runs
from dlapps.models.dann import DANN


def features(network: DANN, images: torch.Tensor) -> np.ndarray:
    """Return the features (N, width) of uint8 images (N, C, 28, 28), in eval mode."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        found = network.features(images.to(device) / 255).cpu().numpy()
    network.train(was_training)
    return found


def features_of_tests(
    experiment: Experiment, network: DANN, count: int, own_averages: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (count, width) of `count` test images of each domain, others in each.

    own_averages: whether the target is normalised by averages over the target's training images,
    otherwise by those that the network has.
    """
    reader = adapt_batch_norm(network, experiment.target.images) if own_averages else network
    parts = zip((network, reader), experiment.tests, (0, count), strict=True)
    return tuple(features(n, test.images[begin : begin + count]) for n, test, begin in parts)


def separability(f_s: np.ndarray, f_t: np.ndarray, folds: int = 5) -> float:
    """Return how often a logistic regression tells two sets of features apart, 0.5 at chance.

    It learns from the features (N, D) themselves, which no batch norm moves, and is tested on rows
    that it did not learn from: the mean accuracy over `folds` (Ben-David et al.: "Analysis of
    representations for domain adaptation", NeurIPS 2006, measure domains by such a classifier).
    """
    domains = np.repeat([0, 1], [len(f_s), len(f_t)])
    classifier = LogisticRegression(max_iter=2000)
    return float(cross_val_score(classifier, np.concatenate([f_s, f_t]), domains, cv=folds).mean())


def told_apart(
    experiment: Experiment, runs: Runs, count: int, own_averages: bool = True
) -> list[float]:
    """Return the `separability` of both domains' test features for the network of each seed."""
    return [
        separability(*features_of_tests(experiment, network, count, own_averages))
        for network in runs.networks
    ]


def chance(experiment: Experiment, runs: Runs, count: int) -> list[float]:
    """Return the `separability` of `count` test images of the source and as many others of it."""
    images = experiment.tests[0].images[: 2 * count]
    return [separability(*np.split(features(network, images), 2)) for network in runs.networks]


def plane(f_s: np.ndarray, f_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets of features (N, D) as points (N, 2) of one plane, placed by t-SNE.

    Neighbours stay neighbours; distances between groups mean little (van der Maaten, Hinton:
    "Visualizing Data using t-SNE", JMLR 2008).
    """
    points = TSNE(random_state=0).fit_transform(np.concatenate([f_s, f_t]))
    return points[: len(f_s)], points[len(f_s) :]
