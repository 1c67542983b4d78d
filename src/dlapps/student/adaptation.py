"""Checks of practical 3: each is given a student's function f of the same name."""

import math

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from torch.nn import functional as F

from dlapps.student.comparison import NotYet, compare, compare_all, parts
from dlapps.student.inputs import linear, normal, numbers, tensor, uniform


def gradient_reversal(cls):
    g = normal(4, 3, seed=1)
    for factor in (0.5, tensor(3.0)):
        x = normal(4, 3).requires_grad_()
        y = cls.apply(x, factor)
        compare(y, x, "what comes out", {"The factor is the gradient's alone.": factor * x})
        y.backward(g)
        if x.grad is None:
            raise NotYet("no gradient passes. `backward` has to return it first, then None.")
        mistakes = {
            "The minus sign is missing.": factor * g,
            "It passes unchanged: neither the minus sign nor the factor is there.": g,
            "The factor is missing.": -g,
            "The factor is squared: it counts in one place only.": -(factor**2) * g,
        }
        what = f"the gradient that passes, with factor {float(factor)}"
        compare(x.grad, -factor * g, what, mistakes)


def reversal_schedule(f):
    for p in (0.0, 0.05, 0.3, 1.0):
        right = math.tanh(5 * p)  # the same function
        mistakes = {
            "It runs from 1 to 2: the -1 is missing.": right + 1,
            "It is the sigmoid, from 0.5 to 1: double it and subtract 1.": (right + 1) / 2,
            "It is not doubled: 2 / (1 + exp(-10 p)) - 1.": (right - 1) / 2,
            "It falls: the minus sign in exp(-10 p) is missing.": -right,
            "The 10 in exp(-10 p) is missing.": math.tanh(p / 2),
        }
        compare(f(p), right, f"the factor at p = {p}", mistakes)


class Toy(nn.Module):
    """A DANN of three linear layers, whose domain classifier sees the mean of its batch as well."""

    def __init__(self):
        super().__init__()
        self.feature_extractor = linear(12, 4, seed=1)
        self.label_classifier = linear(4, 3, seed=3)
        self.domain_classifier = linear(4, 1, seed=5)

    def features(self, images):
        return self.feature_extractor(images.flatten(1))

    def domain_logits(self, features, factor):
        back = (1 + factor) * features.detach() - factor * features  # its value is the features'
        return self.domain_classifier(back - 0.5 * back.mean(0)).squeeze(1)


def logits_of(network, f_s, f_t, factor, joint):
    """Return the domain logits of both domains, as one batch or as two."""
    if not joint:
        return network.domain_logits(f_s, factor), network.domain_logits(f_t, factor)
    both = network.domain_logits(torch.cat([f_s, f_t]), factor)
    return both[: len(f_s)], both[len(f_s) :]


def cross_entropies(l_s, l_t):
    """Return the domain losses of source and target, one number per row."""
    loss = F.binary_cross_entropy_with_logits
    zeros, ones = torch.zeros_like(l_s), torch.ones_like(l_t)
    return loss(l_s, zeros, reduction="none"), loss(l_t, ones, reduction="none")


def total(losses):
    return sum(loss.mean() for loss in losses)


def share_right(l_s, l_t):
    return ((l_s < 0).float().mean() + (l_t > 0).float().mean()) / 2


