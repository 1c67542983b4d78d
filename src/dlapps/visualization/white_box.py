"""Practical 2, attacks that know the network: they follow gradients. See `attacks` for their form.

`fool` is the practical's rule, whose result also holds the probabilities on the way.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlapps import runtime
from dlapps.checks import check_counts
from dlapps.models.gradients import in_batches, score_gradients, unit
from dlapps.steps import cosine
from dlapps.visualization.attacks import (
    Attack,
    AttackResult,
    Shortest,
    closest,
    margins_of,
    rounded,
)


@dataclass(frozen=True)
class FoolingResult(AttackResult):
    """What `fool` made of N images in at most T steps, all on the images' device.

    confidences: (T + 1, N, 2), after each step the probability of the class that was predicted at
    first, and of the target. Once an image is done its values stay.
    """

    confidences: torch.Tensor

    @property
    def steps(self) -> Tensor:
        """How many steps each image took, (N,): the last gradient finds the target predicted."""
        return self.gradients - 1


def fooling_step(x: Tensor, g: Tensor, η: float) -> Tensor:
    """Return x <- clip(x + η g / ||g||_2) for images x (N, 3, H, W) in [0, 1], clipped to [0, 1].

    g (N, 3, H, W) is the gradient of each image's target score; η is the Euclidean length of the
    step over all pixels and channels of an image, on the [0, 1] scale. A gradient of zeros leaves
    its image as it is.
    """
    return (x + η * unit(g)).clamp(0, 1)


@runtime.keep_freed_memory()
def fool(
    network: nn.Module, images: Tensor, targets: Tensor, step=0.05, max_steps=500, *, targeted=True,
    levels=None,
) -> FoolingResult:  # fmt: skip
    """Walk up the target's score by `fooling_step`, of length `step`, until it is predicted.

    Each image stops by itself and is then left out of the batch.

    images: float (N, 3, H, W) in [0, 1]; targets: integers (N,), another class than the predicted
    one; network: in eval mode, class scores (N, K) from images in [0, 1]; targeted: True, the rule
    knows no other goal. levels: the network sees each image rounded to so many levels, and the
    climb goes on until the rounded image is classified as the target; with 256, what is returned
    can be saved without loss. Raises as `pgd` does, and for a number of steps that is not positive.

    A targeted adversarial example (Szegedy et al.: "Intriguing Properties of Neural Networks", ICLR
    2014) by plain ascent with steps of one length, the "fooling image" of Stanford's CS231n.
    """
    if not targeted:
        raise ValueError("targeted is False, expected True: the rule climbs the score of a target")
    check_counts(max_steps=max_steps)
    attack = Attack(network, images, targets, True, name="targets", step=step)
    x, j = attack.images, attack.labels
    seen = x.clone()  # what the network sees of x
    classes = torch.stack((attack.predicted, j), dim=1)
    confidences, history = attack.scores.softmax(1).gather(1, classes), []
    with runtime.progress(None, "images fooled", total=len(x)) as bar:
        for number in range(max_steps + 1):
            active = attack.active
            seen[active] = rounded(x[active], levels)
            scores, g = score_gradients(network, seen[active], j[active])
            attack.gradients[active] += 1
            attack.mark(scores, active)
            confidences = confidences.clone()
            confidences[active] = scores.softmax(1).gather(1, classes[active])
            history.append(confidences)
            failing = ~attack.success[active]
            bar.update(int((~failing).sum()))
            if number == max_steps or not failing.any():
                break
            x[active[failing]] = fooling_step(x[active[failing]], g[failing], step)
    counts = attack.gradients, attack.queries
    return FoolingResult(seen, attack.success, *counts, torch.stack(history))


def fgsm(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, epsilon=8 / 255
) -> AttackResult:
    """Change each value by ε in the direction that the loss asks for, in one step.

        x' = clip(x + ε sign(∇_x L)), L the cross-entropy (minus it, if targeted).

    images: float (N, 3, H, W) in [0, 1]; labels: integers (N,). Returns an `AttackResult` of x',
    which counts one gradient and, to see whether x' succeeds, one query.

    Goodfellow, Shlens, Szegedy: "Explaining and Harnessing Adversarial Examples", ICLR 2015,
    section 4. Raises as `pgd` does.
    """
    attack = Attack(network, images, labels, targeted, epsilon=epsilon)
    x, ε = attack.images, epsilon
    _, g = attack.loss_gradients(x)
    x = (x + ε * g.sign()).clamp(0, 1)
    attack.ask(x)
    return attack.result(x)


@runtime.keep_freed_memory()
def pgd(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, norm="linf",
    epsilon=8 / 255, steps=40, step=None, seed=0, to_the_end=False,
) -> AttackResult:  # fmt: skip
    """Climb the loss L by steps within a ball of radius ε around each image x.

        x' <- Π(x' + α sign(∇L(x'))), by ∇L / ||∇L||_2 in the l2 norm, Π the nearest point of the
        ball in [0, 1].

    norm: "linf" or "l2". step: α, by default 2.5 epsilon / steps. It begins at a random point of
    the ball, which `seed` decides on. An image stops at the first step that reaches the goal;
    `to_the_end` lets it take all steps, so that L is as large as they make it.
    Raises TypeError or ValueError for other images and labels, a target that is predicted already,
    settings that are not positive and another norm.

    Madry et al.: "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, eq. 3.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm is {norm!r}, expected 'linf' or 'l2'")
    check_counts(steps=steps)
    step = 2.5 * epsilon / steps if step is None else step
    attack = Attack(network, images, labels, targeted, epsilon=epsilon, step=step)
    x, ε, α = attack.images, epsilon, step
    changed = (x + _random_point(x, norm, ε, seed)).clamp(0, 1)
    everyone = torch.arange(len(x), device=x.device)
    for number in runtime.progress(range(steps + 1), "PGD"):
        active = everyone if to_the_end else attack.active
        _, g = attack.loss_gradients(changed[active], active)
        if not to_the_end:
            failing = ~attack.success[active]
            active, g = active[failing], g[failing]
        if number == steps or not len(active):
            break
        direction = g.sign() if norm == "linf" else unit(g)
        change = changed[active] + α * direction - x[active]
        change = change.clamp(-ε, ε) if norm == "linf" else _shorten(change, ε)
        changed[active] = (x[active] + change).clamp(0, 1)
    return attack.result(changed)


def _random_point(x, norm, ε, seed):
    """Return a change drawn uniformly from the ball of radius ε, the same for each image."""
    generator = torch.Generator().manual_seed(seed)
    shape = 1, *x.shape[1:]
    if norm == "linf":
        return (ε * (2 * torch.rand(shape, generator=generator) - 1)).to(x)
    change = ε * unit(torch.randn(shape, generator=generator))
    return (change * torch.rand(1, generator=generator) ** (1 / change.numel())).to(x)


@runtime.keep_freed_memory()
def carlini_wagner(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, constant=1.0, steps=100,
    learning_rate=0.01, searches=1,
) -> AttackResult:  # fmt: skip
    """Minimise the squared length of the change plus c times a loss of the scores.

        ||x' - x||² + c max(0, Z), x' = (tanh(w) + 1) / 2,

    with Z the margin by which the goal is missed: the largest score of another class minus the
    target's, or, untargeted, the label's score minus the largest other. c is `constant` at first.
    `searches` times Adam changes w for `steps` steps, from the image on; between them the search
    makes c ten times larger, until the goal is reached, then halves the interval in which it lies,
    for each image. The shortest change that reached the goal is kept; an image takes
    `searches` x `steps` gradients. Raises as `pgd` does.

    Carlini, Wagner: "Towards Evaluating the Robustness of Neural Networks", IEEE S&P 2017, sections
    V-A and VI-A. The paper takes 20 searches of 10,000 steps each.
    """
    check_counts(steps=steps, searches=searches)
    options = {"constant": constant, "learning_rate": learning_rate}
    attack = Attack(network, images, labels, targeted, **options)
    best = Shortest(attack.images)
    c = torch.full((len(attack.images),), float(constant)).to(attack.images)
    low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
    for _ in runtime.progress(range(searches), "Carlini-Wagner"):
        reached = _descend(attack, c, steps, learning_rate, best)
        low, high = torch.where(reached, low, c), torch.where(reached, c, high)
        c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
    return closest(attack, best, searches * steps)


def _descend(attack, c, steps, learning_rate, best):
    """Minimise the loss of Carlini and Wagner; return which images reached the goal on the way."""
    # 1 - 2e-7 is the largest float32 number whose artanh is finite and well apart from 1.
    w = torch.atanh((2 * attack.images - 1).clamp(-1 + 2e-7, 1 - 2e-7)).requires_grad_()
    optimizer = torch.optim.Adam([w], learning_rate)
    reached = torch.zeros_like(attack.success)

    def gradients_of_part(w, x, labels, c):
        with torch.enable_grad():
            changed = ((w.requires_grad_().tanh() + 1) / 2).clamp(0, 1)
            scores = attack.network(changed)
            Z = margins_of(scores, labels) * (-1 if attack.targeted else 1)
            loss = (changed - x).square().sum() + (c * Z.clamp_min(0)).sum()
            return changed.detach(), scores.detach(), *torch.autograd.grad(loss, w)

    for _ in range(steps):
        given = w, attack.images, attack.labels, c
        changed, scores, w.grad = in_batches(gradients_of_part, *given)
        attack.mark(scores)
        best.keep(changed, attack.success)
        reached |= attack.success
        optimizer.step()
    return reached


@runtime.keep_freed_memory()
def ddn(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, steps=100, radius=1.0,
    gamma=0.05, levels=None,
) -> AttackResult:  # fmt: skip
    """Look for the shortest change that reaches the goal, by decoupling direction and norm (DDN).

        δ <- δ + α ∇L / ||∇L||_2;  ε <- (1 - γ) ε if x' reaches the goal, else (1 + γ) ε;
        δ <- ε δ / ||δ||_2, x' = clip(x + δ),

    for `steps` steps, ε from `radius` on, α from 1 to 0.01 along half a cosine. The shortest change
    that reached the goal is kept. levels: round the images to so many levels in each step, 256 for
    images that can be saved, so that rounding cannot undo the attack.
    Raises as `pgd` does.

    Rony et al.: "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks
    and Defenses", CVPR 2019, algorithm 1.
    """
    check_counts(steps=steps)
    attack = Attack(network, images, labels, targeted, radius=radius, gamma=gamma)
    x, γ = attack.images, gamma
    δ, ε = torch.zeros_like(x), torch.full((len(x), 1, 1, 1), radius).to(x)
    best = Shortest(x)
    for k in runtime.progress(range(steps), "DDN"):
        changed = (x + δ).clamp(0, 1)
        _, g = attack.loss_gradients(changed)
        best.keep(changed, attack.success)
        α = 0.01 + cosine(k, steps, 0.99)
        δ = δ + α * unit(g)
        ε *= torch.where(attack.success, 1 - γ, 1 + γ).to(ε).view(-1, 1, 1, 1)
        δ = rounded(x + ε * unit(δ), levels) - x
    return closest(attack, best, steps)


def _shorten(change, length):
    norms = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
    return change * (length / norms).clamp(max=1).view(-1, 1, 1, 1)
