"""Features of several networks, image sizes and layers, side by side, and the choice among them."""

from collections.abc import Sequence
from itertools import accumulate, product

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from numpy.typing import ArrayLike
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from dlapps import runtime
from dlapps.checks import check_positive
from dlapps.models import features
from dlapps.replacements import carrying
from dlapps.transfer.studies import Split, folds
from dlapps.transfer.svm import Evaluation, check_rows, evaluate, normaliser


def describe(network: nn.Module, size: int, *parts: Tensor) -> list[np.ndarray]:
    """Return the features (N, D) of each inner layer of `network` for all uint8 images.

    `parts` are images (N1, C, H, W), (N2, C, H, W), …, whose features follow each other; they are
    shown at `size` pixels, with their mirror images.
    """
    layers, options = network.inner_layers, {"sizes": [size], "mirrored": True}
    found = [features.extract(network, images, layers, **options) for images in parts]
    return [np.concatenate([part[layer] for part in found]) for layer in layers]


def growing(members: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Return {name: features}: the first member's last layer, all of its layers, then more members.

    members: {name: features (N, D) of each layer, early to late}, of the same N images.
    """
    first, *others = members
    found = {f"{first}, last layer": members[first][-1:], f"{first}, all layers": members[first]}
    for so_far in accumulate([[name] for name in others], initial=[first]):
        if len(so_far) > 1:
            found[f"+ {so_far[-1]}"] = [rows for name in so_far for rows in members[name]]
    return found


def gram(parts: Sequence[ArrayLike], normalisation: str = "l2") -> np.ndarray:
    """Return the inner products (N, N) of features (N, D1), (N, D2), … laid side by side.

        K_ij = (1 / P) Σ_p  x_pi · x_pj,

    with x_pi the row i of part p, normalised on its own (see `fit_linear_svm`), so that none of the
    P parts outweighs another and K_ii = 1. A linear SVM needs nothing else of the features, however
    many there are (Boser, Guyon, Vapnik, COLT 1992). Raises ValueError without parts and for rows
    that `check_rows` refuses.
    """
    if not len(parts):
        raise ValueError("parts is empty, expected features")
    K = 0.0
    for part in parts:
        rows, _ = check_rows(part, np.zeros(len(part)))
        x = normaliser(normalisation).transform(rows).astype(np.float32)
        K = K + x @ x.T / np.float32(len(parts))
    return K


def coordinates(K: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return rows z (N, R), R <= len(train), with z_i · z_j = K_ij for all i and each j in `train`.

    With K[train, train] = V Λ Vᵀ they are K[:, train] V Λ^(-1/2): the features, projected on the
    span of the training rows. There lies the w of every linear SVM fitted to rows of `train`, so
    that it classifies z as it would classify the features.
    """
    values, vectors = np.linalg.eigh(K[np.ix_(train, train)].astype(float))
    kept = values > 1e-6 * values[-1]  # the others are rounding
    return K[:, train] @ (vectors[:, kept] / np.sqrt(values[kept]))


def fit_chosen(
    K: np.ndarray, labels: ArrayLike, split: Split, C: float, seed: int = 0
) -> Evaluation:
    """Fit linear SVMs to the first indices of `split`; return the `Evaluation` of the others."""
    labels, (train, test) = np.asarray(labels), split
    z = coordinates(K, train)
    return evaluate(_fit(z[train], labels[train], C, seed), z[test], labels[test])


def compare_combinations(
    grams: dict[str, np.ndarray],
    labels: ArrayLike,
    splits: Sequence[Split],
    Cs: Sequence[float] = (1.0, 4.0, 16.0),
    seed: int = 0,
) -> pd.DataFrame:
    """Choose among combinations of features within each split; return a tidy DataFrame.

    grams: {name: K (N, N)}, see `gram`; splits: pairs of indices (to fit, to test). Columns:
    `split`, `features`, `C` (the one that validates best), `validation` (mean accuracy over five
    folds of the images to fit), `accuracy` (on those to test) and `chosen`: whether this row has
    the highest validation of its split, among equals the last. Nothing but the images to fit takes
    part in any choice.
    """
    check_positive(**{f"Cs[{i}]": C for i, C in enumerate(Cs)})
    labels = np.asarray(labels)
    jobs = [*product(range(len(splits)), grams)]
    with parallel_config("loky", inner_max_num_threads=1):
        found = Parallel(n_jobs=-1, return_as="generator")(
            delayed(carrying(_best_C))(grams[name], labels, splits[number], Cs, seed)
            for number, name in jobs
        )
        rows = [*runtime.progress(found, "combinations", len(jobs))]
    table = pd.DataFrame(jobs, columns=["split", "features"]).join(pd.DataFrame(rows))
    last_first = table[::-1].groupby("split")["validation"].idxmax()
    return table.assign(chosen=table.index.isin(last_first))


def _best_C(K, labels, split, Cs, seed):
    train, test = split
    z, y = coordinates(K, train), labels[train]
    inner = folds(y, seed=seed)

    def validation(C):
        return np.mean([_accuracy(z[train], y, *fold, C, seed) for fold in inner])

    validations = [validation(C) for C in Cs]
    best = int(np.argmax(validations))
    svm = _fit(z[train], y, Cs[best], seed)
    accuracy = float((svm.predict(z[test]) == labels[test]).mean())
    return {"C": Cs[best], "validation": float(validations[best]), "accuracy": accuracy}


def _accuracy(z, y, fit, held_out, C, seed):
    return (_fit(z[fit], y[fit], C, seed).predict(z[held_out]) == y[held_out]).mean()


def _fit(z, y, C, seed):
    return LinearSVC(C=C, random_state=seed, max_iter=10_000).fit(z, y)
