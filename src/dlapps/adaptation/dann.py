"""Domain-adversarial training: the schedule, the losses and the step (Ganin et al., 2016)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from dlapps import steps
from dlapps.adaptation.batch_norm import frozen_averages
from dlapps.models.dann import DANN


def reversal_schedule(p: float) -> float:
    """Return λ(p) = 2 / (1 + exp(-10 p)) - 1 for the share p of the training done, in [0, 1].

    The factor of gradient reversal grows from 0 to 1, so that the features first learn the digits
    (Ganin et al., JMLR 2016, section 5.2.2).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}, expected a share in [0, 1]")
    return 2 / (1 + math.exp(-10 * p)) - 1


def adversarial_loss(
    network: DANN, f_s: Tensor, f_t: Tensor, λ: float | Tensor, joint: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the domain loss behind gradient reversal (nats), and the domain classifier's accuracy.

        L_d = mean of -log(1 - σ(s_s)) + mean of -log σ(s_t),    s = G_d(R_λ(f)),

    for the features f_s and f_t (N, D) of source and target and the scores s of "target": 2 log 2 =
    1.386 at chance. Its gradient reaches the features multiplied by -λ (Ganin et al., JMLR 2016,
    eq. 9). Each domain is a batch of its own for the domain classifier, or both are one if `joint`.
    """
    s_s, s_t = _domain_scores(network, f_s, f_t, λ, joint)
    L_d = F.softplus(s_s).mean() + F.softplus(-s_t).mean()
    accuracy = ((s_s < 0).float().mean() + (s_t > 0).float().mean()) / 2
    return L_d, accuracy


def _domain_scores(network, f_s, f_t, λ, joint):
    if joint:
        both = network.domain_logits(torch.cat([f_s, f_t]), λ)
        return both.split([len(f_s), len(f_t)])
    return network.domain_logits(f_s, λ), network.domain_logits(f_t, λ)


def features_of_both(
    network: DANN, x_s: Tensor, x_t: Tensor, joint: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the features of source and target, each by the statistics of its own batch.

    Those of the target do not enter batch norm's averages. If `joint`, both are one batch.
    """
    if joint:
        both = torch.cat([x.expand(-1, 3, -1, -1) for x in (x_s, x_t)])
        return network.features(both).split([len(x_s), len(x_t)])
    f_s = network.features(x_s)
    with frozen_averages(network):
        return f_s, network.features(x_t)


def dann_step(
    network: DANN,
    optimizer: Optimizer,
    x_s: Tensor,
    y_s: Tensor,
    x_t: Tensor,
    λ: float | Tensor,
    joint: bool = False,
) -> dict[str, Tensor]:
    """Update a `DANN` on images x_s with labels y_s, and x_t without (Ganin et al., 2016, eq. 9).

        L = L_y + L_d,    L_y = CE(G_y(f_s), y_s),    f = G_f(x),

    with L_d the `adversarial_loss` of f_s and f_t: G_f climbs λ L_d while G_d descends L_d.
    Returns `label_loss`, `domain_loss` (nats) and `domain_accuracy`.
    """
    f_s, f_t = features_of_both(network, x_s, x_t, joint)
    L_y = F.cross_entropy(network.label_classifier(f_s), y_s)
    L_d, accuracy = adversarial_loss(network, f_s, f_t, λ, joint)
    steps.update(optimizer, L_y + L_d)
    return {"label_loss": L_y, "domain_loss": L_d, "domain_accuracy": accuracy}
