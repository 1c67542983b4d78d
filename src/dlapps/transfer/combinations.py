"""Features of several networks, image sizes, layers and bands, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dlapps import runtime
from dlapps.models import features
from dlapps.transfer.studies import folds, split_accuracies
from dlapps.transfer.svm import Evaluation, concatenate, evaluate, fit_linear_svm

Pair = tuple[Tensor, Tensor]  # features of the training and of the test images


@dataclass(frozen=True)
class View:
    """What one network says of the images at one size: {layer: features (N, bands * D)}."""

    layer: str  # the network's default layer
    train: dict[str, Tensor]
    test: dict[str, Tensor]
    bands: int

    def without_bands(self) -> Pair:
        """Return the features of the default layer, averaged over the bands."""
        rows = self.train[self.layer], self.test[self.layer]
        return tuple(x.unflatten(1, (self.bands, -1)).mean(1) for x in rows)

    def parts(self) -> list[Pair]:
        """Return the features of each layer."""
        return [(self.train[layer], self.test[layer]) for layer in self.train]


@dataclass(frozen=True)
class Combination:
    """Features side by side, normalised: what they are, their SVMs' C and `Evaluation`."""

    name: str
    normalisation: str
    train: np.ndarray
    test: np.ndarray
    C: float
    evaluation: Evaluation


def view(network: nn.Module, size: int, train: Tensor, test: Tensor, bands: int) -> View:
    """Return the `View` of uint8 images (N, C, H, W) and their mirror images at `size` pixels.

    With all layers that `network` names but the first convolution and the class scores.
    """
    options = {"sizes": [size], "mirrored": True, "bands": bands}
    layers = network.layers[1:-1]
    x, y = (features.extract(network, images, layers, **options) for images in (train, test))
    return View(network.default_layer, x, y, bands)


def combinations(views: dict[str, View]) -> dict[str, list[Pair]]:
    """Return {what it is: its parts}: each view alone, then all of them, with more and more."""
    found = {}
    for name, each in views.items():
        found[f"{name}: {each.layer}, without bands"] = [each.without_bands()]
        found[f"{name}: {each.layer}"] = [(each.train[each.layer], each.test[each.layer])]
        found[f"{name}: {', '.join(each.train)}"] = each.parts()
    found["all of them: last layers"] = [
        (v.train[v.layer], v.test[v.layer]) for v in views.values()
    ]
    found["all of them: all layers"] = [pair for v in views.values() for pair in v.parts()]
    return found


def compare_combinations(
    candidates: dict[str, list[Pair]],
    train_labels: ArrayLike,
    test_labels: ArrayLike,
    C: float = 1.0,
    seed: int = 0,
) -> tuple[pd.DataFrame, Combination]:
    """Fit linear SVMs to each combination of features; return a table and the one to choose.

    candidates: see `combinations`; those of all views are tried with a signed root, too. Columns:
    `features`, `normalisation`, `dimension`, `validation` (mean accuracy over five folds of the
    training set), `accuracy` (on the test set). The highest validation decides, and among equals
    the last. Rows of P parts have the length sqrt(P): with P times the C each part weighs as alone.
    """
    inner = folds(train_labels, seed=seed)
    settings = [(name, "l2") for name in candidates]
    settings += [(name, "signed root") for name in candidates if name.startswith("all")]
    rows, best, highest = [], None, -1.0
    for name, normalisation in runtime.progress(settings, "combinations"):
        x, y = _side_by_side(candidates[name], normalisation)
        parts_C = C * len(candidates[name])
        validation = split_accuracies(x, train_labels, inner, parts_C, seed).mean()
        evaluation = evaluate(fit_linear_svm(x, train_labels, parts_C, seed), y, test_labels)
        row = {"features": name, "normalisation": normalisation, "dimension": x.shape[1]}
        rows.append(row | {"validation": validation, "accuracy": evaluation.accuracy})
        if validation >= highest:
            best = Combination(name, normalisation, x, y, parts_C, evaluation)
            highest = validation
    return pd.DataFrame(rows), best


def _side_by_side(parts: Sequence[Pair], normalisation: str) -> tuple[np.ndarray, np.ndarray]:
    train, test = zip(*parts, strict=True)
    return tuple(concatenate(*rows, normalisation=normalisation) for rows in (train, test))
