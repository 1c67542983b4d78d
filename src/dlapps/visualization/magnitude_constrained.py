"""Practical 2, class images with the magnitudes of photographs: only the phases are climbed."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.checks import check_counts
from dlapps.models.gradients import check_labels, class_count, in_batches
from dlapps.visualization.class_images import ClassImages, Film, check_settings, colours


def mean_magnitude(photographs: Sequence[Tensor], size: int) -> Tensor:
    """Return the mean magnitude (3, size, size // 2 + 1) of the spectra of photographs.

        mean of |F(C^-1 logit(x))|,

    x the square in the middle of a photograph, resized to `size` pixels, its values kept within
    [0.02, 0.98], where the logit is finite, and C `colours`. Of frequency 0, the mean, it is 0: an
    image with these magnitudes is grey on average. photographs: uint8 (1 or 3, H, W).
    Raises ValueError without photographs or for a size below 2.
    """
    if not len(photographs):
        raise ValueError("photographs is empty, expected at least one")
    if size < 2:
        raise ValueError(f"size is {size}, expected at least 2")
    total = torch.zeros(3, size, size // 2 + 1)
    decorrelate = colours().inverse()
    for photograph in photographs:
        square = transforms.center_crop(photograph, [min(photograph.shape[1:])] * 2)
        square = transforms.resize(square.expand(3, -1, -1), [size, size], antialias=True)
        logits = (square / 255).logit(0.02)
        total += torch.fft.rfft2(torch.einsum("kc,chw->khw", decorrelate, logits)).abs()
    total[:, 0, 0] = 0
    return total / len(photographs)


def image_of(phase: Tensor, magnitude: Tensor) -> Tensor:
    """Return the images (N, 3, S, S) in (0, 1) of phases (N, 3, S, S // 2 + 1), in radians.

        x = sigmoid(C F^-1(r exp(i phi))),

    r the magnitude (3, S, S // 2 + 1), the same for all, C `colours`.
    Fel et al., NeurIPS 2023, eq. 4.
    """
    size = magnitude.shape[1]
    turned = magnitude[..., None] * torch.stack((phase.cos(), phase.sin()), -1)
    planes = torch.fft.irfft2(torch.view_as_complex(turned), s=(size, size))
    return torch.einsum("ck,nkhw->nchw", colours().to(planes), planes).sigmoid()


@runtime.keep_freed_memory()
def maximise_phase(
    network: nn.Module, classes: Sequence[int], magnitude: Tensor, iterations=256,
    learning_rate=0.05, crops=1, sides=(0.5, 1.0), noise=0.1, seed=0,
    snapshots_at: Sequence[int] = (),
) -> ClassImages:  # fmt: skip
    """Climb score_c over the phases of an image whose magnitudes are those of photographs (MACO).

    The image is `image_of` the phases, with `magnitude` (3, S, S // 2 + 1), such as that of
    `mean_magnitude`; S may be larger than the network's input. What frequencies an image has is so
    decided beforehand: no step can turn it into high frequencies, and there is nothing to blur or
    to penalise. An iteration
    1. adds noise to the image, Gaussian with standard deviation `noise`, and uniform, `noise` wide,
    2. shows the network `crops` squares of it, of random places and sides (as shares of the image's
       side, within `sides`), resized to its input size; all of that is the same for each class, and
    3. changes the phases by a step of Nesterov's Adam on the crops' mean score.

    classes: integers (N,). The phases begin as N(0, 1), the same for each class. `seed` decides on
    phases, noise and crops; `snapshots_at` holds numbers of iterations, 0 being the start. Returns
    `ClassImages`, whose scores are the crops' means.
    Raises TypeError or ValueError for classes that the network does not have, another magnitude and
    settings out of range.

    Fel et al.: "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
    Optimization", NeurIPS 2023 (arXiv 2306.06805), section 3.
    """
    check_settings(classes, iterations, snapshots_at, 0, learning_rate=learning_rate, noise=noise)
    check_counts(crops=crops)
    if not 0 < sides[0] <= sides[1] <= 1:
        raise ValueError(f"sides is {sides}, expected 0 < smallest <= largest <= 1")
    side = magnitude.shape[-2]
    if magnitude.shape != (3, side, side // 2 + 1) or not (magnitude >= 0).all():
        raise ValueError(
            f"magnitude has shape {tuple(magnitude.shape)}, expected (3, S, S // 2 + 1), at least 0"
        )
    mean, size = network.mean, network.input_size
    count = class_count(network, torch.full((1, 3, size, size), 0.5).to(mean))
    classes = check_labels(classes, len(classes), count, "classes").to(mean.device)
    magnitude = magnitude.to(mean)

    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    first = torch.randn(1, *magnitude.shape, generator=generator).to(mean)
    phase = first.repeat(len(classes), 1, 1, 1).requires_grad_()
    optimizer = torch.optim.NAdam([phase], learning_rate)
    film = Film(snapshots_at, image_of(phase.detach(), magnitude))
    for _ in runtime.progress(range(iterations), "class images"):
        squares = [_square(sides, generator) for _ in range(crops)]
        shape = 1, 3, side, side
        change = noise * torch.randn(shape, generator=generator)
        change = (change + noise * (torch.rand(shape, generator=generator) - 0.5)).to(mean)

        def gradients_of_part(φ, own, squares=squares, change=change):
            with torch.enable_grad():
                x = image_of(φ.requires_grad_(), magnitude) + change
                views = torch.cat([_crop(x, *square, size) for square in squares]).clamp(0, 1)
                scores = network(views).unflatten(0, (crops, -1)).mean(0)
                score = scores.gather(1, own[:, None])[:, 0]
                return score.detach(), *torch.autograd.grad(-score.sum(), φ)

        score, phase.grad = in_batches(gradients_of_part, phase, classes, name="classes")
        optimizer.step()
        film.add(score, lambda: image_of(phase.detach(), magnitude))
    return film.result(image_of(phase.detach(), magnitude))


def _square(sides, generator):
    """Draw a side, as a share of the image's, and a centre, in halves of it, of a square in it."""
    side, down, across = torch.rand(3, generator=generator).tolist()
    side = sides[0] + (sides[1] - sides[0]) * side
    return side, (1 - side) * (2 * across - 1), (1 - side) * (2 * down - 1)


def _crop(images, side, across, down, size):
    """Return a square of images (N, 3, S, S), resized to `size` pixels."""
    matrix = torch.tensor([[side, 0, across], [0, side, down]]).to(images)
    shape = len(images), 3, size, size
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
