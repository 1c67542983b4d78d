"""Practical 1, transfer learning: a network's parameters and predictions, linear SVMs on features.

The features themselves come from `dlapps.models.features`; `dlapps.fine_tuning` trains networks.
"""

import copy
import time
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, normalize
from sklearn.svm import LinearSVC
from torch import nn

from dlapps import runtime
from dlapps.models.checks import check_counts, check_image_form, check_images, check_positive

NORMALISATIONS = ("raw", "l2", "signed root")

_KINDS = {
    nn.Conv2d: "convolution",
    nn.Linear: "fully connected",
    nn.BatchNorm2d: "batch norm",
    nn.MaxPool2d: "max pooling",
    nn.AdaptiveAvgPool2d: "average pooling",
}


def parameter_table(network, input_size=224):
    """Return a DataFrame of the layers of `network`, in the order in which an image passes them.

    Columns: `layer` (its name in the module), `kind`, `output` (the shape for one RGB image of
    `input_size` pixels, without the batch), `parameters`, `share` (of all parameters, in [0, 1]).
    Layers without parameters, pooling excepted, are left out. Only shapes are computed, on
    PyTorch's meta device: `network` may have any weights, or none.
    """
    rows, handles = [], []

    def add(name, module, output):
        parameters = sum(p.numel() for p in module.parameters())
        kind = next((kind for type_, kind in _KINDS.items() if isinstance(module, type_)), None)
        if parameters or kind:
            row = {"layer": name, "kind": kind or type(module).__name__}
            rows.append(row | {"output": tuple(output.shape[1:]), "parameters": parameters})

    for name, module in _layers(network):
        handles.append(
            module.register_forward_hook(lambda m, _, output, name=name: add(name, m, output))
        )
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, input_size, input_size, device="meta")
            state = {key: value.to("meta") for key, value in network.state_dict().items()}
            torch.func.functional_call(network, state, image)
    finally:
        for handle in handles:
            handle.remove()
    table = pd.DataFrame(rows)
    return table.assign(share=table["parameters"] / table["parameters"].sum())


def _layers(module, name=""):
    """Yield the name and module of all that computes: with its own parameters, or no children."""
    if next(module.parameters(recurse=False), None) is not None or not any(module.children()):
        yield name, module
    else:
        for key, child in module.named_children():
            yield from _layers(child, f"{name}.{key}" if name else key)


def top_k(network, images, k=5):
    """Return the k most probable classes of each image, the most probable first.

    `images` (N, 3, H, W) are floats in [0, 1], as `network.prepare` makes them. The result is a
    list of N lists of k class names and a float array (N, k) of their softmax probabilities. Raises
    TypeError or ValueError for other images and for a k that is no number of classes.
    """
    check_counts(k=k)
    check_images(images)
    with torch.inference_mode():
        probabilities = network(images).softmax(1)
    if k > probabilities.shape[1]:
        raise ValueError(f"k is {k}, expected at most the {probabilities.shape[1]} classes")
    probabilities, classes = probabilities.topk(k)
    names = [[network.categories[c] for c in row] for row in classes.tolist()]
    return names, probabilities.cpu().numpy()


def training_mode_passes(network, images, passes=20, seed=0):
    """Return the class probabilities (passes, N, 1000) of `passes` passes in training mode.

    There dropout removes other units in each pass, and batch norm uses the mean and deviation of
    the batch. `images` (N, 3, H, W) are floats in [0, 1], on the device of `network`, which stays
    as it is: its copy is trained. `seed` is that of the dropout. The result lies on the CPU. Raises
    TypeError or ValueError for other images.
    """
    check_images(images)
    model = copy.deepcopy(network).train()
    all_gpus = range(torch.cuda.device_count())  # which manual_seed seeds
    with torch.random.fork_rng(all_gpus), torch.inference_mode():
        torch.manual_seed(seed)
        return torch.stack([model(images).softmax(1).cpu() for _ in range(passes)])


def filter_shares(weights, images):
    """Return how much of each filter's map comes from light, from a pattern and from a colour.

    A filter (3, h, w) is the sum of three orthogonal parts: its mean (it answers to light),
    the rest of its mean over the channels (an edge or a texture, the same in each channel), and
    what differs between channels (a colour). `weights` is (F, 3, h, w), `images` (N, 3, H, W). The
    result (F, 3) holds the variances of the parts' maps, divided by their sum; a filter of zeros
    has zeros.
    """
    weights = weights.to(images)
    light = weights.mean((1, 2, 3), keepdim=True).expand_as(weights)
    grey = weights.mean(1, keepdim=True).expand_as(weights)
    parts = (light, grey - light, weights - grey)
    variances = [nn.functional.conv2d(images, part).var((0, 2, 3)) for part in parts]
    variances = torch.stack(variances, 1)
    return variances / variances.sum(1, keepdim=True).clamp_min(torch.finfo(images.dtype).tiny)


