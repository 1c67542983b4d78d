"""Checks of practical 2: each is given a student's function f of the same name."""

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from dlapps.student.comparison import NotYet, compare
from dlapps.student.inputs import normal, numbers, tensor, uniform

LABELS = tensor([2, 0, 1, 2])
SAME = (
    "`targeted` is ignored or turned round: the labels are the goal if targeted, else to be left."
)


class Quadratic(nn.Module):
    """Scores s_k(x) = <a_k, x> + <b_k, x²> / 2 of three classes, whose gradient is a_k + b_k x."""

    def __init__(self):
        super().__init__()
        self.a, self.b = normal(3, 3, 4, 5, seed=1), normal(3, 3, 4, 5, seed=2)

    def forward(self, x):
        linear = torch.einsum("kchw,nchw->nk", self.a, x)
        return linear + torch.einsum("kchw,nchw->nk", self.b, x**2) / 2

    def gradients(self, x):
        """Return the scores (N, K) and their gradients (N, K, 3, H, W) in NumPy."""
        a, b, x = map(numbers, (self.a, self.b, x))
        scores = np.einsum("kchw,nchw->nk", a, x) + np.einsum("kchw,nchw->nk", b, x**2) / 2
        return scores, a + b * x[:, None]


def along(d, axis=(1, 2, 3)):
    """Return d divided by its Euclidean length over some axes; zeros stay zeros."""
    length = np.sqrt(np.square(d).sum(axis, keepdims=True))
    return d / np.where(length, length, 1)


def wrong_lengths(d):
    """Return {a sentence: d, normalised as it should not be}."""
    return {
        "The direction is not normalised: divide it by its length.": d,
        "The length is that of the whole batch: each image has its own.": along(d, None),
        "The length is that of each pixel: take it over all of an image.": along(d, 1),
        "The length is that of each channel: take it over all of an image.": along(d, (2, 3)),
        "It is the sign of the direction: divide it by its length instead.": np.sign(d),
        "It goes down: the score shall grow.": -along(d),
    }


def zero_stays(found):
    """Return what a step gives; raise `NotYet` if a last direction of zeros has made it NaN."""
    if isinstance(found, torch.Tensor) and found[-1].isnan().any() and found[0].isfinite().all():
        raise NotYet("a direction of zeros gives NaN, 0 / 0. It leaves its image as it is.")
    return found


def gradient(f):
    network, x = Quadratic(), uniform(4, 3, 4, 5)
    scores, all_g = network.gradients(x)
    rows, y = np.arange(4), numbers(LABELS).astype(int)
    p, g, of_predicted = softmax(scores, 1), all_g[rows, y], all_g[rows, scores.argmax(1)]
    of_log = g - np.einsum("nk,nkchw->nchw", p, all_g)
    of_p = p[rows, y].reshape(4, 1, 1, 1) * of_log
    right = np.abs(g).max(1)
    mistakes = {
        "The absolute value is missing.": g.max(1),
        "The absolute value comes first, then the maximum.": np.abs(g.max(1)),
        "It is the sum over the channels: the maximum is asked for.": np.abs(g).sum(1),
        "It is the mean over the channels: the maximum is asked for.": np.abs(g).mean(1),
        "It is the minimum over the channels: the maximum is asked for.": np.abs(g).min(1),
        "It is divided by the batch size: differentiate the scores' sum.": right / 4,
        "It is that of all scores: take the label's alone.": np.abs(all_g.sum(1)).max(1),
        "It is that of the predicted class, not the label's.": np.abs(of_predicted).max(1),
        "It is that of log p: the score itself is asked for.": np.abs(of_log).max(1),
        "It is that of a probability: leave out the softmax.": np.abs(of_p).max(1),
        "It is divided by its maximum.": right / right.max(),
        "Each map is divided by its maximum.": right / right.max((1, 2), keepdims=True),
    }
    compare(f(network, x, LABELS), tensor(right).float(), "the gradient of the score", mistakes)


def is_adversarial(f):
    predictions, labels = tensor([0, 1, 2, 1]), tensor([0, 2, 2, 0])
    same = tensor([True, False, True, False])
    compare(f(predictions, labels), ~same, "the answer without `targeted`", {SAME: same})
    for targeted, right in ((False, ~same), (True, same)):
        found = f(predictions, labels, targeted=targeted)
        compare(found, right, f"the answer with targeted={targeted}", {SAME: ~right})


