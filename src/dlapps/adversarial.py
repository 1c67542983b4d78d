"""Practical 2, fooling images: changes too small to see that make a network see another class.

`fool` is the practical's rule. The attacks after it have one call shape,
`attack(network, images, labels, *, targeted=False, **options)`, and return an `Attacked`.
Untargeted, `labels` are the classes that the network shall no longer predict; targeted, those that
it shall, and does not yet.
However many images there are, no more than `runtime.images_at_once` are in the network's memory.
All work in image space: what they return lies in [0, 1], and every length is on that scale.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import differential_evolution
from torch.nn import functional as F

from dlapps import runtime
from dlapps.models.checks import check_counts, check_images, check_positive
from dlapps.models.gradients import check_labels, in_parts, score_gradients, unit


@dataclass(frozen=True)
class Fooled:
    """What `fool` made of N images in at most T steps, all on the images' device.

    images: (N, 3, H, W) in [0, 1]; steps: (N,), how many each took; success: (N,), whether its
    target is now predicted; confidences: (T + 1, N, 2), after each step the probability of the
    class that was predicted at first, and of the target. Once an image is done its values stay.
    """

    images: torch.Tensor
    steps: torch.Tensor
    success: torch.Tensor
    confidences: torch.Tensor


def fool(network, images, targets, step=0.05, max_steps=500):
    """Walk up the target's score, x <- clip(x + step g / ||g||_2), until the target is predicted.

    g is the gradient of the target's score with respect to the image x. Each image stops by itself
    and is then left out of the batch. `step` is the Euclidean length of one step over all pixels
    and channels, on the [0, 1] scale; the clipping to [0, 1] is in image space too.

    images: float (N, 3, H, W) in [0, 1]; targets: integers (N,), another class than the predicted
    one; network: in eval mode, class scores (N, K) from images in [0, 1]. Returns a `Fooled`.
    Raises TypeError or ValueError for other images, targets that are not classes or are predicted
    already, and a step or a number of steps that is not positive.

    A targeted adversarial example (Szegedy et al.: "Intriguing Properties of Neural Networks", ICLR
    2014) by plain ascent with steps of one length, the "fooling image" of Stanford's CS231n.
    """
    check_images(images)
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"step is {step}, expected a positive length")
    check_counts(max_steps=max_steps)

    images = images.detach().clone()
    scores = _scores(network, images)
    first = scores.argmax(dim=1)
    targets = check_labels(targets, *scores.shape, name="targets").to(images.device)
    _check_targets(first, targets, "targets")

    classes = torch.stack((first, targets), dim=1)
    steps = torch.zeros_like(targets)
    success = torch.zeros_like(targets, dtype=torch.bool)
    going = torch.arange(len(images), device=images.device)  # the images that are not done yet
    history = []
    with runtime.progress(None, "images fooled", total=len(images)) as bar:
        for number in range(max_steps + 1):
            scores, gradients = score_gradients(network, images[going], targets[going])
            confidences = history[-1].clone() if history else torch.empty_like(scores[:, :2])
            confidences[going] = scores.softmax(dim=1).gather(1, classes[going])
            history.append(confidences)

            done = scores.argmax(dim=1) == targets[going]
            success[going] = done
            bar.update(int(done.sum()))
            going, gradients = going[~done], gradients[~done]
            if number == max_steps or not len(going):
                break
            images[going] = (images[going] + step * unit(gradients)).clamp(0, 1)
            steps[going] += 1
    return Fooled(images, steps, success, torch.stack(history))


@dataclass(frozen=True)
class Attacked:
    """What an attack made of N images.

    images: (N, 3, H, W) in [0, 1], the original where the attack failed and asks for small changes;
    success: (N,), whether the network predicts what was asked for; gradients and queries: (N,), how
    many gradients and how many passes without one each image took until its attack was done.
    """

    images: torch.Tensor
    success: torch.Tensor
    gradients: torch.Tensor
    queries: torch.Tensor


def fgsm(network, images, labels, *, targeted=False, epsilon=8 / 255):
    """Change each value by `epsilon` in the direction that the loss asks for, in one step.

        x' = clip(x + epsilon sign(d L / d x)), L the cross-entropy (minus it, if targeted).

    Goodfellow, Shlens, Szegedy: "Explaining and Harnessing Adversarial Examples", ICLR 2015,
    section 4. Raises as `pgd` does.
    """
    images, labels = _check(network, images, labels, targeted, epsilon=epsilon)
    _, gradients = _loss_gradients(network, images, labels, targeted)
    changed = (images + epsilon * gradients.sign()).clamp(0, 1)
    ones = torch.ones_like(labels)
    return Attacked(changed, _reached(network, changed, labels, targeted), ones, ones)


def pgd(
    network,
    images,
    labels,
    *,
    targeted=False,
    norm="linf",
    epsilon=8 / 255,
    steps=40,
    step=None,
    seed=0,
):
    """Climb the loss by steps within a ball of radius `epsilon` around each image.

    norm: "linf" (steps along the gradient's sign) or "l2" (along the gradient, normalised).
    step: the length of a step, by default 2.5 epsilon / steps. It begins at a random point of the
    ball, which `seed` decides on. An image stops at the first step that reaches the goal.
    Raises TypeError or ValueError for other images and labels, a target that is predicted already,
    settings that are not positive and another norm.

    Madry et al.: "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, eq. 3.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm is {norm!r}, expected 'linf' or 'l2'")
    check_counts(steps=steps)
    step = 2.5 * epsilon / steps if step is None else step
    images, labels = _check(network, images, labels, targeted, epsilon=epsilon, step=step)
    generator = torch.Generator().manual_seed(seed)
    shape = 1, *images.shape[1:]
    if norm == "linf":
        start = epsilon * (2 * torch.rand(shape, generator=generator) - 1)
    else:
        start = epsilon * unit(torch.randn(shape, generator=generator))
        start *= torch.rand(1, generator=generator) ** (1 / start.numel())
    changed = (images + start.to(images)).clamp(0, 1)
    success = torch.zeros_like(labels, dtype=torch.bool)
    used = torch.zeros_like(labels)
    going = torch.arange(len(images), device=images.device)
    for number in runtime.progress(range(steps + 1), "PGD"):
        scores, gradients = _loss_gradients(network, changed[going], labels[going], targeted)
        used[going] += 1
        done = (scores.argmax(1) == labels[going]) == targeted
        success[going] = done
        going, gradients = going[~done], gradients[~done]
        if number == steps or not len(going):
            break
        ascent = gradients.sign() if norm == "linf" else unit(gradients)
        change = changed[going] + step * ascent - images[going]
        change = change.clamp(-epsilon, epsilon) if norm == "linf" else _shorten(change, epsilon)
        changed[going] = (images[going] + change).clamp(0, 1)
    return Attacked(changed, success, used, torch.zeros_like(used))


