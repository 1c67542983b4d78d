"""Domain-adversarial training: the schedule, the losses and the step (Ganin et al., 2016)."""

import math

import torch
from torch.nn import functional as F

from dlapps import steps
from dlapps.adaptation.batch_norm import frozen_averages


def reversal_schedule(progress):
    """Return 2 / (1 + exp(-10 p)) - 1 for the share p of the training done, in [0, 1].

    The factor of gradient reversal grows from 0 to 1, so that the features first learn the digits
    (Ganin et al., JMLR 2016, section 5.2.2).
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is {progress}, expected a share in [0, 1]")
    return 2 / (1 + math.exp(-10 * progress)) - 1


def adversarial_loss(network, source_features, target_features, factor, joint=False):
    """Return the domain loss behind gradient reversal (nats), and the domain classifier's accuracy.

    Each domain passes the domain classifier as a batch of its own, or both as one if `joint`. The
    loss is the sum over both domains: 2 log 2 = 1.386 at chance. Its gradient reaches the features
    (N, D) multiplied by -factor (Ganin et al., JMLR 2016, eq. 9).
    """
    if joint:
        logits = network.domain_logits(torch.cat([source_features, target_features]), factor)
        source_logits, target_logits = logits.split([len(source_features), len(target_features)])
    else:
        source_logits = network.domain_logits(source_features, factor)
        target_logits = network.domain_logits(target_features, factor)
    loss = F.softplus(source_logits).mean() + F.softplus(-target_logits).mean()
    with torch.no_grad():
        accuracy = ((source_logits < 0).float().mean() + (target_logits > 0).float().mean()) / 2
    return loss, accuracy


def features_of_both(network, x_s, x_t, joint):
    """Return the features of source and target, each by the statistics of its own batch.

    Those of the target do not enter batch norm's averages. If `joint`, both are one batch.
    """
    if joint:
        both = torch.cat([x.expand(-1, 3, -1, -1) for x in (x_s, x_t)])
        return network.features(both).split([len(x_s), len(x_t)])
    f_s = network.features(x_s)
    with frozen_averages(network):
        return f_s, network.features(x_t)


def dann_step(network, optimizer, x_s, y_s, x_t, λ, joint=False):
    """Update a `DANN` on images x_s with labels y_s, and x_t without (Ganin et al., 2016, eq. 9).

        L = L_y(G_y(f_s), y_s) + L_d(G_d(R_λ(f_s)), 0) + L_d(G_d(R_λ(f_t)), 1),  f = G_f(x),

    with R_λ the reversal of the gradient: G_f climbs λ L_d while G_d descends L_d.
    """
    f_s, f_t = features_of_both(network, x_s, x_t, joint)
    L_y = F.cross_entropy(network.label_classifier(f_s), y_s)
    L_d, right = adversarial_loss(network, f_s, f_t, λ, joint)
    steps.update(optimizer, L_y + L_d)
    return {"label_loss": L_y, "domain_loss": L_d, "domain_accuracy": right}
