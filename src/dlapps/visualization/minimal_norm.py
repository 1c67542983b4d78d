"""Practical 2, attacks for the shortest change that need few gradients. See `attacks`.

Each step costs an image one gradient, that of the margin Z by which the goal is missed: the largest
score of another class minus the target's, or, untargeted, the label's score minus the largest
other. Z < 0 where the goal is reached.
"""

import math

import torch
from torch import Tensor, nn

from dlapps import runtime
from dlapps.checks import check_counts
from dlapps.models.gradients import unit
from dlapps.steps import cosine
from dlapps.visualization.attacks import Attack, AttackResult, Shortest, closest, rounded


def _norms(δ):
    return δ.flatten(1).norm(dim=1)


def _dot(a, b):
    return (a * b).flatten(1).sum(1)


def _per_image(values):
    return values.view(-1, 1, 1, 1)


def _cosine(k, steps, first, last):
    """Return the value at step k of a fall from `first` to `last` along half a cosine."""
    return last + cosine(k, steps, first - last)


@runtime.keep_freed_memory()
def fmn(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, steps=100, alpha=1.0,
    gamma=0.05,
) -> AttackResult:  # fmt: skip
    """Look for the shortest change by the fast minimum-norm attack (FMN).

        ε <- min((1 - γ) ε, ||δ*||) if x' reaches the goal, else (1 + γ) ε, or, before it was ever
        reached, ||δ|| + Z / ||∇Z||_2, the distance of the boundary if Z were linear;
        δ <- δ - α ∇Z / ||∇Z||_2;  δ <- ε δ / ||δ||_2, x' = clip(x + δ),

    for `steps` steps, with δ* the shortest change so far, α from `alpha` to a hundredth and γ from
    `gamma` to a fiftieth along half a cosine. Raises as `white_box.pgd` does.

    Pintor, Roli, Brendel, Biggio: "Fast Minimum-norm Adversarial Attacks through Adaptive Norm
    Constraints", NeurIPS 2021, algorithm 1, in the l2 norm.
    """
    check_counts(steps=steps)
    attack = Attack(network, images, labels, targeted, alpha=alpha, gamma=gamma)
    x, best = attack.images, Shortest(attack.images)
    δ, ε = torch.zeros_like(x), torch.full((len(x),), math.inf).to(x)
    for k in runtime.progress(range(steps), "FMN"):
        Z, g = attack.margin_gradients(x + δ)
        best.keep(x + δ, attack.success)
        γ = _cosine(k, steps, gamma, gamma / 50)
        farther = torch.where(
            best.lengths.isfinite(), (1 + γ) * ε, _norms(δ) + Z.abs() / _norms(g).clamp_min(1e-12)
        )
        ε = torch.where(attack.success, torch.minimum((1 - γ) * ε, best.lengths), farther)
        δ = δ - _cosine(k, steps, alpha, alpha / 100) * unit(g)
        δ = (x + _per_image(ε) * unit(δ)).clamp(0, 1) - x
    return closest(attack, best, steps)


@runtime.keep_freed_memory()
def superdeepfool(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, steps=100,
    overshoot=0.02, searches=10,
) -> AttackResult:  # fmt: skip
    """Look for the shortest change by SuperDeepFool: to the boundary, then to its normal.

        x' <- x' - (1 + overshoot) Z ∇Z / ||∇Z||²   while the goal is missed (DeepFool);
        x' <- x + <x' - x, w> w / ||w||², w = ∇Z(x')   once it is reached: the foot of the
        perpendicular from x to the boundary, taken as a plane.

    An image is done when such a foot reaches the goal itself, or after `steps` gradients. Then
    `searches` queries halve the interval between x and the shortest change found. The other class
    in Z is the one with the largest score: one gradient per step, where DeepFool compares the
    distances to several classes. Raises as `white_box.pgd` does.

    Abdolahpourrostam, Abroshan, Moosavi-Dezfooli: "Revisiting DeepFool: generalization and
    improvement", 2023 (arXiv 2303.12481), algorithm 2; Moosavi-Dezfooli et al.: "DeepFool", CVPR
    2016.
    """
    check_counts(steps=steps, searches=searches)
    attack = Attack(network, images, labels, targeted, overshoot=overshoot)
    x, best = attack.images, Shortest(attack.images)
    changed, is_foot = x.clone(), torch.zeros_like(attack.success)
    done = is_foot.clone()
    for _ in runtime.progress(range(steps), "SuperDeepFool"):
        n = (~done).nonzero().flatten()
        if not len(n):
            break
        Z, g = attack.margin_gradients(changed[n], n)
        best.keep(changed, attack.success & ~done)
        reached, size = attack.success[n], g.flatten(1).square().sum(1).clamp_min(1e-12)
        step = changed[n] - _per_image((1 + overshoot) * (Z.abs() + 1e-4) / size) * g
        foot = x[n] + _per_image(_dot(changed[n] - x[n], g) / size) * g
        done[n] = reached & is_foot[n]
        changed[n] = torch.where(_per_image(reached), foot, step).clamp(0, 1)
        is_foot[n] = reached
    return _halved(attack, best, searches)


