"""Learning from labels that networks gave: an averaged teacher's, and pseudo-labels."""

import copy
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from dlapps import steps, views
from dlapps.adaptation.batch_norm import batch_norms, frozen_averages
from dlapps.adaptation.dann import adversarial_loss, features_of_both
from dlapps.adaptation.settings import Settings
from dlapps.models.dann import DANN


def consistency_loss(
    scores: Tensor, teacher_scores: Tensor, confidence: float
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of scores (N, K) to the labels that a teacher is sure of (nats).

        L_c = 1/N sum over n with max_k p_nk >= confidence of CE(scores_n, ŷ_n),

    with p the teacher's probabilities and ŷ_n = argmax_k p_nk. Also returned: the share of the rows
    that are accepted, which those in the sum are.

    The teacher has the running average of the student's weights (Tarvainen, Valpola: "Mean
    teachers", NeurIPS 2017; for domain adaptation French, Mackiewicz, Fisher: "Self-ensembling for
    visual domain adaptation", ICLR 2018). It sees the image itself and the student a view of it;
    a confidence decides which labels count (FixMatch, Sohn et al., NeurIPS 2020).
    """
    p, ŷ = teacher_scores.softmax(1).max(1)
    accepted = p >= confidence
    losses = F.cross_entropy(scores, ŷ, reduction="none")
    return (losses * accepted).mean(), accepted.float().mean()


def pseudo_label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of scores (N, K) to labels (N,), -1 for none (nats).

    The mean over the images that have a label, 0 if none has one (Lee, ICML workshop 2013, eq. 15).
    """
    total = F.cross_entropy(scores, labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)


def augment(images: Tensor, kind: str | None) -> Tensor:
    """Return a random view of each image (N, C, 28, 28) in [0, 1]; the images if `kind` is None.

    "shape": rotated, scaled and shifted (`views.random_affine`); "shape and colour": in other
    colours as well (`views.random_colours`).
    """
    if kind is None:
        return images
    images = views.random_affine(images)
    return views.random_colours(images) if kind == "shape and colour" else images


def self_training_step(
    network: DANN,
    optimizer: Optimizer,
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor | None],
    λ: float | Tensor | None,
    ω: float | Tensor | None,
    teacher: DANN | None,
    settings: Settings,
) -> dict[str, Tensor]:
    """Update a `DANN` on the source, and on labels of the target that networks gave.

        L = L_y + L_d + L_ŷ + ω L_c,

    with L_y and, unless λ is None, L_d as in `dann_step`, of views of the images; L_ŷ the
    `pseudo_label_loss` of labels ŷ_t, unless they are None; ω L_c the `consistency_loss` beside the
    teacher, if there is one: it sees the images themselves, and then follows (`steps.ema`). Its
    weight ω is 0 until the teacher's labels are worth something (`consistency_from`).
    """
    (x_s, y_s), (x_t, ŷ_t), joint = source, target, settings.joint
    seen = [augment(x, settings.augment) for x in (x_s, x_t)]
    f_s, f_t = features_of_both(network, *seen, joint)
    L = L_y = F.cross_entropy(network.label_classifier(f_s), y_s)
    found = {"label_loss": L_y}
    if λ is not None:
        L_d, accuracy = adversarial_loss(network, f_s, f_t, λ, joint)
        found |= {"domain_loss": L_d, "domain_accuracy": accuracy}
        L = L + L_d
    with nullcontext() if joint else frozen_averages(network):
        scores = network.label_classifier(f_t)
    if ŷ_t is not None:
        L = L + pseudo_label_loss(scores, ŷ_t)
    if teacher is not None:
        with torch.no_grad():
            teacher_scores = teacher(x_t)
        L_c, found["accepted"] = consistency_loss(scores, teacher_scores, settings.confidence)
        L = L + ω * L_c
    steps.update(optimizer, L)
    return found


def teacher_of(network: DANN) -> DANN:
    """Return a copy that normalises each batch by its own statistics, without dropout."""
    teacher = copy.deepcopy(network).requires_grad_(False).train()
    for norm in batch_norms(teacher):
        norm.track_running_stats = False
    for module in teacher.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
    return teacher
