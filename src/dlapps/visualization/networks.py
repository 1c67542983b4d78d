"""Practical 2, several networks side by side: those that are there, and rows for the others."""

import pandas as pd
import torch

from dlapps.models import features, pretrained


class Networks:
    """Networks by name, with frozen weights and batch norms folded; a name that is lacking is said.

    titles: {name: title} of all; loaded: {name: network} of those whose weights could be had, in
    the order of the names. None is ever replaced by another one.
    """

    def __init__(self, names: list[str]):
        with torch.device("meta"):  # shapes without numbers: a title needs no weights
            self.titles = {name: pretrained.build(name).title for name in names}
        self.loaded = {}
        for name in names:
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
