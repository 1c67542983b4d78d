"""Linear SVMs on features, and what a classifier does on test data."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer
from sklearn.svm import LinearSVC

from dlapps.checks import check_positive

NORMALISATIONS = ("raw", "l2", "signed root")
Z95 = 1.96  # standard errors to each side of a mean: 95 % of a normal distribution


@dataclass(frozen=True)
class Evaluation:
    """What a classifier does on test data: `confusion[i, j]` counts class i predicted as j."""

    accuracy: float
    confusion: np.ndarray  # (classes, classes)
    labels: np.ndarray  # (N,)
    predictions: np.ndarray  # (N,)
    margins: np.ndarray  # (N,): by how much the highest score exceeds the second

    @property
    def interval(self) -> float:
        """Half the 95 % interval of the accuracy, for other test images of the same kind."""
        return Z95 * math.sqrt(self.accuracy * (1 - self.accuracy) / len(self.labels))

    @property
    def recall(self) -> np.ndarray:
        """The share (classes,) of the images of each class that are recognised."""
        return self.confusion.diagonal() / self.confusion.sum(1)

    def most_confident_mistakes(self, count: int = 15) -> np.ndarray:
        """Return the indices of the mistakes with the largest margins, the largest first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        return wrong[np.argsort(-self.margins[wrong], kind="stable")][:count]

    def most_frequent_mistake(self) -> tuple[int, int]:
        """Return the true and the predicted class of the most frequent mistake, as indices."""
        mistakes = self.confusion - np.diag(self.confusion.diagonal())
        true, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
        return int(true), int(predicted)


def fit_linear_svm(
    features: ArrayLike, labels: ArrayLike, C: float = 1.0, seed: int = 0, normalisation: str = "l2"
) -> Pipeline:
    """Fit one-versus-rest linear SVMs to features (N, D) whose rows are first normalised.

        min over w, b of  |w|² / 2 + C Σ_i max(0, 1 - y_i (w·x_i + b))²,  y_i = ±1,

    for each class, which is what scikit-learn's LinearSVC solves.
    normalisation: "l2" divides each row by its norm; "signed root" first takes sign(x) sqrt(|x|),
    so that a few large entries do not decide alone (Perronnin et al., ECCV 2010, section 3); "raw"
    leaves the rows as they are.
    Returns a scikit-learn pipeline of both steps, so that nothing is ever classified that was not
    normalised. `C` weighs the errors against the margin; `seed` orders the solver's steps.
    Raises ValueError for another normalisation, a C that is not positive, and for rows that
    `check_rows` refuses.
    """
    features, labels = check_rows(features, labels)
    check_positive(C=C)
    # Both problems have the same solution. The dual is found faster for rows of length 1, but only
    # after very many steps for long ones.
    svm = LinearSVC(C=C, dual=normalisation != "raw", random_state=seed, max_iter=10_000)
    return make_pipeline(normaliser(normalisation), svm).fit(features, labels)


def normaliser(normalisation: str) -> Pipeline:
    """Return what normalises rows in one of NORMALISATIONS, see `fit_linear_svm`."""
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f"normalisation is {normalisation!r}, expected one of {', '.join(NORMALISATIONS)}"
        )
    steps = {
        "raw": [FunctionTransformer()],
        "l2": [Normalizer("l2")],
        "signed root": [FunctionTransformer(_signed_root), Normalizer("l2")],
    }
    return make_pipeline(*steps[normalisation])


def _signed_root(features):
    return np.sign(features) * np.sqrt(np.abs(features))


def evaluate(classifier: Pipeline, features: ArrayLike, labels: ArrayLike) -> Evaluation:
    """Return the `Evaluation` of a fitted classifier on features (N, D).

    Raises ValueError for rows that `check_rows` refuses.
    """
    features, labels = check_rows(features, labels)
    scores = classifier.decision_function(features)
    if scores.ndim == 1:  # of two classes, scikit-learn gives the second one's score only
        scores = np.stack([-scores, scores], axis=1)
    return evaluate_scores(scores, labels, classifier.classes_)


def evaluate_scores(
    scores: ArrayLike, labels: ArrayLike, classes: ArrayLike | None = None
) -> Evaluation:
    """Return the `Evaluation` of scores (N, K) for `classes` (K,), by default 0 to K - 1."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    classes = np.arange(scores.shape[1]) if classes is None else np.asarray(classes)
    predictions = classes[scores.argmax(1)]
    second, first = np.sort(scores, axis=1)[:, -2:].T
    return Evaluation(
        accuracy=float((predictions == labels).mean()),
        confusion=confusion_matrix(labels, predictions, labels=classes),
        labels=labels,
        predictions=predictions,
        margins=first - second,
    )


def accuracy_change(before: Evaluation, after: Evaluation) -> tuple[float, float]:
    """Return how much higher the accuracy is `after` than `before`, and half its 95 % interval.

    Both classify the same N images. Each of these contributes d = 1 (right only after), -1 (right
    only before) or 0; the interval is that of the mean of d, 1.96 standard errors to both sides:
    images on which both agree add nothing to it (as in McNemar's test). Raises ValueError for other
    labels.
    """
    _check_same_images(before, after)
    d = np.subtract(*(e.predictions == e.labels for e in (after, before)), dtype=float)
    return float(d.mean()), float(Z95 * d.std(ddof=1) / math.sqrt(len(d)))


def discordant(before: Evaluation, after: Evaluation) -> tuple[int, int]:
    """Return how many images are right only `before`, and how many only `after`.

    What McNemar's test looks at: two classifiers whose accuracies agree may well disagree on many
    images. Raises ValueError for other labels.
    """
    _check_same_images(before, after)
    first, second = (e.predictions == e.labels for e in (before, after))
    return int((first & ~second).sum()), int((second & ~first).sum())


def compare_evaluations(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """Return a DataFrame that compares classifiers of the same images with the first of them.

    Columns: `classifier`, `accuracy`, of `accuracy_change` against the first `change` and
    `interval`, half the 95 % interval of the change, and of `discordant` `lost` and `won`, the
    numbers of images that only the first or only this one classifies correctly.
    """
    first = next(iter(evaluations.values()))
    columns = ["classifier", "accuracy", "change", "interval", "lost", "won"]
    rows = [
        (name, each.accuracy, *accuracy_change(first, each), *discordant(first, each))
        for name, each in evaluations.items()
    ]
    return pd.DataFrame(rows, columns=columns)


def _check_same_images(before, after):
    if not np.array_equal(before.labels, after.labels):
        raise ValueError("before and after have different labels, expected the same test images")


def concatenate(*parts: ArrayLike, normalisation: str = "l2") -> np.ndarray:
    """Return features of several layers (N, D1), (N, D2), … side by side, (N, D1 + D2 + …).

    Each row of each part is first normalised ("l2" or "signed root", see `fit_linear_svm`), so that
    no layer outweighs another.
    """
    return np.hstack([normaliser(normalisation).transform(np.asarray(part)) for part in parts])


def check_rows(features: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays; raise ValueError unless each row belongs to one label.

    Also refused are rows of zeros: rows that were allocated and never filled carry the label 0,
    and count as right answers.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features has shape {features.shape} and labels {labels.shape}, "
            "expected (N, D) and (N,)"
        )
    if not np.isfinite(features).all():
        raise ValueError("features has infinite values or NaN, expected finite ones")
    empty = np.flatnonzero(~features.any(1))
    if len(empty):
        raise ValueError(
            f"features has {len(empty)} rows of zeros, the first at {empty[0]}: "
            f"expected {len(labels)} rows that were computed from images"
        )
    return features, labels