def carlini_wagner(
    network, images, labels, *, targeted=False, constant=1.0, steps=100, learning_rate=0.01
):
    """Minimise the squared length of the change plus `constant` times a loss of the scores.

        ||x' - x||^2 + c max(0, Z), x' = (tanh(w) + 1) / 2,

    with Z the margin by which the goal is missed: the largest score of another class minus the
    target's, or, untargeted, the label's score minus the largest other. Adam changes w for `steps`
    steps; the shortest change that reached the goal is kept.
    Raises as `pgd` does.

    Carlini, Wagner: "Towards Evaluating the Robustness of Neural Networks", IEEE S&P 2017, section
    V-A, with one constant instead of the search for it.
    """
    check_counts(steps=steps)
    images, labels = _check(
        network, images, labels, targeted, constant=constant, learning_rate=learning_rate
    )
    # 1 - 2e-7 is the largest float32 number whose artanh is finite and well apart from 1.
    w = torch.atanh((2 * images - 1).clamp(-1 + 2e-7, 1 - 2e-7)).requires_grad_()
    optimizer = torch.optim.Adam([w], learning_rate)
    best = _Shortest(images)

    def margin_gradients(w, images, labels):
        with torch.enable_grad():
            changed = ((w.requires_grad_().tanh() + 1) / 2).clamp(0, 1)
            scores = network(changed)
            missed = (_margins(scores, labels) * (-1 if targeted else 1)).clamp_min(0)
            loss = (changed - images).square().sum() + constant * missed.sum()
            return changed.detach(), scores.detach(), *torch.autograd.grad(loss, w)

    for _ in runtime.progress(range(steps), "Carlini-Wagner"):
        changed, scores, w.grad = in_parts(margin_gradients, w, images, labels)
        best.keep(changed, (scores.argmax(1) == labels) == targeted)
        optimizer.step()
    used = torch.full_like(labels, steps)
    return Attacked(best.images, best.lengths.isfinite(), used, torch.zeros_like(used))


