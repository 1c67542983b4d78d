"""Practical 2, a way out: a network trained on the images of an attack on itself."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps import supervised
from dlapps.checks import check_counts, check_uint8_images
from dlapps.visualization import white_box
from dlapps.visualization.attacks import scores_of


def worst(network: nn.Module, x: Tensor, y: Tensor, ε: float, attack_steps: int) -> Tensor:
    """Return images within ε of x (N, C, H, W) in each value, for which the loss is large.

        x' <- clip(x' + α sign(∇L(x')), x - ε, x + ε), α = 2.5 ε / attack_steps,

    from a random point on: `white_box.pgd` without its checks and its stop, for a training step.
    """
    low, high = (x - ε).clamp_min(0), (x + ε).clamp_max(1)
    changed = low + (high - low) * torch.rand_like(x)
    for _ in range(attack_steps):
        changed.requires_grad_()
        L = F.cross_entropy(network(changed), y)
        (g,) = torch.autograd.grad(L, changed)
        changed = (changed.detach() + 2.5 * ε / attack_steps * g.sign()).clamp(low, high)
    return changed


def train(
    network: nn.Module, images: Tensor, labels: Tensor, *, epsilon=0.0, attack_steps=3, epochs=10,
    batch_size=64, seed=0, checkpoint: str | Path | None = None,
) -> None:  # fmt: skip
    """Train a classifier in place on uint8 images (N, C, H, W), or on the worst images near them.

        min over the weights of E max over ||x' - x||_∞ <= ε of L(x', y);

    with `epsilon` 0, the ordinary min E L(x, y). Adam, whose rate of 0.002 falls to 0 along half a
    cosine. `checkpoint`: see `training.run`. Raises TypeError or ValueError for other images and
    counts, and for labels of another number.

    Madry et al.: "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, eq. 1.
    """
    check_uint8_images(images)
    check_counts(attack_steps=attack_steps, epochs=epochs, batch_size=batch_size)

    def worst_near(x, y):
        return worst(network, x, y, epsilon, attack_steps)

    supervised.train(
        network, images, labels, epochs=epochs, batch_size=batch_size, seed=seed,
        change=worst_near if epsilon else None, checkpoint=checkpoint,
        made_from=[epsilon, attack_steps, train], description=f"ε = {epsilon:g}, seed {seed},",
    )  # fmt: skip
    network.eval()


def in_colour(images: Tensor) -> Tensor:
    """Return grey images (N, 1, H, W) with three equal channels, as attacks take them."""
    return images.expand(-1, 3, -1, -1).contiguous()


def accuracy_under_attack(
    network: nn.Module, images: Tensor, labels: Tensor, epsilons, attack=white_box.pgd, **options
) -> list[float]:
    """Return the share of images (N, 3, H, W) in [0, 1] that stay right, for each size of change.

    attack: called with `epsilon` and `options`; a size of 0 asks for the images as they are.
    """
    shares = []
    for ε in epsilons:
        if ε:
            found = attack(network, images, labels, epsilon=ε, **options)
            right = ~found.success
        else:
            right = scores_of(network, images).argmax(1) == labels.to(images.device)
        shares.append(right.double().mean().item())
    return shares


def trained_networks(
    make, images: Tensor, labels: Tensor, epsilons: dict[str, float], seeds, checkpoint: Path,
    **options,
) -> dict[str, list[nn.Module]]:  # fmt: skip
    """Return {title: a network of `make()` per seed}, each trained with its own ε.

    Networks of one seed begin with the same weights. `checkpoint` names the file of each training
    but for its ending.
    """
    found = {}
    for title, epsilon in epsilons.items():
        found[title] = []
        for seed in seeds:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                network = make()
            path = checkpoint.with_name(f"{checkpoint.stem}-{epsilon:g}-{seed}.pt")
            train(network, images, labels, epsilon=epsilon, seed=seed, checkpoint=path, **options)
            found[title].append(network)
    return found
