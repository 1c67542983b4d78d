"""Checks of practical 1: each is given a student's function f of the same name."""

import numpy as np
import torch
from scipy import special
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F

from dlapps.student.comparison import NotYet, compare, parts
from dlapps.student.inputs import normal, numbers, tensor, uniform


def count_parameters(f):
    with torch.device("meta"):
        layers = nn.Linear(25088, 4096), nn.Conv2d(3, 64, 5), nn.Conv2d(64, 32, 3)
    for layer, sizes in zip(layers, ((25088, 4096), (3, 64, 5), (64, 32, 3)), strict=True):
        n, m, k = (*sizes, 1)[:3]
        mistakes = {
            "The biases are missing: one for each output.": k * k * n * m,
            "A kernel has k × k pixels, not k.": (k * n + 1) * m,
            "There is a bias for each output, not for each input.": k * k * n * m + n,
            "There is one bias for each output, not for each pixel of a kernel.": k
            * k
            * (n + 1)
            * m,
            "The kernel's size is missing.": n * m + m,
            "There is a bias for each output, not one for all.": k * k * n * m + 1,
        }
        right = sum(p.numel() for p in layer.parameters())
        compare(f(*sizes), right, f"the number for {layer}", mistakes, tolerance=1e-9)


def softmax(f):
    s = normal(3, 6)
    S = numbers(s)
    powers = np.exp(S)
    right = special.softmax(S, -1)
    mistakes = {
        "It is not divided by the sum.": powers,
        "The sum is over the images: it belongs over the classes, dim -1.": special.softmax(S, 0),
        "The sum is over the whole batch: each image has its own.": powers / powers.sum(),
        "The exponential is missing.": S / S.sum(-1, keepdims=True),
        "It is divided by the largest: divide by the sum.": powers / powers.max(-1, keepdims=True),
        "It is the logarithm of the probabilities.": np.log(right),
        "It is the sigmoid: the probabilities of an image add up to 1.": special.expit(S),
        "It is applied twice.": special.softmax(right, -1),
        "The sign is wrong: a larger score is more probable.": special.softmax(-S, -1),
    }
    compare(f(s), tensor(right).float(), "the probabilities (N, K)", mistakes)
    compare(f(s[0]), tensor(right[0]).float(), "the probabilities of one vector of scores (K,)")
    far = tensor(special.softmax(1e3 * S, -1)).float()
    compare(f(1e3 * s), far, "the result for scores of 1,000, whose exponential overflows")


class Scores(nn.Module):
    """A network that gives three images the same scores whatever they show."""

    categories = tuple(f"class {i}" for i in range(6))

    def forward(self, images):
        return normal(3, 6)


def top_k(f):
    found = f(Scores(), uniform(3, 3, 8, 8), k=2)
    names, probabilities = parts(found, 2, "the names and their probabilities")
    s = numbers(normal(3, 6))
    best = np.argsort(-s, 1)[:, :2]

    def of_best(values):
        return np.take_along_axis(values, best, 1)

    p, over_images = special.softmax(s, 1), special.softmax(s, 0)
    right = of_best(p)
    mistakes = {
        "They ascend: the most probable class comes first.": right[:, ::-1],
        "They are the smallest ones.": np.sort(p, 1)[:, :2],
        "They are the scores: the softmax is missing.": of_best(s),
        "The softmax is applied twice.": of_best(special.softmax(p, 1)),
        "The softmax is over the images: it belongs over dim 1.": -np.sort(-over_images, 1)[:, :2],
        "It is the sigmoid: the probabilities of an image add up to 1.": of_best(special.expit(s)),
        "The softmax is over the k classes: take it over all.": special.softmax(of_best(s), 1),
    }
    compare(probabilities, right.astype(np.float32), "the probabilities", mistakes)
    wanted = [[Scores.categories[i] for i in row] for row in best]
    if not isinstance(names, list) or [*map(list, names)] != wanted:
        raise NotYet(f"the names, those of network.categories, are {names}, expected {wanted}.")