def minimal_norm(
    network, images, labels, *, targeted=False, steps=100, radius=1.0, change=0.05, levels=None
):
    """Look for the shortest change that reaches the goal, by decoupling direction and norm (DDN).

    In each of `steps` steps the change follows the gradient of the loss, and is then set to a
    length that shrinks by the factor 1 - `change` while the goal is reached and grows by
    1 + `change` while it is not, from `radius` on. The steps become smaller from 1 to 0.01 by a
    cosine. The shortest change that reached the goal is kept. levels: round the images to so many
    levels in each step, 256 for images that can be saved, so that rounding cannot undo the attack.
    Raises as `pgd` does.

    Rony et al.: "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks
    and Defenses", CVPR 2019, algorithm 1.
    """
    check_counts(steps=steps)
    images, labels = _check(network, images, labels, targeted, radius=radius, change=change)
    delta = torch.zeros_like(images)
    lengths = torch.full((len(images), 1, 1, 1), radius).to(images)
    best = _Shortest(images)
    for number in runtime.progress(range(steps), "minimal norm"):
        changed = (images + delta).clamp(0, 1)
        scores, gradients = _loss_gradients(network, changed, labels, targeted)
        reached = (scores.argmax(1) == labels) == targeted
        best.keep(changed, reached)
        size = 0.01 + 0.99 * (1 + math.cos(math.pi * number / steps)) / 2
        delta = delta + size * unit(gradients)
        lengths *= torch.where(reached, 1 - change, 1 + change).to(lengths).view(-1, 1, 1, 1)
        delta = (images + lengths * unit(delta)).clamp(0, 1) - images
        if levels:
            delta = ((images + delta) * (levels - 1)).round() / (levels - 1) - images
    used = torch.full_like(labels, steps)
    return Attacked(best.images, best.lengths.isfinite(), used, torch.zeros_like(used))


def one_pixel(
    network, images, labels, *, targeted=False, pixels=1, population=40, generations=10, seed=0
):
    """Replace `pixels` pixels by any colours, found by differential evolution.

    A candidate is a list of (row, column, red, green, blue); scipy's differential evolution makes
    `generations` generations of `population` candidates, which the network judges by the label's
    probability. An image stops as soon as its best candidate reaches the goal.
    Raises as `pgd` does.

    Su, Vargas, Sakurai: "One Pixel Attack for Fooling Deep Neural Networks", IEEE Transactions on
    Evolutionary Computation 2019, section III.
    """
    check_counts(pixels=pixels, population=population, generations=generations)
    images, labels = _check(network, images, labels, targeted)
    height, width = images.shape[2:]
    bounds = [(0, height - 1e-6), (0, width - 1e-6), (0, 1), (0, 1), (0, 1)] * pixels
    kept, queries = images.clone(), torch.zeros_like(labels)

    def painted(index, candidates):  # (5 pixels, M) or (5 pixels,) as scipy gives them
        values = torch.as_tensor(np.atleast_2d(candidates.T)).to(images)
        values = values.view(len(values), pixels, 5)
        copies = images[index].repeat(len(values), 1, 1, 1)
        rows, columns = values[..., 0].long(), values[..., 1].long()
        each = torch.arange(len(values), device=images.device)[:, None]
        copies[each, :, rows, columns] = values[..., 2:]
        return copies

    for index in runtime.progress(range(len(images)), "one pixel"):
        label = labels[index]

        def judge(candidates, index=index, label=label):
            copies = painted(index, candidates)
            queries[index] += len(copies)
            chances = _scores(network, copies).softmax(1)
            chance = chances[:, label].double().cpu().numpy()
            return -chance if targeted else chance

        def finished(found, convergence=None, index=index, label=label):
            predicted = _scores(network, painted(index, np.asarray(found))).argmax(1)
            return bool((predicted == label).item() == targeted)

        generator = np.random.default_rng(seed)
        start = generator.uniform(*np.array(bounds).T, size=(max(population, 5), len(bounds)))
        found = differential_evolution(
            judge, bounds, init=start, maxiter=generations, mutation=0.5, recombination=1.0,
            callback=finished, polish=False, vectorized=True, updating="deferred", tol=0, rng=seed,
        )  # fmt: skip
        kept[index] = painted(index, found.x)[0]
    success = _reached(network, kept, labels, targeted)
    return Attacked(kept, success, torch.zeros_like(queries), queries)