def adversarial_loss(f):
    network, λ = Toy(), 0.3
    for joint, size in ((False, 1), (True, 1), (False, 1e3)):
        case = f"with joint={joint}" + " for scores of ±1,000" * (size > 1)
        f_s, f_t = ((size * normal(n, 4, seed=n)).requires_grad_() for n in (5, 3))
        L, accuracy = parts(f(network, f_s, f_t, λ, joint), 2, "the loss and the accuracy")
        l_s, l_t = logits_of(network, f_s, f_t, λ, joint)
        e_s, e_t = cross_entropies(l_s, l_t)
        right = e_s.mean() + e_t.mean()
        swapped = total(cross_entropies(-l_s, -l_t))
        twice = total(cross_entropies(l_s.sigmoid(), l_t.sigmoid()))
        other = total(cross_entropies(*logits_of(network, f_s, f_t, λ, not joint)))
        mistakes = {
            "The domains are swapped: source 0, target 1.": swapped,
            "It is half: the sum over both domains is asked for, not the mean.": right / 2,
            "It is the mean over all rows: add the domains' means.": torch.cat([e_s, e_t]).mean(),
            "It is a sum over the rows: the mean is asked for.": e_s.sum() + e_t.sum(),
            "The target is missing.": e_s.mean(),
            "The source is missing.": e_t.mean(),
            "It is multiplied by the factor: that belongs to the gradient alone.": λ * right,
            "The sign is wrong: reversal turns the gradient round, the loss stays.": -right,
            "The sigmoid is applied twice.": twice,
            "`joint` is ignored: it asks for one batch of both domains, otherwise two.": other,
        }
        compare(L, right, f"the loss {case}", mistakes)
        hits, rows = share_right(l_s, l_t), torch.cat([l_s < 0, l_t > 0]).float()
        mistakes = {
            "The domains are swapped: source 0, target 1.": 1 - hits,
            "It is that of all rows: take the mean of both domains' accuracies.": rows.mean(),
        }
        compare(accuracy, hits, f"the accuracy {case}", mistakes)
        if not L.requires_grad:
            raise NotYet("no gradient flows through the loss. Is something detached?")
        found = torch.autograd.grad(L, (f_s, f_t), allow_unused=True)
        wanted = torch.autograd.grad(right, (f_s, f_t))
        for name, mine, asked in zip(("source", "target"), found, wanted, strict=True):
            if mine is None:
                raise NotYet(f"no gradient reaches the {name} features. Are they detached?")
            mistakes = {
                "The minus sign of the reversal is missing, or there twice.": -asked,
                "The factor has to be passed on to `domain_logits`.": asked / λ,
                "It does not pass gradient reversal: use `domain_logits`.": -asked / λ,
                "The factor is squared.": λ * asked,
            }
            compare(mine, asked, f"the gradient at the {name} features {case}", mistakes)


def dann_step(f):
    λ, rate = 0.3, 0.1
    x_s, x_t, y_s = uniform(5, 3, 2, 2), uniform(4, 3, 2, 2, seed=1), tensor([0, 2, 1, 1, 0])
    for joint in (False, True):
        before, network = Toy(), Toy()
        optimizer = torch.optim.SGD(network.parameters(), rate)
        for weight in network.parameters():
            weight.grad = torch.ones_like(weight)  # as if a step had gone before
        found = f(network, optimizer, x_s, y_s, x_t, tensor(λ), joint)

        f_s, f_t = before.features(x_s), before.features(x_t)
        l_s, l_t = logits_of(before, f_s, f_t, -1, joint)  # -1: nothing is reversed
        L_y = F.cross_entropy(before.label_classifier(f_s), y_s)
        L_d = total(cross_entropies(l_s, l_t))
        factors = {"domain_classifier": 1, "label_classifier": 0, "feature_extractor": -λ}
        for name, own in factors.items():  # own: by what its gradient of L_d is multiplied
            old, new = (getattr(n, name).weight for n in (before, network))
            g_y, g_d = (
                torch.autograd.grad(L, old, retain_graph=True, materialize_grads=True)[0]
                for L in (L_y, L_d)
            )
            g_d = own * g_d
            mistakes = {
                "It has not moved: a loss, or the optimiser's step, is missing.": 0,
                "Old gradients are in it: optimizer.zero_grad() is missing.": g_y + g_d + 1,
                "It climbs its loss: the sign is wrong.": -g_y - g_d,
                "The minus sign of the reversal is missing.": g_y - g_d,
                "The domain loss does not reach it.": g_y,
                "The label loss does not reach it.": g_d,
                "λ multiplies L_d: it belongs to the reversal alone.": g_y + λ * g_d,
                "λ is missing in the reversal.": g_y + g_d / λ,
            }
            mistakes = {sentence: old - rate * g for sentence, g in mistakes.items()}
            what = f"the weight of {name} after a step with joint={joint}"
            compare(new, old - rate * (g_y + g_d), what, mistakes)
        hits = share_right(l_s, l_t)
        compare_all(found, {"label_loss": L_y, "domain_loss": L_d, "domain_accuracy": hits})


