"""Practical 2, attacks that ask the network for scores alone. See `attacks` for their form."""

import math

import numpy as np
import torch
from scipy.optimize import differential_evolution
from torch import Tensor, nn

from dlapps import runtime
from dlapps.checks import check_counts
from dlapps.models.gradients import in_batches
from dlapps.visualization.attacks import Attack, AttackResult, is_adversarial, scores_of


def one_pixel(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, pixels=1, population=40,
    generations=10, seed=0,
) -> AttackResult:  # fmt: skip
    """Replace `pixels` pixels by any colours, found by differential evolution.

    A candidate is a list of (row, column, red, green, blue); scipy's differential evolution makes
    `generations` generations of `population` candidates, which the network judges by the label's
    probability. An image stops as soon as its best candidate reaches the goal.
    Raises as `pgd` does.

    Su, Vargas, Sakurai: "One Pixel Attack for Fooling Deep Neural Networks", IEEE Transactions on
    Evolutionary Computation 2019, section III.
    """
    check_counts(pixels=pixels, population=population, generations=generations)
    attack = Attack(network, images, labels, targeted)
    changed = attack.images.clone()
    height, width = changed.shape[2:]
    bounds = [(0, height - 1e-6), (0, width - 1e-6), (0, 1), (0, 1), (0, 1)] * pixels
    for index in runtime.progress(range(len(changed)), "one pixel"):
        image, label = attack.images[index], attack.labels[index]

        def probability(candidates, image=image, label=label, index=index):
            copies = _painted(image, candidates)
            attack.queries[index] += len(copies)
            probabilities = scores_of(network, copies).softmax(1)[:, label].double().cpu().numpy()
            return -probabilities if targeted else probabilities

        def finished(found, convergence=None, image=image, label=label):
            predicted = scores_of(network, _painted(image, np.asarray(found))).argmax(1)
            return bool(is_adversarial(predicted, label, targeted).item())

        generator = np.random.default_rng(seed)
        start = generator.uniform(*np.array(bounds).T, size=(max(population, 5), len(bounds)))
        found = differential_evolution(
            probability, bounds, init=start, maxiter=generations, mutation=0.5, recombination=1.0,
            callback=finished, polish=False, vectorized=True, updating="deferred", tol=0, rng=seed,
        )  # fmt: skip
        changed[index] = _painted(image, found.x)[0]
    attack.mark(scores_of(network, changed))
    return attack.result(changed)


def _painted(image, candidates):
    """Return copies (M, 3, H, W) of an image with the pixels of (5 pixels, M) or (5 pixels,)."""
    values = torch.as_tensor(np.atleast_2d(candidates.T)).to(image)
    values = values.view(len(values), -1, 5)
    copies = image.repeat(len(values), 1, 1, 1)
    rows, columns = values[..., 0].long(), values[..., 1].long()
    each = torch.arange(len(values), device=image.device)[:, None]
    copies[each, :, rows, columns] = values[..., 2:]
    return copies


@runtime.keep_freed_memory()
def square(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, epsilon=0.05,
    max_queries=1000, share=0.05, seed=0,
) -> AttackResult:  # fmt: skip
    """Search at random for squares that lower the margin, each changed by +-`epsilon`.

    The first candidate has vertical stripes one pixel wide; each further one sets a random square
    of the change, in each channel, to +epsilon or -epsilon, and is kept if the margin improves. The
    squares' area begins at `share` of the image and shrinks as the queries run out. An image stops
    when its goal is reached.
    Raises as `pgd` does.

    Andriushchenko, Croce, Flammarion, Hein: "Square Attack: a Query-Efficient Black-Box Adversarial
    Attack via Random Search", ECCV 2020, algorithms 1 and 2.
    """
    check_counts(max_queries=max_queries)
    attack = Attack(network, images, labels, targeted, epsilon=epsilon, share=share)
    images = attack.images
    generator = torch.Generator().manual_seed(seed)

    def signs(*shape):
        return random_signs(shape, generator).to(images)

    changed = (images + epsilon * signs(1, 3, 1, images.shape[3])).clamp(0, 1)
    margins = attack.margins(attack.ask(changed))
    with runtime.progress(None, "square attack", max_queries) as bar:
        for query in range(1, max_queries):
            active = attack.active
            if not len(active):
                break
            area = _square_share(share, query / max_queries)
            window = _random_square(area, images.shape[2:], generator)
            candidates = changed[active]
            new = images[active][window] + epsilon * signs(len(active), 3, 1, 1)
            candidates[window] = new.clamp(0, 1)
            found = attack.margins(attack.ask(candidates, active), active)
            better = (found < margins[active]) | attack.success[active]
            changed[active[better]] = candidates[better]
            margins[active[better]] = found[better]
            bar.update()
    return attack.result(changed)