def square(
    network, images, labels, *, targeted=False, epsilon=0.05, max_queries=1000, share=0.05, seed=0
):
    """Search at random for squares that lower the margin, each changed by +-`epsilon` (black box).

    Only scores are asked for. The first candidate has vertical stripes one pixel wide; each further
    one sets a random square of the change, in each channel, to +epsilon or -epsilon, and is kept if
    the margin improves. The squares' area begins at `share` of the image and shrinks as the queries
    run out. An image stops when its goal is reached.
    Raises as `pgd` does.

    Andriushchenko, Croce, Flammarion, Hein: "Square Attack: a Query-Efficient Black-Box Adversarial
    Attack via Random Search", ECCV 2020, algorithms 1 and 2.
    """
    check_counts(max_queries=max_queries)
    images, labels = _check(network, images, labels, targeted, epsilon=epsilon, share=share)
    generator = torch.Generator().manual_seed(seed)

    def signs(*shape):
        return (2 * torch.randint(2, shape, generator=generator) - 1).to(images)

    def judge(candidates, which):
        scores = _scores(network, candidates)
        margins = _margins(scores, labels[which]) * (-1 if targeted else 1)
        return margins, (scores.argmax(1) == labels[which]) == targeted

    side = images.shape[2:]
    changed = (images + epsilon * signs(1, 3, 1, side[1])).clamp(0, 1)
    everyone = torch.arange(len(images), device=images.device)
    margins, success = judge(changed, everyone)
    queries = torch.ones_like(labels)
    with runtime.progress(None, "square attack", max_queries) as bar:
        for query in range(1, max_queries):
            going = (~success).nonzero().flatten()
            if not len(going):
                break
            length = round(math.sqrt(_square_share(share, query / max_queries) * side.numel()))
            length = min(max(length, 1), *side)
            top = torch.randint(side[0] - length + 1, (1,), generator=generator).item()
            left = torch.randint(side[1] - length + 1, (1,), generator=generator).item()
            window = (
                slice(None),
                slice(None),
                slice(top, top + length),
                slice(left, left + length),
            )
            candidates = changed[going]
            new = images[going][window] + epsilon * signs(len(going), 3, 1, 1)
            candidates[window] = new.clamp(0, 1)
            found, reached = judge(candidates, going)
            queries[going] += 1
            better = (found < margins[going]) | reached
            changed[going[better]] = candidates[better]
            margins[going[better]] = found[better]
            success[going] = reached
            bar.update()
    return Attacked(changed, success, torch.zeros_like(queries), queries)


def _square_share(share, progress):
    """Return the squares' share of the area: halved at the points of the paper's schedule."""
    points = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of 10,000 queries, section 4.1
    return share / 2 ** sum(progress > point for point in points)


