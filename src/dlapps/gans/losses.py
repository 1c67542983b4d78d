"""The losses of GANs, and the step that trains all of ours (Goodfellow et al., 2014)."""

import torch
from torch.nn import functional as F

from dlapps import steps

RECORDED = (
    "discriminator_loss",
    "generator_loss",
    "d_real",
    "d_fake",
    "discriminator_gradient",
    "generator_gradient",
    "spread",
)
LOSSES = "non-saturating", "saturating", "hinge"


def discriminator_loss(real_logits, fake_logits, loss="non-saturating"):
    """Return -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al., 2014, eq. 1), D = sigmoid.

    With "hinge" E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] of the logits themselves (Miyato et
    al., "Spectral normalization", ICLR 2018, eq. 17).
    """
    if loss == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits, loss="non-saturating"):
    """Return -E[log D(G(z))]; E[log(1 - D(G(z)))] of the same equation 1 if "saturating".

    Both fall as D is fooled. The second, the true minimax objective, has a gradient that vanishes
    while D rejects every image (Goodfellow et al., 2014, section 3). With "hinge" -E[D(G(z))] of
    the logits.
    """
    if loss == "hinge":
        return -fake_logits.mean()
    return (
        -F.softplus(fake_logits).mean() if loss == "saturating" else F.softplus(-fake_logits).mean()
    )


def gradient_penalty(discriminator, real, labels=None):
    """Return E[|dD(x)/dx|²] / 2 of the logits at real images (Mescheder et al., ICML 2018, eq. 9).

    Without it D may grow ever steeper at the data, and the training need not converge.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real, labels).sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


def gan_step(networks, optimizers, batches, noises, settings):
    """Update D on each of `batches`, then G (Goodfellow et al., 2014, algorithm 1).

    `networks` and `optimizers` are those of G and D, in this order. A batch is a pair of real
    images x (N, C, H, W) in [0, 1] and labels y (N,) or None, which the generated images take too.
    `noises` are z (N, latent): one for each update of D, of which the last also serves G's first,
    then one for each further update of G. Returns {name of RECORDED: of the last updates}.
    """
    (G, D), (optimizer_G, optimizer_D) = networks, optimizers
    for k, (x, y) in enumerate(batches, start=1):
        with torch.set_grad_enabled(k == len(batches)):
            fake = G(noises[k - 1], y)
        D_x, D_fake = D(x, y), D(fake.detach(), y)
        L_D = discriminator_loss(D_x, D_fake, settings.loss)
        if settings.r1:
            L_D = L_D + settings.r1 * gradient_penalty(D, x, y)
        steps.update(optimizer_D, L_D)
    for z in (None, *noises[len(batches) :]):
        fake = fake if z is None else G(z, y)
        L_G = generator_loss(D(fake, y), settings.loss)
        steps.update(optimizer_G, L_G, of=G)
    gradients = [gradient_length(network) for network in (D, G)]
    spread = fake.detach().std(0, correction=0).mean()
    found = [L_D, L_G, D_x.sigmoid().mean(), D_fake.sigmoid().mean(), *gradients, spread]
    return dict(zip(RECORDED, found, strict=True))


def gradient_length(network):
    """Return the Euclidean length of the gradients of all weights of a network."""
    return torch.stack([weight.grad.norm() for weight in network.parameters()]).norm()
