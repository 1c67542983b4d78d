"""Practical 2, an adversarial patch: one picture for all images, wherever it is stuck on them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps import runtime
from dlapps.checks import check_counts, check_images
from dlapps.models.gradients import check_labels, in_batches
from dlapps.visualization.attacks import scores_of

SCALES, DEGREES = (0.3, 0.5), 20.0  # of the views: diameter as a share of the side, rotation


def place(images: Tensor, patch: Tensor, scales: Tensor, angles: Tensor, centres: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] with a round patch (3, S, S) on each.

    scales: (N,), the patch's diameter as a share of the image's side; angles: (N,), in radians;
    centres: (N, 2), x and y, from -1 to 1 across the image. Differentiable in the patch.
    """
    cos, sin = angles.cos() / scales, angles.sin() / scales
    turned = torch.stack((torch.stack((cos, sin), 1), torch.stack((-sin, cos), 1)), 1)
    θ = torch.cat((turned, -turned @ centres[:, :, None]), 2)  # from the image to the patch
    grid = F.affine_grid(θ, list(images.shape), align_corners=False)
    pasted = F.grid_sample(
        patch.expand(len(images), -1, -1, -1), grid, padding_mode="border", align_corners=False
    )
    inside = (grid.square().sum(3) <= 1)[:, None]
    return torch.where(inside, pasted, images)


def random_views(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return scales (N,), angles (N,) and centres (N, 2), which keep the patch in the image.

    Uniform: the scale in `SCALES`, the angle up to `DEGREES` to both sides.
    """
    r = torch.rand(4, count, generator=generator)
    scales = SCALES[0] + (SCALES[1] - SCALES[0]) * r[0]
    angles = math.radians(DEGREES) * (2 * r[1] - 1)
    return scales, angles, ((2 * r[2:] - 1) * (1 - scales)).T


def train(
    network: nn.Module, images: Tensor, target: int, *, side=64, steps=200, batch_size=8,
    learning_rate=0.05, seed=0,
) -> Tensor:  # fmt: skip
    """Return a patch (3, side, side) in [0, 1] that makes images be classified as `target`.

        max over p of E log p(target | A(p, x, v)),

    with A the patch on a random one of the images x (N, 3, H, W) in a random view v (`place`,
    `random_views`): `steps` of Adam over batches of such, the patch being sigmoid(w), grey at
    first. Raises TypeError or ValueError for other images, targets and counts.

    Brown, Mané, Roy, Abadi, Gilmer: "Adversarial Patch", NeurIPS 2017 workshop, section 2; Athalye
    et al.: "Synthesizing Robust Adversarial Examples", ICML 2018 (expectation over views).
    """
    check_images(images)
    check_counts(side=side, steps=steps, batch_size=batch_size)
    generator = torch.Generator().manual_seed(seed)
    w = torch.zeros(3, side, side, device=images.device, requires_grad=True)
    optimizer = torch.optim.Adam([w], learning_rate)
    target = check_labels([target], 1, scores_of(network, images[:1]).shape[1], "target")
    for _ in runtime.progress(range(steps), "patch"):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        views = [part.to(images) for part in random_views(batch_size, generator)]
        p = w.sigmoid()
        A = place(images[chosen], p, *views)
        w.grad = torch.autograd.grad(p, w, _loss_gradient(network, A, target, p))[0]
        optimizer.step()
    return w.detach().sigmoid()


def _loss_gradient(network, A, target, p):
    """Return the gradient of -mean log p(target | A) with respect to the patch p in A."""

    def gradients_of_part(part):
        with torch.enable_grad():
            scores = network(part.requires_grad_())
            labels = target.to(scores.device).expand(len(part))
            loss = F.cross_entropy(scores, labels, reduction="sum")
            return torch.autograd.grad(loss, part)

    g = in_batches(gradients_of_part, A)[0]
    return torch.autograd.grad(A, p, g / len(A), retain_graph=True)[0]


def hits(
    network: nn.Module, images: Tensor, patch: Tensor, target: int, views=20, seed=0
) -> tuple[Tensor, Tensor]:
    """Return how often (N,) a patch makes each image be classified as `target`, and one view each.

    The share of `views` random views, the same for each patch of one seed; and the first view, (N,
    3, H, W).
    """
    check_counts(views=views)
    generator = torch.Generator().manual_seed(seed)
    shares, shown = torch.zeros(len(images)), None
    for _ in range(views):
        view = [part.to(images) for part in random_views(len(images), generator)]
        A = place(images, patch.to(images), *view)
        shown = A if shown is None else shown
        shares += (scores_of(network, A).argmax(1) == target).cpu() / views
    return shares, shown


def controls(image: Tensor, side=64, seed=0) -> dict[str, Tensor]:
    """Return patches (3, side, side) that nobody optimised: noise, and a small image (3, H, W).

    The noise is uniform in [0, 1], in squares of 4 x 4 values.
    """
    coarse = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(seed))
    noise = F.interpolate(coarse, size=(side, side)).to(image)
    small = F.interpolate(image[None], size=(side, side), mode="area")
    return {"random colours": noise[0], "a photograph of the class": small[0]}
