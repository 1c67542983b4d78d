"""Linear SVMs compared: over folds, random splits, layers, C and dimensions."""

import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from dlapps import runtime
from dlapps.checks import check_counts
from dlapps.replacements import carrying
from dlapps.transfer.svm import check_rows, evaluate, fit_linear_svm, normaliser

Split = tuple[np.ndarray, np.ndarray]  # indices to fit and to test


def folds(labels: ArrayLike, count: int = 5, seed: int = 0) -> list[Split]:
    """Return `count` pairs of indices (to fit, to validate), each class in equal shares."""
    split = StratifiedKFold(count, shuffle=True, random_state=seed)
    return list(split.split(np.zeros((len(labels), 1)), labels))


def random_splits(
    labels: ArrayLike, per_class: int = 100, count: int = 10, seed: int = 0
) -> list[Split]:
    """Return `count` pairs of indices: `per_class` random ones of each class, and all the others.

    Raises ValueError if a class has not more than `per_class` images.
    """
    check_counts(per_class=per_class, count=count)
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() <= per_class:
        raise ValueError(
            f"per_class is {per_class}, expected less than {counts.min()}, the images of class "
            f"{classes[counts.argmin()]}"
        )
    generator = np.random.default_rng(seed)
    splits = []
    for _ in range(count):
        drawn = [
            generator.permutation(np.flatnonzero(labels == label))[:per_class] for label in classes
        ]
        train = np.sort(np.concatenate(drawn))
        splits.append((train, np.setdiff1d(np.arange(len(labels)), train)))
    return splits


def split_accuracies(
    features: ArrayLike,
    labels: ArrayLike,
    splits: Sequence[Split],
    C: float = 1.0,
    seed: int = 0,
    normalisation: str = "l2",
) -> np.ndarray:
    """Return the accuracy of linear SVMs on each of `splits`, pairs of (train, test) indices.

    The splits are fitted in parallel, one on each CPU. Not in threads: the solver draws the order
    of its steps from one generator for the whole process, so that threads would disturb each other.
    """
    features, labels = check_rows(features, labels)
    options = {"C": C, "seed": seed, "normalisation": normalisation}
    return np.array(
        Parallel(n_jobs=-1)(
            delayed(carrying(_split_accuracy))(features, labels, *split, **options)
            for split in splits
        )
    )


def _split_accuracy(features, labels, train, test, **options):
    svm = fit_linear_svm(features[train], labels[train], **options)
    return float((svm.predict(features[test]) == labels[test]).mean())


def classifier_study(
    train: dict[str, ArrayLike],
    train_labels: ArrayLike,
    test: dict[str, ArrayLike],
    test_labels: ArrayLike,
    settings: Sequence[tuple[str, float]] = (("l2", 1.0),),
    splits: Sequence[Split] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Return a tidy DataFrame of linear SVMs: a row for each layer, normalisation and C.

    train, test: {name of a layer: features (N, D)} of the standard split. settings: pairs of a
    normalisation and C, see `fit_linear_svm`. splits: pairs of indices (see `random_splits`) into
    the training rows followed by the test rows. Columns: `layer`, `normalisation`, `C`,
    `dimension`, `validation` (mean accuracy over five folds of the training set: what to choose
    by), `accuracy` (on the test set), `interval` (half its 95 % interval), and with splits `splits
    mean` and `splits std` (over the random splits, ddof = 1).
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    labels = np.concatenate([train_labels, test_labels])
    inner = folds(train_labels, seed=seed)
    rows = []
    for layer, (normalisation, C) in runtime.progress([*product(train, settings)], "linear SVMs"):
        x, y = np.asarray(train[layer]), np.asarray(test[layer])
        options = {"C": C, "seed": seed, "normalisation": normalisation}
        evaluation = evaluate(fit_linear_svm(x, train_labels, **options), y, test_labels)
        # One call for both, so that no CPU waits for the last fold.
        accuracies = split_accuracies(np.vstack([x, y]), labels, [*inner, *splits], **options)
        validation, random = np.split(accuracies, [len(inner)])
        row = {"layer": layer, "normalisation": normalisation, "C": C, "dimension": x.shape[1]}
        row |= {"validation": validation.mean(), "accuracy": evaluation.accuracy}
        row["interval"] = evaluation.interval
        if len(splits):
            row |= {"splits mean": random.mean(), "splits std": random.std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


def principal_components(features: ArrayLike, train: np.ndarray, dimension: int) -> np.ndarray:
    """Return rows (N, dimension): L2-normalised features (N, D), on their principal components.

    The components are those of the rows `train` alone. Raises ValueError for a dimension above the
    rank, min(len(train), D).
    """
    rows = normalize(np.asarray(features))
    largest = min(len(train), rows.shape[1])
    if not 1 <= dimension <= largest:
        raise ValueError(f"dimension is {dimension}, expected 1 to {largest}")
    return PCA(dimension, svd_solver="full").fit(rows[train]).transform(rows)


def pca_curve(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    dimensions: Sequence[int],
    C: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a DataFrame: linear SVMs on the first principal components, whitened or not.

    Rows of features (N, D) are L2-normalised, projected on so many of `dimensions` and normalised
    again; the components are those of the training rows. Columns: `dimension`, `whitened`,
    `variance` (the share that is kept), `accuracy`, and the seconds `to project` (components and
    both sets) and `to fit` the SVMs.
    Raises ValueError for a dimension above the rank, min(N, D).
    """
    train, test = normalize(np.asarray(train)), normalize(np.asarray(test))
    largest = min(train.shape)
    if not all(1 <= dimension <= largest for dimension in dimensions):
        raise ValueError(f"dimensions is {dimensions}, expected numbers from 1 to {largest}")
    rows = []
    for whiten, dimension in product([False, True], dimensions):
        start = time.perf_counter()
        pca = PCA(dimension, whiten=whiten, svd_solver="full", random_state=seed).fit(train)
        x, y = pca.transform(train), pca.transform(test)
        projected = time.perf_counter()
        svm = fit_linear_svm(x, train_labels, C, seed)
        fitted = time.perf_counter()
        rows.append(
            {"dimension": dimension, "whitened": whiten}
            | {"variance": pca.explained_variance_ratio_.sum()}
            | {"accuracy": evaluate(svm, y, test_labels).accuracy}
            | {"to project": projected - start, "to fit": fitted - projected}
        )
    return pd.DataFrame(rows)


def fit_layers(
    features: ArrayLike, labels: ArrayLike, hidden: Sequence[int] = (), seed: int = 0
) -> Pipeline:
    """Fit fully connected layers to features (N, D): D -> each of `hidden`, with ReLU -> K scores.

    Trained with the cross-entropy by Adam, on rows that are L2-normalised and then standardised;
    `seed` is that of the first weights and of the order. Returns a scikit-learn pipeline.
    Raises ValueError for rows that `check_rows` refuses.
    """
    check_counts(**{f"hidden[{i}]": units for i, units in enumerate(hidden)})
    features, labels = check_rows(features, labels)
    layers = MLPClassifier(tuple(hidden), random_state=seed, max_iter=300)
    return make_pipeline(normaliser("l2"), StandardScaler(), layers).fit(features, labels)
