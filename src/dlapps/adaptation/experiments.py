"""Methods compared on two domains: a network per method and seed, and what the last epoch gave."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest
from torch import Tensor, nn

from dlapps.adaptation.batch_norm import adapt_batch_norm
from dlapps.adaptation.self_training import self_train
from dlapps.adaptation.settings import Settings
from dlapps.adaptation.trainer import accuracy, predict, train
from dlapps.datasets import ImageSet
from dlapps.models.dann import DANN
from dlapps.runtime import run_each, seed_everything
from dlapps.texts import mean_and_deviation


@dataclass(frozen=True)
class Runs:
    """One method's networks and their histories (see `train`), one of each per seed.

    Without any it stands for a method that was not trained, because that needs a GPU.
    """

    networks: Sequence[nn.Module] = ()
    histories: Sequence[Mapping[str, list[float]]] = ()

    def last(self, quantity: str = "target_accuracy") -> list[float]:
        """Return a quantity of the history after the last epoch, for each seed."""
        return [history[quantity][-1] for history in self.histories]

    def mean(self, quantity: str = "target_accuracy") -> float:
        """Return the mean over the seeds of what `last` gives."""
        return float(pd.Series(self.last(quantity)).mean())


@dataclass(frozen=True)
class Experiment:
    """Two domains, and what all methods that are compared on them have in common.

    tests: of source and target. settings: changed by each method, see `train`; the seed is each of
    `seeds`. folder: of the checkpoints. The labels of `target` train a method only if it has the
    target as its source; otherwise they are compared with pseudo-labels after the training.
    """

    source: ImageSet
    target: ImageSet
    tests: tuple[ImageSet, ImageSet]
    settings: Settings
    seeds: Sequence[int]
    folder: Path

    def train(self, methods: Mapping[str, Mapping], **common) -> dict[str, Runs]:
        """Train a network per method and seed; return {method: its runs}.

        methods: {name: what differs from `settings`}, to which `common` is added. Besides settings
        there may be `network` (keyword arguments of `DANN`), `start` (the `Runs` from whose
        networks of the same seed it starts) and `source` (an ImageSet to learn from instead).
        """
        jobs = [
            (name, number, common | changes)
            for name, changes in methods.items()
            for number in range(len(self.seeds))
        ]
        done = iter(run_each(self._train, jobs, "networks trained"))
        return {
            name: Runs(*zip(*(next(done) for _ in self.seeds), strict=True)) for name in methods
        }

    def _train(self, job):
        name, number, changes = job
        changes = dict(changes)
        source = changes.pop("source", self.source)
        network = self._network(number, changes.pop("start", None), changes.pop("network", {}))
        history = train(
            network,
            source,
            self.target.images,
            replace(self.settings, seed=self.seeds[number], **changes),
            tests=self.tests,
            checkpoint=self.checkpoint(f"{name} seed {self.seeds[number]}"),
            description=f"{name}, seed {self.seeds[number]}",
        )
        return network, history

    def _network(self, number, start, options):
        seed_everything(self.seeds[number])
        network = DANN(**options)
        if start is not None:
            network.load_state_dict(start.networks[number].state_dict())
        return network

    def checkpoint(self, name: str) -> Path:
        """Return where the checkpoint of a training lies."""
        return self.folder / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.pt"

    def target_accuracies(
        self, methods: Mapping[str, Runs], averages: Mapping[str, Tensor]
    ) -> dict[str, dict[str, list[float]]]:
        """Return {averages: {method: the target's test accuracy for each seed}}.

        averages: {name: the uint8 images over which batch norm's averages are taken}.
        """
        jobs = [
            (images, name, number)
            for images in averages
            for name, runs in methods.items()
            for number in range(len(runs.networks))
        ]
        test = partial(self._accuracy_with, methods, averages)
        done = iter(run_each(test, jobs, "networks tested"))
        return {
            images: {name: [next(done) for _ in runs.networks] for name, runs in methods.items()}
            for images in averages
        }

    def _accuracy_with(self, methods, averages, job):
        images, name, number = job
        network = adapt_batch_norm(methods[name].networks[number], averages[images])
        return accuracy(network, self.tests[1])

    def with_target_statistics(self, runs: Runs) -> Runs:
        """Return the same networks as tested with batch norm's averages over the target's images.

        No label is needed and no weight changes. On the source they are as they were.
        """
        found = self.target_accuracies({"": runs}, {"": self.target.images})
        on_target = found[""][""]
        pairs = zip(runs.last("source_accuracy"), on_target, strict=True)
        histories = [{"source_accuracy": [s], "target_accuracy": [t]} for s, t in pairs]
        return Runs(runs.networks, histories)

    def self_train(
        self, starts: Mapping[str, Mapping], *, source: ImageSet, rounds: int, **common
    ) -> pd.DataFrame:
        """Train in rounds on pseudo-labels (see `self_train`), from each start and per seed.

        starts: {name: {"start": Runs, "thresholds": a sequence} and what differs from `settings`},
        to which `common` is added; a threshold of None is as much training without pseudo-labels.
        Returns a row per start, threshold, seed and round, with the share of the target that was
        `accepted`, the share of these labels that is `right` (NaN if there are none), and the
        `target accuracy` after the round.
        """
        jobs = [
            (name, threshold, number, common | changes)
            for name, changes in starts.items()
            for threshold in changes["thresholds"]
            for number in range(len(self.seeds))
        ]
        one = partial(self._self_train, source, rounds)
        return pd.DataFrame([row for rows in run_each(one, jobs, "self-training") for row in rows])

    def _self_train(self, source, rounds, job):
        start, threshold, number, changes = job
        changes = {name: value for name, value in changes.items() if name != "thresholds"}
        network = self._network(number, changes.pop("start"), {})
        seed, labels = self.seeds[number], "no labels" if threshold is None else f"{threshold:g}"
        done = self_train(
            network,
            source,
            self.target.images,
            replace(self.settings, seed=seed, **changes),
            threshold=threshold,
            rounds=rounds,
            tests=self.tests,
            checkpoint=self.checkpoint(f"pseudo-labels {start} {labels} seed {seed}"),
            description=f"pseudo-labels from {start}, {labels}, seed {seed}",
        )
        which = {"start": start, "threshold": labels, "seed": seed}
        return [
            which | {"round": number} | self._score(*one)
            for number, one in enumerate(done, start=1)
        ]

    def _score(self, labels, history):
        accepted = labels >= 0
        right = (labels == self.target.labels)[accepted]
        return {
            "accepted": accepted.double().mean().item(),
            "right": right.double().mean().item(),
            "target accuracy": history["target_accuracy"][-1],
        }


def table(methods: Mapping[str, Runs], reference: str | None = None) -> pd.DataFrame:
    """Return a row per method with the last epoch's accuracies, over the seeds.

    A method without runs needs a GPU, and its row says so.
    reference: the method to which `points` compares: the difference of the mean target accuracies
    in percentage points.
    """
    columns = {
        "target accuracy": "target_accuracy",
        "source accuracy": "source_accuracy",
        "domain classifier right": "domain_accuracy",
    }
    rows = []
    for name, runs in methods.items():
        row = {"method": name} | {
            column: mean_and_deviation(runs.last(quantity)) if runs.histories else "needs a GPU"
            for column, quantity in columns.items()
            if not runs.histories or quantity in runs.histories[0]
        }
        if reference is not None and runs.histories:
            row["points"] = f"{100 * (runs.mean() - methods[reference].mean()):+.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def last_epoch(methods: Mapping[str, Runs], quantity: str) -> dict[str, list[float]]:
    """Return {method: a quantity after the last epoch, per seed}."""
    return {name: runs.last(quantity) for name, runs in methods.items()}


def over_seeds(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict]:
    """Return `series` and `errors` for `plotting.dots` of {group: {method: a number per seed}}.

    They are means and sample standard deviations, 0 for one seed.
    """
    frames = {group: pd.DataFrame(numbers) for group, numbers in groups.items()}
    return {
        "series": {group: frame.mean().tolist() for group, frame in frames.items()},
        "errors": {group: frame.std().fillna(0).tolist() for group, frame in frames.items()},
    }


def mean_table(groups: Mapping[str, Mapping[str, Sequence[float]]], index: str) -> pd.DataFrame:
    """Return a row per method, which the column `index` names, and a column per group, as texts."""
    texts = {
        group: {name: mean_and_deviation(values) for name, values in row.items()}
        for group, row in groups.items()
    }
    return pd.DataFrame(texts).rename_axis(index).reset_index()


def learning_curves(methods: Mapping[str, Runs], quantity: str) -> dict[str, tuple]:
    """Return {method: (epochs, a row of numbers per seed)}, as `plotting.curve_panels` wants it."""
    curves = {name: [history[quantity] for history in m.histories] for name, m in methods.items()}
    return {name: (range(1, len(rows[0]) + 1), rows) for name, rows in curves.items()}


def round_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `Experiment.self_train` over the seeds, as texts."""
    groups = scores.drop(columns="seed").groupby(["start", "threshold", "round"], sort=False)
    return groups.agg(mean_and_deviation).reset_index()


def last_round(scores: pd.DataFrame) -> dict[tuple[str, str, str], list[float]]:
    """Return {(start, threshold, column): a number per seed} of the last round, what is NaN not."""
    last = scores[scores["round"] == scores["round"].max()]
    groups = last.groupby(["start", "threshold"], sort=False)
    columns = "accepted", "right", "target accuracy"
    return {
        (*key, column): rows[column].tolist()
        for key, rows in groups
        for column in columns
        if rows[column].notna().all()
    }


def round_curves(scores: pd.DataFrame, quantity: str) -> dict[str, tuple]:
    """Return {start and threshold: (rounds, a row of numbers per seed)} of a column."""
    curves = {}
    for (start, threshold), part in scores.groupby(["start", "threshold"], sort=False):
        rows = part.pivot(index="seed", columns="round", values=quantity)
        name = threshold if threshold == "no labels" else f"τ = {threshold}"
        curves[f"{start}, {name}"] = list(rows.columns), rows.to_numpy()
    return curves


def disagreements(
    pairs: Mapping[str, tuple[Runs, Runs]], test: ImageSet, seeds: Sequence[int]
) -> pd.DataFrame:
    """Compare two methods image by image: a row per pair and seed.

    It says how many images `only the first` and `only the second` classifies correctly, both with
    the averages that they have. `p` is the probability of a split as uneven as that, or more, if
    each of these images were as likely to fall to either side (exact test of McNemar, 1947).
    """
    rows = []
    for name, (one, other) in pairs.items():
        for seed, *networks in zip(seeds, one.networks, other.networks, strict=True):
            a, b = (predict(n, test.images).argmax(1) == test.labels for n in networks)
            only = [(a & ~b).sum().item(), (b & ~a).sum().item()]
            p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
            rows.append(
                {"networks": name, "seed": seed, "only the first": only[0],
                 "only the second": only[1], "p": f"{p:.2g}"}
            )  # fmt: skip
    return pd.DataFrame(rows)