def fooling_step(f):
    x, g, η = uniform(4, 3, 4, 5), 0.3 * normal(4, 3, 4, 5), 2.0
    g[-1] = 0
    X, G = numbers(x), numbers(g)

    def after(direction):
        return np.clip(X + η * direction, 0, 1)

    mistakes = {sentence: after(d) for sentence, d in wrong_lengths(G).items()}
    mistakes |= {
        "It is not clipped to [0, 1].": X + η * along(G),
        "η is missing.": after(along(G) / η),
    }
    found = zero_stays(f(x, g, η))
    compare(found, tensor(after(along(G))).float(), "the image after a step", mistakes)


def fgsm(f):
    network, ε, x = Quadratic(), 0.2, uniform(4, 3, 4, 5)
    scores, all_g = network.gradients(x)
    for targeted, rank, sign in ((False, 2, 1), (True, 0, -1)):
        y, X, case = scores.argsort(1)[:, rank], numbers(x), f"with targeted={targeted}"
        g = sign * np.einsum("nk,nkchw->nchw", softmax(scores, 1) - np.eye(3)[y], all_g)
        of_score = -sign * all_g[np.arange(4), y]
        directions = {
            "It goes the wrong way: a sign is wrong, or `targeted` is ignored.": -np.sign(g),
            "The sign of the gradient is missing: each value changes by ε.": g,
            "It is divided by its length: take its sign.": along(g),
            "It follows the score: L is the cross-entropy.": np.sign(of_score),
            "It is the image itself.": 0,
        }
        mistakes = {text: np.clip(X + ε * d, 0, 1) for text, d in directions.items()}
        mistakes["It is not clipped to [0, 1]."] = X + ε * np.sign(g)
        mistakes["It is the change alone: add it to the image."] = ε * np.sign(g)
        found = f(network, x, tensor(y), targeted=targeted, epsilon=ε)
        if not all(hasattr(found, name) for name in ("images", "success", "gradients", "queries")):
            raise NotYet("expected an `AttackResult` to be returned, such as attack.result(x).")
        right = np.clip(X + ε * np.sign(g), 0, 1)
        compare(found.images, tensor(right).float(), f"the image {case}", mistakes)
        predicted = network.gradients(tensor(right))[0].argmax(1)
        reached = tensor(predicted == y if targeted else predicted != y)
        compare(found.success, reached, f"`success` {case}, by the scores of the new image")
        for name in ("gradients", "queries"):
            compare(getattr(found, name), torch.ones_like(LABELS), f"`{name}`, 1 for each image")


def ascent_step(f):
    z, g, η, λ = normal(4, 3, 4, 5), normal(4, 3, 4, 5, seed=1), 2.0, 0.4
    z[-1], g[-1] = 0, 0
    Z, G = numbers(z), numbers(g)
    d = G - 2 * λ * Z
    right = Z + η * along(d)
    mistakes = {sentence: Z + η * wrong for sentence, wrong in wrong_lengths(d).items()}
    mistakes |= {
        "The 2 of the penalty's gradient is missing.": Z + η * along(G - λ * Z),
        "The penalty has the wrong sign: d = g - 2 λ z.": Z + η * along(G + 2 * λ * Z),
        "The penalty is missing: d = g - 2 λ z.": Z + η * along(G),
        "The penalty is a part of d, which is then normalised.": Z + η * (along(G) - 2 * λ * Z),
        "z is in normalised space: it is not clipped to [0, 1].": np.clip(right, 0, 1),
        "It is the change alone: add it to z.": right - Z,
        "η is missing.": Z + along(d),
    }
    compare(zero_stays(f(z, g, η, λ)), tensor(right).float(), "z after a step", mistakes)


CHECKS = {
    "dlapps.visualization.saliency.gradient": gradient,
    "dlapps.visualization.attacks.is_adversarial": is_adversarial,
    "dlapps.visualization.white_box.fooling_step": fooling_step,
    "dlapps.visualization.white_box.fgsm": fgsm,
    "dlapps.visualization.class_images.ascent_step": ascent_step,
}