def _halved(attack, best, searches):
    """Return the result after the search for the boundary between images and shortest changes."""
    x, change, found = attack.images, best.images - best.originals, best.lengths.isfinite()
    low = torch.zeros(len(x)).to(x)
    high = torch.ones_like(low)
    for _ in range(searches):
        middle = (low + high) / 2
        tried = x + _per_image(middle) * change
        attack.ask(tried)
        best.keep(tried, attack.success & found)
        low = torch.where(attack.success, low, middle)
        high = torch.where(attack.success, middle, high)
    return AttackResult(best.images, found, attack.gradients, attack.queries)


@runtime.keep_freed_memory()
def newton_ddn(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, steps=100, levels=None,
    momentum=0.5, shorter=None, longer=1.5,
) -> AttackResult:  # fmt: skip
    """Look for the shortest change: DDN's direction, and a norm that takes Newton's step.

        d <- μ d - (1 - μ) ∇Z / ||∇Z||_2;  u = unit(δ + α ||δ||_2 unit(d));
        ε with Z(x') + <∇Z, clip(x + ε u) - x'> = 0, times 1 + o;  δ <- clip(x + ε u) - x,

    where DDN makes ε a fixed factor shorter or longer. So ε is at once of the right size, and a
    change towards the nearest class, which is much shorter than one towards a random class, takes
    as many steps. ε is at least `shorter` (by default 0.95 targeted, 0.9 untargeted) and at most
    `longer` times what it was; o, from 0.05 on, is halved where the goal is reached and doubled
    where it is not; α falls to 0.01 along half a cosine, μ is `momentum`. `walks` says what a
    budget of `steps` is split into.

    levels: the network sees x' rounded to so many levels, 256 for images that can be saved. δ keeps
    what rounding cuts off, so that small values add up until they reach the next level.
    Raises as `white_box.pgd` does.

    After Rony et al. (DDN, CVPR 2019) and Pintor et al. (FMN, NeurIPS 2021), who take Newton's step
    until the goal is first reached.
    """
    check_counts(steps=steps)
    shorter = (0.95 if targeted else 0.9) if shorter is None else shorter
    settings = {"momentum": momentum, "shorter": shorter, "longer": longer}
    attack = Attack(network, images, labels, targeted, **settings)
    best = Shortest(attack.images)
    for count, beyond, smooth in walks(targeted, steps):
        walk(attack, best, count, beyond, smooth, levels, **settings)
    return closest(attack, best, steps)


def walks(targeted: bool, steps: int) -> list[tuple[int, float, bool]]:
    """Return (steps, beyond, smooth) of each of the walks that share a budget of `steps`.

    beyond: how far behind the boundary a walk begins, in times the boundary's distance, so that it
    meets other parts of the boundary than the first. smooth: in Z, all other scores have to fall,
    by the logarithm of the sum of their exponentials, instead of the largest. Fewer than 50 steps
    are one walk at the boundary.
    """
    if steps < 50:
        return [(steps, 0.0, targeted)]
    if targeted:
        return [(steps, 1.0, True)]
    near = 3 * steps // 10
    return [(near, 0.0, False), (steps - near, 10.0, True)]


def walk(attack, best, steps, beyond, smooth, levels, momentum, shorter, longer):
    """Take `steps` from the images on; `best` keeps the shortest changes that reach the goal."""
    x = attack.images
    δ, d, o = torch.zeros_like(x), torch.zeros_like(x), torch.full((len(x),), 0.05).to(x)
    for k in runtime.progress(range(steps), "Newton DDN"):
        changed = rounded(x + δ, levels)
        Z, g = attack.margin_gradients(changed, smooth=smooth)
        best.keep(changed, attack.success)
        o = (o * torch.where(attack.success, 0.5, 2.0)).clamp(2e-4, 0.5)
        far = beyond * _cosine(min(k, 0.75 * steps), 0.75 * steps, 1.0, 0.0)
        d = momentum * d - (1 - momentum) * unit(g)
        before = _norms(δ)
        α = _cosine(k, steps, 2.0 if beyond else 1.0, 0.01)
        u = unit(δ + _per_image(α * before.clamp_min(1e-3)) * unit(d))
        ε = _newton(x, u, g, (1 + o + far) * (Z - _dot(g, changed - x)), levels)
        near = torch.minimum(torch.maximum(ε, shorter * before), longer * before)
        ε = torch.where(before > 0, near, ε)
        δ = (x + _per_image(ε) * u).clamp(0, 1) - x


def _newton(x, u, g, fall, levels):
    """Return the lengths ε (N,) for which -<g, clip(x + ε u) - x> is `fall` (N,), rounding too.

    The first guess leaves out what clips and rounds; four further ones, at most a factor of two
    each, take it in. 0 where u does not go down.
    """
    slope = -_dot(g, u)
    ε = fall / slope.clamp_min(1e-12)
    for _ in range(4):
        gain = -_dot(g, rounded(x + _per_image(ε) * u, levels) - x)
        ε = ε * (fall / gain.clamp_min(1e-12)).clamp(0.5, 2)
    return torch.where((slope > 0) & ε.isfinite(), ε, 0).clamp_min(0)
