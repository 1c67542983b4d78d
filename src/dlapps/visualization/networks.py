"""Practical 2, several networks side by side: those that are there, and rows for the others."""

import copy

import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from dlapps.datasets.image_set import ImageSet
from dlapps.models import features, pretrained


class Networks:
    """Networks by name, with frozen weights and batch norms folded; a name that is lacking is said.

    titles: {name: title} of all; loaded: {name: network} of those whose weights could be had, in
    the order of the names. None is ever replaced by another one. tried: the names whose weights are
    asked for, by default all: the others stay unavailable, and nothing is downloaded for them.
    """

    def __init__(self, names: list[str], tried: list[str] | None = None):
        with torch.device("meta"):  # shapes without numbers: a title needs no weights
            self.titles = {name: pretrained.build(name).title for name in names}
        self.loaded = {}
        for name in names if tried is None else tried:
            try:
                self.loaded[name] = features.fold_batch_norms(pretrained.load(name))
            except pretrained.WeightsUnavailable as error:
                print(error)

    @property
    def first(self) -> pretrained.PretrainedNetwork:
        """The first network that is there: the one that figures show."""
        return next(iter(self.loaded.values()))

    def __or__(self, other: "Networks") -> "Networks":
        both = Networks([])
        both.titles, both.loaded = self.titles | other.titles, self.loaded | other.loaded
        return both

    def table(self, rows: dict[str, dict]) -> pd.DataFrame:
        """Return a row per network, by name: {name: {column: value}}, or that it is unavailable."""
        return pd.DataFrame.from_dict(
            {
                name: {"network": title}
                | rows.get(name, {})
                | {"result": "measured" if name in rows else "weights unavailable"}
                for name, title in self.titles.items()
            },
            orient="index",
        )

    def numbers(self, table: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> dict:
        """Return "numbers", "unit" and "model" for `Artifacts.record`, of each network.

        columns: {key: (column of the table, unit)}. A key ends in the network's name, but for that
        of `first`; a number that could not be had is None.
        """
        asked, model = {}, {}
        for name, title in self.titles.items():
            for key, (column, unit) in columns.items():
                key = key if name == self.first.name else f"{key} {name}"
                asked[key], model[key] = (name, column, unit), title
        return numbers(table, asked) | {"model": model}


def with_trained_head(
    network: pretrained.PretrainedNetwork, images: Tensor, labels: Tensor, categories
) -> pretrained.PretrainedNetwork:
    """Return a copy of a network with a linear head, trained on images for classes of their own.

    The head is a logistic regression on the standardised features of the network's default layer,
    maps averaged over space; what it subtracts and divides by is put into its weights. It takes the
    place of a network's fully connected layer; convolutions without one get it, too. images: uint8
    (N, 1 or 3, H, W), labels: integers (N,), the places of their classes in `categories`.
    """
    layer = network.default_layer
    x = features.extract(network, images, [layer])[layer]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(x.numpy(), labels.numpy())
    scaler, regression = (step for _, step in model.steps)
    weights = torch.from_numpy(regression.coef_ / scaler.scale_)
    head = nn.Linear(*weights.shape[::-1])
    with torch.no_grad():
        head.weight.copy_(weights)
        head.bias.copy_(
            torch.from_numpy(regression.intercept_) - weights @ torch.from_numpy(scaler.mean_)
        )
    if network.missing:
        return pretrained.with_head(network, head, categories)
    headed = copy.deepcopy(network)
    parent, _, name = network.layer_modules[network.layers[-1]].rpartition(".")
    if not isinstance(getattr(headed.body.get_submodule(parent), name), nn.Linear):
        raise ValueError(
            f"network is {network.title}, expected one that ends in a fully connected layer"
        )
    setattr(headed.body.get_submodule(parent), name, head.requires_grad_(False).to(network.mean))
    headed.name, headed.title = f"{network.name}_with_head", f"{network.title} with a trained head"
    headed.categories = tuple(categories)
    return headed


def first_of_each(data: ImageSet, count: int) -> ImageSet:
    """Return the first `count` images of each class, class after class."""
    places = [(data.labels == label).nonzero()[:count, 0] for label in range(len(data.classes))]
    return data.subset(torch.cat(places))


def numbers(table: pd.DataFrame, cells: dict[str, tuple]) -> dict:
    """Return "numbers" and "unit" for `Artifacts.record`: {key: (row, column, unit)} of a table."""
    found = {key: table.loc[row].get(column) for key, (row, column, _) in cells.items()}
    return {
        "numbers": {
            key: None if pd.api.types.is_scalar(value) and pd.isna(value) else value
            for key, value in found.items()
        },
        "unit": {key: unit for key, (_, _, unit) in cells.items()},
    }