def nes(
    network, images, labels, *, targeted=False, epsilon=0.05, max_queries=1000, samples=20,
    noise=0.01, step=0.01, seed=0,
):  # fmt: skip
    """Climb a gradient that is estimated from scores alone, by natural evolution strategies.

        g = 1 / (2 n sigma) sum over i of u_i (L(x + sigma u_i) - L(x - sigma u_i)), u_i ~ N(0, 1),

    with L the logarithm of the label's probability (minus it, untargeted), 2 n = `samples` queries
    an estimate and sigma = `noise`; the image moves by `step` along the signs of g, within
    `epsilon` of the original in each value. An image stops when its goal is reached or the queries
    run out.
    Raises as `pgd` does, and ValueError for an odd number of samples.

    Ilyas, Engstrom, Athalye, Lin: "Black-box Adversarial Attacks with Limited Queries and
    Information", ICML 2018, algorithm 1 and section 2.
    """
    check_counts(max_queries=max_queries, samples=samples)
    if samples % 2:
        raise ValueError(f"samples is {samples}, expected an even number")
    images, labels = _check(
        network, images, labels, targeted, epsilon=epsilon, noise=noise, step=step
    )
    generator = torch.Generator().manual_seed(seed)
    changed, queries = images.clone(), torch.zeros_like(labels)
    success = torch.zeros_like(labels, dtype=torch.bool)
    rounds = max(1, max_queries // (samples + 1))
    at_once = runtime.images_at_once(images.device)
    for _ in runtime.progress(range(rounds), "NES"):
        going = (~success).nonzero().flatten()
        if not len(going):
            break
        ascent = torch.zeros_like(images[going])
        for part in torch.arange(samples // 2).split(at_once):
            u = torch.cat([torch.randn(1, *images.shape[1:], generator=generator) for _ in part])
            u = u.to(images)
            differences = _differences(network, changed[going], labels[going], noise * u)
            ascent += torch.einsum("nd,dchw->nchw", differences.to(u), u)
        ascent = ascent if targeted else -ascent
        moved = changed[going] + step * ascent.sign() - images[going]
        changed[going] = (images[going] + moved.clamp(-epsilon, epsilon)).clamp(0, 1)
        success[going] = _reached(network, changed[going], labels[going], targeted)
        queries[going] += samples + 1
    return Attacked(changed, success, torch.zeros_like(queries), queries)


def _differences(network, images, labels, shifts):
    """Return (N, D): by how much more log p(label) each of D shifts adds than its opposite does."""
    n, d, sign = torch.cartesian_prod(
        torch.arange(len(images)), torch.arange(len(shifts)), torch.tensor([1, -1])
    ).T.to(images.device)

    def signed_logs(n, d, sign):
        tried = (images[n] + sign.view(-1, 1, 1, 1) * shifts[d]).clamp(0, 1)
        logs = network(tried).log_softmax(1).gather(1, labels[n][:, None])
        return (sign * logs[:, 0],)

    with torch.no_grad():
        found = in_parts(signed_logs, n, d, sign)[0]
    return found.view(len(images), len(shifts), 2).sum(2)


def measure(network, originals, changed, labels, *, targeted=False):
    """Return what the changed images (N, 3, H, W) achieve, a dictionary of numbers.

    "success" and "success_8bit": the shares that reach the goal (as in the attacks), and that
    still do when rounded to the 256 levels of a saved image; "l2" and "linf": the medians of the
    changes' Euclidean lengths and of their largest values, on the [0, 1] scale, over the images
    that succeed, None if none does. Raises ValueError for images of different shapes.
    """
    check_images(originals, name="originals")
    check_images(changed, name="changed")
    if originals.shape != changed.shape:
        raise ValueError(
            f"changed has shape {tuple(changed.shape)}, expected {tuple(originals.shape)}"
        )
    scores = _scores(network, changed)
    labels = check_labels(labels, *scores.shape).to(scores.device)
    reached = (scores.argmax(1) == labels) == targeted
    saved = reached & _reached(network, (changed * 255).round() / 255, labels, targeted)
    difference = (changed - originals).flatten(1)[reached]
    lengths, largest = difference.norm(dim=1), difference.abs().amax(1)
    return {
        "success": reached.double().mean().item(),
        "success_8bit": saved.double().mean().item(),
        "l2": lengths.median().item() if len(lengths) else None,
        "linf": largest.median().item() if len(largest) else None,
    }


class _Shortest:
    """The shortest changes so far that reached the goal; before there is any, the images."""

    def __init__(self, images):
        self.originals, self.images = images, images.clone()
        self.lengths = torch.full((len(images),), math.inf).to(images)

    def keep(self, changed, reached):
        lengths = (changed - self.originals).flatten(1).norm(dim=1)
        better = reached & (lengths < self.lengths)
        self.lengths = torch.where(better, lengths, self.lengths)
        self.images = torch.where(better.view(-1, 1, 1, 1), changed, self.images)


def _loss_gradients(network, images, labels, targeted):
    """Return the scores and the gradient of what is to grow: the cross-entropy, or minus it."""

    def gradients_of_part(images, labels):
        with torch.enable_grad():
            scores = network(images.requires_grad_())
            loss = F.cross_entropy(scores, labels, reduction="sum")
            return scores.detach(), *torch.autograd.grad(-loss if targeted else loss, images)

    return in_parts(gradients_of_part, images, labels)


def _scores(network, images):
    with torch.no_grad():
        return in_parts(lambda part: (network(part),), images)[0]


def _margins(scores, labels):
    """Return by how much the label's score (N,) exceeds the largest other."""
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], -math.inf)
    return (own - others.amax(1, keepdim=True))[:, 0]


def _reached(network, images, labels, targeted):
    return (_scores(network, images).argmax(1) == labels) == targeted


def _shorten(change, length):
    norms = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
    return change * (length / norms).clamp(max=1).view(-1, 1, 1, 1)


def _check(network, images, labels, targeted, **settings):
    """Return copies of the images and the labels as a tensor; raise for what is no attack."""
    check_images(images)
    check_positive(**settings)
    images = images.detach().clone()
    scores = _scores(network, images)
    labels = check_labels(labels, *scores.shape).to(images.device)
    if targeted:
        _check_targets(scores.argmax(1), labels, "labels")
    return images, labels


def _check_targets(predicted, targets, name):
    taken = (predicted == targets).nonzero().flatten().tolist()
    if taken:
        raise ValueError(
            f"{name}[{taken[0]}] is {targets[taken[0]].item()}, expected another class than the "
            "one that the network predicts already"
        )
