"""Choosing among trainings without labels of the target, and how well that goes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
from scipy.stats import spearmanr
from torch import Tensor

from dlapps.adaptation.batch_norm import adapt_batch_norm
from dlapps.adaptation.experiments import Experiment, Runs
from dlapps.adaptation.trainer import accuracy, predict, target_network, train
from dlapps.datasets import ImageSet
from dlapps.models.dann import DANN
from dlapps.runtime import run_each, seed_everything
from dlapps.texts import mean_and_deviation


def mean_entropy(scores: Tensor) -> float:
    """Return the mean entropy of the class probabilities of scores (N, K), 0 to log K nats.

        1/N sum over n of H(p_n),    H(p) = -sum over k of p_k log p_k:

    small where a network is confident, rightly or not (Morerio, Cavazza, Murino: "Minimal-entropy
    correlation alignment", ICLR 2018, choose a weight by it).
    """
    return _entropy(scores.double().log_softmax(1)).mean().item()


def information(scores: Tensor) -> float:
    """Return the mutual information of image and predicted class, 0 to log K nats (InfoMax).

        I = H(1/N sum over n of p_n) - 1/N sum over n of H(p_n),

    for the probabilities p_n of scores (N, K): large where each answer is confident and all classes
    are used (Bridle, Heading, MacKay: "Unsupervised classifiers, mutual information and phantom
    targets", NIPS 1991).
    """
    log_p = scores.double().log_softmax(1)
    return (_entropy(log_p.exp().mean(0).log()[None]) - _entropy(log_p).mean()).item()


def _entropy(log_p):
    return -(log_p.exp() * log_p.clamp(min=-1e3)).sum(1)


def reverse_validation(
    experiment: Experiment, methods: Mapping[str, Runs], count: int, **changes
) -> dict[str, list[float]]:
    """Return {method: a number per seed}: how well its answers on the target teach the source.

    A new network, which differs from the experiment's settings by `changes`, learns `count` target
    images with the labels that the method's network gives them, and is tested on the labelled
    source, with the source's averages. No label of the target is used (Ganin et al., JMLR 2016,
    section 5.1.2, after Zhong et al., ECML 2010, but without a second adaptation on the way back).
    """
    jobs = [(name, n) for name in methods for n in range(len(experiment.seeds))]
    images = experiment.target.images[:count]
    one = partial(_reverse_accuracy, experiment, methods, images, changes)
    done = iter(run_each(one, jobs, "reverse validation"))
    return {name: [next(done) for _ in experiment.seeds] for name in methods}


def _reverse_accuracy(experiment, methods, images, changes, job):
    name, number = job
    seed = experiment.seeds[number]
    adapted = target_network(
        methods[name].networks[number], experiment.settings, experiment.target.images
    )
    labels = predict(adapted, images).argmax(1)
    seed_everything(seed)
    network = DANN()
    source_test = experiment.tests[0]
    few = source_test.subset(range(2))  # it is tested once, after the training
    train(
        network,
        ImageSet(images, labels, experiment.target.classes, "target with predicted labels"),
        experiment.source.images,
        replace(experiment.settings, seed=seed, reversal=None, **changes),
        tests=(few, few),
        checkpoint=experiment.checkpoint(f"reverse of {name} seed {seed}"),
        description=f"reverse of {name}, seed {seed}",
    )
    return accuracy(adapt_batch_norm(network, experiment.source.images), source_test)


def label_free_scores(
    experiment: Experiment, methods: Mapping[str, Runs], count: int, **changes
) -> dict[str, dict[str, list[float]]]:
    """Return {score: {method: a number per seed}} of three scores, of which larger ones are better.

    They are the negative `mean_entropy` and the `information` of the answers to `count` of the
    target's training images, and `reverse_validation`, which passes `changes` on.
    """
    images = experiment.target.images
    scores = {
        name: [
            predict(target_network(network, experiment.settings, images), images[:count])
            for network in runs.networks
        ]
        for name, runs in methods.items()
    }
    return {
        "minus the mean entropy": {k: [-mean_entropy(s) for s in v] for k, v in scores.items()},
        "InfoMax": {k: [information(s) for s in v] for k, v in scores.items()},
        "reverse validation": reverse_validation(experiment, methods, count, **changes),
    }


def choices(
    scores: Mapping[str, Mapping[str, Sequence[float]]], accuracies: Mapping[str, Sequence[float]]
) -> pd.DataFrame:
    """Say how well each score would have chosen: a row per score, numbers over the seeds.

    scores: {score: {method: a number per seed}}, larger is better; accuracies: {method: the target
    accuracies, one per seed}. Per seed the method with the largest score is `chosen`; `lost` is
    how many points of accuracy the best one has more, and `rank correlation` Spearman's, between
    score and accuracy over the methods.
    """
    true = pd.DataFrame(accuracies)  # a row per seed, a column per method
    rows = []
    for score, numbers in scores.items():
        found = pd.DataFrame(numbers)[true.columns]
        chosen = found.idxmax(axis=1)
        lost = [100 * (row.max() - row[chosen[i]]) for i, row in true.iterrows()]
        ranks = [spearmanr(found.loc[i], true.loc[i]).statistic for i in true.index]
        rows.append(
            {"score": score, "chosen": list(chosen), "lost": lost, "rank correlation": ranks}
        )
    return pd.DataFrame(rows)


def choice_table(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `choices` as texts, over the seeds."""
    return pd.DataFrame(
        {
            "score": chosen["score"],
            "chosen per seed": chosen["chosen"].map(", ".join),
            "points lost": chosen["lost"].map(partial(mean_and_deviation, digits=2)),
            "rank correlation": chosen["rank correlation"].map(
                partial(mean_and_deviation, digits=2)
            ),
        }
    )