def grey_filters(f):
    w, μ, σ = normal(4, 3, 2, 2), uniform(1, 3, 1, 1), 0.2 + uniform(1, 3, 1, 1, seed=1)
    W, M, S = map(numbers, (w, μ, σ))
    of_g = W[:, 0] / S[0, 0] + W[:, 1] / S[0, 1] + W[:, 2] / S[0, 2]
    of_1 = -sum(W[:, c] * M[0, c] / S[0, c] for c in range(3))

    def pair(first, second):
        return np.stack([first, second], 1)

    mistakes = {
        "The minus sign of the second filter is missing.": pair(of_g, -of_1),
        "σ is missing: divide by it.": pair(W.sum(1), -(W * M).sum(1)),
        "σ is missing in the first filter.": pair(W.sum(1), of_1),
        "σ is missing in the second filter.": pair(of_g, -(W * M).sum(1)),
        "μ is missing in the second filter.": pair(of_g, -of_g),
        "It is the mean over the channels: the sum is asked for.": pair(of_g, of_1) / 3,
        "The two filters are swapped: the first is for g.": pair(of_1, of_g),
        "It is multiplied by σ: divide by it.": pair((W * S).sum(1), -(W * S * M).sum(1)),
    }
    found = f(w, μ, σ)
    compare(found, tensor(pair(of_g, of_1)).float(), "the pair of filters", mistakes)
    g = uniform(1, 1, 2, 2, seed=2)
    compare(F.conv2d(torch.cat([g, g**0], 1), found), F.conv2d((g - μ) / σ, w), "the response")


def fit_linear_svm(f):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    x = generator.normal(size=(90, 6)) + 1.5 * np.eye(3, 6)[labels]
    x *= generator.uniform(0.2, 3, size=(90, 1))
    x, y, labels = x[:60], x[60:], labels[:60]

    def as_it_is(r):
        return r

    def roots(r):
        return np.sign(r) * np.sqrt(np.abs(r))

    def rows(r):
        return r / np.linalg.norm(r, axis=1, keepdims=True)

    def sums(r):
        return r / np.abs(r).sum(1, keepdims=True)

    def scores(prepare, at_test=None, C=10.0):
        svm = LinearSVC(C=C, dual=False, tol=1e-6, max_iter=10_000, random_state=0)
        return svm.fit(prepare(x), labels).decision_function((at_test or prepare)(y))

    prepared = {"l2": rows, "signed root": lambda r: rows(roots(r)), "raw": as_it_is}
    for name, prepare in prepared.items():
        found = f(x, labels, C=10.0, normalisation=name)
        if not hasattr(found, "decision_function"):
            raise NotYet("what it returns has no decision_function: return the fitted pipeline.")
        right = scores(prepare)
        mistakes = {
            "The rows are not normalised: each by a norm of its own.": scores(as_it_is),
            "Only the rows to fit are normalised: the pipeline shall do it.": scores(
                prepare, as_it_is
            ),
            "The rows are divided by the sum of their values: take the norm.": scores(sums),
            f"The rows are as with 'l2', expected {name!r}.": scores(rows),
            "The rows are not divided by their norm after the root.": scores(roots),
            "The sign is lost: sign(x) sqrt(|x|).": scores(lambda r: rows(np.abs(roots(r)))),
            "C is ignored.": scores(prepare, C=1.0),
        }
        found = found.decision_function(y)
        compare(found, right, f"the score for new rows with {name!r}", mistakes, tolerance=0.01)


CHECKS = {
    "dlapps.transfer.predictions.softmax": softmax,
    "dlapps.transfer.parameters.count_parameters": count_parameters,
    "dlapps.transfer.predictions.top_k": top_k,
    "dlapps.transfer.first_layer.grey_filters": grey_filters,
    "dlapps.transfer.svm.fit_linear_svm": fit_linear_svm,
}