class Fixed(nn.Module):
    """Scores of three classes for images by their first pixel: the first image's are certain."""

    def __init__(self):
        super().__init__()
        scores = [[0.0, -1e4, -1e4], [0.0, 3.0, 0.0], [0.2, 0.1, 1.4], [0.3, 0.2, 0.1]]
        self.scores = nn.Parameter(tensor(scores))

    def forward(self, images):
        if self.training:
            raise NotYet("the network is in training mode, where dropout changes its scores.")
        return self.scores[(images[:, 0, 0, 0] * 255).round().long()]


def pseudo_labels(f):
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(4)
    scores = numbers(Fixed().scores)
    best, p, over_images = scores.argmax(1), softmax(scores, 1).max(1), softmax(scores, 0).max(1)
    for threshold in (0.9, 0.5, 1.0):
        sure = {
            "At least the threshold counts as sure: >=, not >.": p > threshold,
            "The threshold is ignored.": p > 0,
            "Sure and unsure are swapped.": p < threshold,
            "The scores are compared: the softmax is missing.": scores.max(1) >= threshold,
            "The softmax is over the images: it belongs over dim 1.": over_images >= threshold,
        }
        mistakes = {sentence: np.where(s, best, -1) for sentence, s in sure.items()}
        mistakes["Images that it is not sure of get -1."] = np.where(p >= threshold, best, 0)
        right = torch.as_tensor(np.where(p >= threshold, best, -1))
        found = f(Fixed(), images, threshold)
        compare(found, right, f"the labels for threshold {threshold}", mistakes)


def consistency_loss(f):
    scores, teacher = normal(6, 4), 2 * normal(6, 4, seed=1)
    s, t = numbers(scores), numbers(teacher)

    def losses(scores, teacher):
        return -log_softmax(scores, 1)[np.arange(6), teacher.argmax(1)]

    sure, sure_itself = (softmax(x, 1).max(1) >= 0.7 for x in (t, s))
    e, swapped, twice = losses(s, t), losses(t, s), losses(softmax(s, 1), t)
    soft = -(softmax(t, 1) * log_softmax(s, 1)).sum(1)
    L, share = parts(f(scores, teacher, 0.7), 2, "the loss and the share of rows that count")
    mistakes = {
        "It is the mean over the sure rows: take it over all N rows.": e[sure].mean(),
        "It is a sum: the mean over all N rows is asked for.": (e * sure).sum(),
        "All rows count: the confidence is ignored.": e.mean(),
        "The rows that the teacher is not sure of count.": (e * ~sure).mean(),
        "The teacher's confidence decides, not the scores' own.": (e * sure_itself).mean(),
        "Scores and the teacher's scores are swapped.": (swapped * sure_itself).mean(),
        "The softmax is applied twice: cross_entropy takes scores.": (twice * sure).mean(),
        "The label is the teacher's most probable class: argmax.": (soft * sure).mean(),
    }
    compare(L, tensor((e * sure).mean()).float(), "the loss", mistakes)
    mistakes = {"It is their number.": sure.sum(), "It is the others'.": (~sure).mean()}
    compare(share, tensor(sure.mean()).float(), "the share of rows that count", mistakes)


CHECKS = {
    "dlapps.models.dann.GradientReversal": gradient_reversal,
    "dlapps.adaptation.dann.reversal_schedule": reversal_schedule,
    "dlapps.adaptation.dann.adversarial_loss": adversarial_loss,
    "dlapps.adaptation.dann.dann_step": dann_step,
    "dlapps.adaptation.self_training.pseudo_labels": pseudo_labels,
    "dlapps.adaptation.teacher.consistency_loss": consistency_loss,
}
