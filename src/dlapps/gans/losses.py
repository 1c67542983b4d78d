"""The losses of GANs, and the step that trains all of ours (Goodfellow et al., 2014)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
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


def discriminator_loss(D_x: Tensor, D_fake: Tensor, loss: str = "non-saturating") -> Tensor:
    """Return the loss of D, whose logits of real and generated images are `D_x` and `D_fake`.

        L_D = -E[log D(x)] - E[log(1 - D(G(z)))], D = sigmoid(logit)

    (Goodfellow et al., 2014, eq. 1), also if "saturating". With "hinge" it is
    E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] of the logits themselves (Miyato et al., "Spectral
    normalization", ICLR 2018, eq. 17).
    """
    if loss == "hinge":
        return F.relu(1 - D_x).mean() + F.relu(1 + D_fake).mean()
    return F.softplus(-D_x).mean() + F.softplus(D_fake).mean()


def generator_loss(D_fake: Tensor, loss: str = "non-saturating") -> Tensor:
    """Return the loss of G from D's logits of generated images.

        L_G = -E[log D(G(z))], or E[log(1 - D(G(z)))] if "saturating", D = sigmoid(logit).

    Both fall as D is fooled. The second, the true minimax objective, has a gradient that vanishes
    while D rejects every image (Goodfellow et al., 2014, section 3). With "hinge" it is -E[D(G(z))]
    of the logits.
    """
    if loss == "hinge":
        return -D_fake.mean()
    if loss == "saturating":
        return -F.softplus(D_fake).mean()
    return F.softplus(-D_fake).mean()


def gradient_penalty(D: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Return E[|dD(x)/dx|²] / 2 of the logits at real images (Mescheder et al., ICML 2018, eq. 9).

    Without it D may grow ever steeper at the data, and the training need not converge.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x, y).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


def gan_step(
    networks: Sequence, optimizers: Sequence, batches: Sequence, z: Sequence[Tensor], settings
) -> dict[str, Tensor]:
    """Update D on each of K batches, then G (Goodfellow et al., 2014, algorithm 1).

    `networks` and `optimizers` are those of G and D, in this order. A batch is a pair of real
    images x (N, C, H, W) in [0, 1] and labels y (N,) or None, which the generated images take too.
    z[k] is noise (N, latent): one for each update of D, of which the last also serves G's first,
    then one for each further update of G. settings.loss is the kind of both losses; settings.r1,
    unless 0, the weight of the `gradient_penalty` that is added to D's.
    Returns {name of RECORDED: of the last updates}.
    """
    (G, D), (optimizer_G, optimizer_D), K = networks, optimizers, len(batches)
    for k, (x, y) in enumerate(batches):
        with torch.set_grad_enabled(k == K - 1):  # the last one goes on to G
            fake = G(z[k], y)
        D_x, D_fake = D(x, y), D(fake.detach(), y)
        L_D = discriminator_loss(D_x, D_fake, settings.loss)
        if settings.r1:
            L_D = L_D + settings.r1 * gradient_penalty(D, x, y)
        steps.update(optimizer_D, L_D)
    for k in range(K - 1, len(z)):
        fake = G(z[k], y) if k >= K else fake
        L_G = generator_loss(D(fake, y), settings.loss)
        steps.update(optimizer_G, L_G, of=G)
    probabilities = [logits.sigmoid().mean() for logits in (D_x, D_fake)]
    gradients = [gradient_length(network) for network in (D, G)]
    spread = fake.detach().std(0, correction=0).mean()
    return dict(zip(RECORDED, [L_D, L_G, *probabilities, *gradients, spread], strict=True))


def gradient_length(network: nn.Module) -> Tensor:
    """Return the Euclidean length of the gradients of all weights of a network."""
    return torch.stack([weight.grad.norm() for weight in network.parameters()]).norm()