def random_signs(shape, generator: torch.Generator) -> Tensor:
    """Return a tensor of a shape whose values are +1 or -1, each as likely."""
    return 2.0 * torch.randint(2, shape, generator=generator) - 1


def noise_success(
    network: nn.Module, images: Tensor, labels: Tensor, seeds, *, epsilon=0.05, stripes=False
) -> list[float]:
    """Return, per seed, the share of images no longer classified as labelled after random signs.

        x' = clip(x + ε s), s = +-1: of each value, or, with `stripes`, of each column and channel,

    the same s for all images: an attack's size without its search, a control.
    """
    shares = []
    for seed in seeds:
        height, width = (1 if stripes else images.shape[2]), images.shape[3]
        s = random_signs((1, 3, height, width), torch.Generator().manual_seed(seed))
        predicted = scores_of(network, (images + epsilon * s.to(images)).clamp(0, 1)).argmax(1)
        shares.append((predicted != labels.to(predicted)).double().mean().item())
    return shares


def _square_share(share, progress):
    """Return the squares' share of the area: halved at the points of the paper's schedule."""
    points = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of 10,000 queries, section 4.1
    return share / 2 ** sum(progress > point for point in points)


def _random_square(share, side, generator):
    """Return the slices, for images (N, 3, H, W), of a square of a share of their area."""
    length = min(max(round(math.sqrt(share * side.numel())), 1), *side)
    corner = [torch.randint(n - length + 1, (1,), generator=generator).item() for n in side]
    return (..., *(slice(first, first + length) for first in corner))


@runtime.keep_freed_memory()
def nes(
    network: nn.Module, images: Tensor, labels: Tensor, *, targeted=False, epsilon=0.05,
    max_queries=1000, samples=20, noise=0.01, step=0.01, seed=0,
) -> AttackResult:  # fmt: skip
    """Climb a gradient that is estimated from scores alone, by natural evolution strategies.

        g = 1 / (2 n σ) sum over i of u_i (L(x + σ u_i) - L(x - σ u_i)), u_i ~ N(0, I),

    with L the logarithm of the label's probability (minus it, untargeted), 2 n = `samples` queries
    per estimate and σ = `noise`; the image moves by `step` along the signs of g, within `epsilon`
    of the original in each value. An image stops when its goal is reached or the queries run out.
    Raises as `pgd` does, and ValueError for an odd number of samples.

    Ilyas, Engstrom, Athalye, Lin: "Black-box Adversarial Attacks with Limited Queries and
    Information", ICML 2018, algorithm 1 and section 2.
    """
    check_counts(max_queries=max_queries, samples=samples)
    if samples % 2:
        raise ValueError(f"samples is {samples}, expected an even number")
    attack = Attack(network, images, labels, targeted, epsilon=epsilon, noise=noise, step=step)
    images, changed = attack.images, attack.images.clone()
    generator = torch.Generator().manual_seed(seed)
    at_once = runtime.images_at_once(images.device)
    for _ in runtime.progress(range(max(1, max_queries // (samples + 1))), "NES"):
        active = attack.active
        if not len(active):
            break
        ascent = torch.zeros_like(images[active])
        for part in torch.arange(samples // 2).split(at_once):
            u = torch.cat([torch.randn(1, *images.shape[1:], generator=generator) for _ in part])
            u = u.to(images)
            differences = _differences(network, changed[active], attack.labels[active], noise * u)
            ascent += torch.einsum("nd,dchw->nchw", differences.to(u), u)
        ascent = ascent if targeted else -ascent
        moved = changed[active] + step * ascent.sign() - images[active]
        changed[active] = (images[active] + moved.clamp(-epsilon, epsilon)).clamp(0, 1)
        attack.ask(changed[active], active)
        attack.queries[active] += samples
    return attack.result(changed)


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
        found = in_batches(signed_logs, n, d, sign)[0]
    return found.view(len(images), len(shifts), 2).sum(2)
