"""Practical 1, transfer learning: a network's parameters and predictions, linear SVMs on features.

The features themselves come from `dlapps.models.features`.
"""

import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC
from torch import nn

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
    list of N lists of k class names and a float array (N, k) of their softmax probabilities.
    """
    with torch.inference_mode():
        probabilities, classes = network(images).softmax(1).topk(k)
    names = [[network.categories[c] for c in row] for row in classes.tolist()]
    return names, probabilities.cpu().numpy()


def filter_shares(weights, images):
    """Return how much of each filter's map comes from light, from a pattern and from a colour.

    A filter (3, h, w) is the sum of three orthogonal parts: its mean (it answers to light),
    the rest of its mean over the channels (an edge or a texture, the same in each channel), and
    what differs between channels (a colour). `weights` is (F, 3, h, w), `images` (N, 3, H, W). The
    result (F, 3) holds the variances of the parts' maps, divided by their sum; a filter of zeros
    has zeros.
    """
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
        """Return the class scores (N, 1000) of grey images (N, 1, H, W) in [0, 1]."""
        return self.body(torch.cat([grey, torch.ones_like(grey)], 1))


@dataclass(frozen=True)
class Evaluation:
    """What a classifier does on test data: `confusion[i, j]` counts images of class i called j."""

    accuracy: float
    confusion: np.ndarray  # (classes, classes)
    predictions: np.ndarray  # (N,)


def fit_linear_svm(features, labels, C=1.0, seed=0):
    """Fit one-versus-rest linear SVMs to features (N, D) whose rows are first L2-normalised.

    Returns a scikit-learn pipeline of the two, so that nothing is ever classified that was not
    normalised. `C` weighs the errors against the margin; `seed` orders the solver's steps.
    Raises ValueError for rows that `check_rows` refuses.
    """
    features, labels = check_rows(features, labels)
    svm = LinearSVC(C=C, dual="auto", random_state=seed, max_iter=10_000)
    return make_pipeline(Normalizer("l2"), svm).fit(features, labels)


def evaluate(classifier, features, labels):
    """Return the `Evaluation` of a fitted classifier on features (N, D) with labels (N,).

    Raises ValueError for rows that `check_rows` refuses.
    """
    features, labels = check_rows(features, labels)
    predictions = classifier.predict(features)
    return Evaluation(
        accuracy=float((predictions == labels).mean()),
        confusion=confusion_matrix(labels, predictions, labels=classifier.classes_),
        predictions=predictions,
    )


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