class GreyNetwork(nn.Module):
    """A copy of a `PretrainedNetwork` whose first convolution takes one channel instead of three.

    For a grey image g repeated over the channels c, with weights w, mean m and deviation s,

        sum_c w_c * (g - m_c) / s_c  =  (sum_c w_c / s_c) * g  -  (sum_c w_c m_c / s_c) * 1,

    so the weights are summed over the channels, and an image of ones takes the means. It is padded
    with zeros as g is, which keeps the borders right as well.
    """

    def __init__(self, network):
        super().__init__()
        self.body = copy.deepcopy(network.body)
        first = next(m for m in self.body.modules() if isinstance(m, nn.Conv2d))
        scaled = first.weight.detach() / network.std
        summed = torch.stack([scaled.sum(1), -(scaled * network.mean).sum(1)], 1)
        first.weight = nn.Parameter(summed, requires_grad=first.weight.requires_grad)
        first.in_channels = 2

    def forward(self, grey):
        """Return the class scores (N, 1000) of grey images (N, 1, H, W) in [0, 1].

        Raises TypeError or ValueError for another type or shape, as a `PretrainedNetwork` does.
        """
        check_image_form(grey, channels=1, name="grey")
        grey = grey.to(next(self.body.parameters()).dtype)
        return self.body(torch.cat([grey, torch.ones_like(grey)], 1))


@dataclass(frozen=True)
class Evaluation:
    """What a classifier does on test data: `confusion[i, j]` counts images of class i called j."""

    accuracy: float
    confusion: np.ndarray  # (classes, classes)
    predictions: np.ndarray  # (N,)
    margins: np.ndarray  # (N,): by how much the highest score exceeds the second


def fit_linear_svm(features, labels, C=1.0, seed=0, normalisation="l2"):
    """Fit one-versus-rest linear SVMs to features (N, D) whose rows are first normalised.

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
    return make_pipeline(_normaliser(normalisation), svm).fit(features, labels)


def _normaliser(normalisation):
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


def evaluate(classifier, features, labels):
    """Return the `Evaluation` of a fitted classifier on features (N, D).

    Raises ValueError for rows that `check_rows` refuses.
    """
    features, labels = check_rows(features, labels)
    scores = classifier.decision_function(features)
    if scores.ndim == 1:  # of two classes, scikit-learn gives the second one's score only
        scores = np.stack([-scores, scores], axis=1)
    predictions = classifier.classes_[scores.argmax(1)]
    second, first = np.sort(scores, axis=1)[:, -2:].T
    return Evaluation(
        accuracy=float((predictions == labels).mean()),
        confusion=confusion_matrix(labels, predictions, labels=classifier.classes_),
        predictions=predictions,
        margins=first - second,
    )


def concatenate(*parts, normalisation="l2"):
    """Return features of several layers (N, D1), (N, D2), … side by side, (N, D1 + D2 + …).

    Each row of each part is first normalised ("l2" or "signed root", see `fit_linear_svm`), so that
    no layer outweighs another.
    """
    return np.hstack([_normaliser(normalisation).transform(np.asarray(part)) for part in parts])


def folds(labels, count=5, seed=0):
    """Return `count` pairs of indices (to fit, to validate), each class in equal shares."""
    split = StratifiedKFold(count, shuffle=True, random_state=seed)
    return list(split.split(np.zeros((len(labels), 1)), labels))


def random_splits(labels, per_class=100, count=10, seed=0):
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


def split_accuracies(features, labels, splits, C=1.0, seed=0, normalisation="l2"):
    """Return the accuracy of linear SVMs on each of `splits`, pairs of (train, test) indices.

    The splits are fitted in parallel, one on each CPU. Not in threads: the solver draws the order
    of its steps from one generator for the whole process, so that threads would disturb each other.
    """
    features, labels = check_rows(features, labels)
    options = {"C": C, "seed": seed, "normalisation": normalisation}
    return np.array(
        Parallel(n_jobs=-1)(
            delayed(_split_accuracy)(features, labels, *split, **options) for split in splits
        )
    )


def _split_accuracy(features, labels, train, test, **options):
    svm = fit_linear_svm(features[train], labels[train], **options)
    return float((svm.predict(features[test]) == labels[test]).mean())


def classifier_study(
    train, train_labels, test, test_labels, *, normalisations, Cs, splits, seed=0, description=""
):
    """Return a tidy DataFrame: a row for each layer, normalisation and C.

    train, test: {name of a layer: features (N, D)} of the standard split. splits: pairs of indices
    (see `random_splits`) into the training rows followed by the test rows. Columns: `layer`,
    `normalisation`, `C`, `dimension`, `validation` (mean accuracy over five folds of the training
    set: what to choose by), `accuracy` (on the test set), `splits mean`, `splits std` (over the
    random splits, ddof = 1), `seconds` (to fit the standard split).
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    labels = np.concatenate([train_labels, test_labels])
    inner = folds(train_labels, seed=seed)
    rows = []
    settings = list(product(train, normalisations, Cs))
    for layer, normalisation, C in runtime.progress(settings, description):
        x, y = np.asarray(train[layer]), np.asarray(test[layer])
        options = {"C": C, "seed": seed, "normalisation": normalisation}
        start = time.perf_counter()
        svm = fit_linear_svm(x, train_labels, **options)
        seconds = time.perf_counter() - start
        # One call for both, so that no CPU waits for the last fold.
        accuracies = split_accuracies(np.vstack([x, y]), labels, [*inner, *splits], **options)
        validation, random = np.split(accuracies, [len(inner)])
        rows.append(
            {"layer": layer, "normalisation": normalisation, "C": C, "dimension": x.shape[1]}
            | {"validation": validation.mean(), "accuracy": evaluate(svm, y, test_labels).accuracy}
            | {"splits mean": random.mean(), "splits std": random.std(ddof=1), "seconds": seconds}
        )
    return pd.DataFrame(rows)


def pca_curve(train, train_labels, test, test_labels, dimensions, C=1.0, seed=0):
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


def check_rows(features, labels):
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
