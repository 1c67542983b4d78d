"""Practical 2, class images: what an image would have to be to get the highest score of a class."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.files import Checkpoint, fingerprint
from dlapps.models.checks import check_counts, check_images
from dlapps.models.gradients import check_labels, class_count, class_gradients, in_batches, unit
from dlapps.models.pretrained import resize


@dataclass(frozen=True)
class ClassImages:
    """What `maximise` made for N classes in T iterations.

    images: (N, 3, H, W) in [0, 1]; scores: (T, N), the class's score before each iteration, of the
    shifted image; snapshots: (S, N, 3, H, W) on the CPU, the images after each of `snapshots_at`.
    """

    images: torch.Tensor
    scores: torch.Tensor
    snapshots: torch.Tensor


def ascent_step(z, g, η, λ):
    """Return z + η d / ||d||_2 with d = g - 2 λ z, the gradient of score - λ ||z||_2^2.

    z are images (N, 3, H, W) in the network's normalised space, g (N, 3, H, W) the gradients of
    their scores there. η is the Euclidean length of the step of each image, λ the weight of the
    penalty (Simonyan et al., ICLR workshop 2014, eq. 1). Where d is 0, z stays.
    """
    return z + η * unit(g - 2 * λ * z)


def maximise(
    network,
    classes,
    start=None,
    iterations=200,
    learning_rate=5.0,
    l2=1e-3,
    blur_every=10,
    blur_sigma=0.5,
    jitter=16,
    seed=0,
    snapshots_at=(),
):
    """Climb score_c(z) - l2 ||z||_2^2 from noise or from images, for all classes side by side.

    z = (x - network.mean) / network.std is the image in the network's normalised space, in standard
    deviations of the training images' colours. `l2` and `learning_rate`, the Euclidean length of
    an iteration's step, are in those units, as in the practical; images go in and come out in
    [0, 1]. An iteration
    1. rolls z by a random number of pixels, at most `jitter`, along each axis, so that no structure
       can hang on exact positions,
    2. steps by learning_rate g / ||g||_2, g the objective's gradient,
    3. rolls back, clips to what [0, 1] is in normalised space, and
    4. every `blur_every` iterations, from the first on, blurs by a Gaussian of `blur_sigma` pixels,
       which keeps pixel noise from building up; never if `blur_every` is None.

    classes: integers (N,); start: float (N, 3, H, W) in [0, 1], one image a class, or None for
    N(0, 1) noise in normalised space, of the network's input size. `seed` decides on noise and
    shifts; they are the same for each class, so a class's image does not depend on the others.
    `snapshots_at` holds numbers of iterations, 0 being the start. Returns `ClassImages`.
    Raises TypeError or ValueError for classes that the network does not have, other images and
    settings out of range.

    Simonyan, Vedaldi, Zisserman: "Deep Inside Convolutional Networks", ICLR workshop 2014, eq. 1;
    jitter and blur after Mordvintsev et al. (2015) and Yosinski et al. (2015), as in CS231n.
    """
    _check_settings(iterations, learning_rate, l2, blur_every, blur_sigma, jitter, snapshots_at)
    if not len(classes):
        raise ValueError("classes is empty, expected at least one")
    mean, std = network.mean, network.std
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    if start is None:
        size = network.input_size
        noise = torch.randn(1, 3, size, size, generator=generator).to(mean)
        start = (noise * std + mean).clamp(0, 1).expand(len(classes), -1, -1, -1)
    check_images(start, name="start")
    classes = check_labels(classes, len(start), class_count(network, start), "classes")
    classes = classes.to(mean.device)

    images = start.detach().clone()
    scores, snapshots = [], {0: images.cpu()}
    for iteration in runtime.progress(range(iterations), "class images"):
        shift = torch.randint(jitter + 1, (2,), generator=generator).tolist()
        images = images.roll(shift, (2, 3))
        all_scores, gradients = class_gradients(network, images, classes)
        scores.append(all_scores.gather(1, classes[:, None])[:, 0])

        normalised = (images - mean) / std
        # The chain rule: x = mean + std z, so d score / dz = std d score / dx.
        normalised = ascent_step(normalised, std * gradients, learning_rate, l2)
        images = mean + std * normalised
        images = images.clamp(0, 1).roll([-s for s in shift], (2, 3))
        if blur_every is not None and iteration % blur_every == 0:
            images = _blur(images, blur_sigma)
        if iteration + 1 in snapshots_at:
            snapshots[iteration + 1] = images.cpu()
    chosen = [snapshots[number] for number in snapshots_at]
    chosen = torch.stack(chosen) if chosen else torch.empty(0, *images.shape)
    return ClassImages(images, torch.stack(scores), chosen)


# The square root of the covariance of the colours of ImageNet's pixels, by columns: light, then
# blue against yellow, then green against magenta (Olah et al., 2017).
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def maximise_spectrum(
    network,
    classes,
    iterations=256,
    learning_rate=0.05,
    decay=1.0,
    jitter=16,
    scales=(0.8, 1.2),
    degrees=15.0,
    seed=0,
    snapshots_at=(),
):
    """Climb score_c over the Fourier spectrum of an image, seen from ever other views.

        x = sigmoid(C F^-1(a / max(f, 1 / size)^decay)),

    with a the complex spectrum of three uncorrelated colours, which is what is changed, f the
    frequency in cycles a pixel and C the correlation of the colours of photographs (`COLOURS`). In
    these coordinates all frequencies and colours are as easy to reach as they are common in
    photographs, so that no blur is needed (Olah, Mordvintsev, Schubert: "Feature Visualization",
    Distill 2017, section "Preconditioning and Parameterization"). In each iteration the network
    sees x turned by up to `degrees`, scaled by a factor between `scales` and shifted by up to
    `jitter` pixels along each axis, the same for each class, and Adam changes a.

    classes: integers (N,). The image has the network's input size and begins as faint noise.
    `seed` decides on noise and views, `snapshots_at` holds numbers of iterations, 0 being the
    start. Returns `ClassImages`, whose scores are those of the views.
    Raises TypeError or ValueError for classes that the network does not have and settings out of
    range.
    """
    _check_settings(iterations, learning_rate, 0, None, 1, jitter, snapshots_at)
    if not len(classes):
        raise ValueError("classes is empty, expected at least one")
    if not 0 < scales[0] <= scales[1] or not (degrees >= 0 and decay >= 0):
        raise ValueError(
            f"scales is {scales}, degrees {degrees} and decay {decay}, expected 0 < smallest <= "
            "largest, and numbers of at least 0"
        )
    mean, size = network.mean, network.input_size
    count = class_count(network, torch.full((1, 3, size, size), 0.5).to(mean))
    classes = check_labels(classes, len(classes), count, "classes").to(mean.device)

    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    shape = 1, 3, size, size // 2 + 1, 2
    spectrum = 0.01 * torch.randn(shape, generator=generator).to(mean)
    spectrum = spectrum.expand(len(classes), *shape[1:]).clone().requires_grad_()
    down, across = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    frequency = (down**2 + across**2).sqrt().clamp_min(1 / size)
    weight = (size / frequency**decay).to(mean)
    colours = torch.tensor(COLOURS).to(mean)
    colours /= colours.norm(dim=0).max()

    def image(spectrum):
        planes = torch.fft.irfft2(torch.view_as_complex(spectrum) * weight, s=(size, size)) / 4
        return torch.einsum("ck,nkhw->nchw", colours, planes).sigmoid()

    def draw(low, high):
        return low + (high - low) * torch.rand(1, generator=generator).item()

    optimizer = torch.optim.Adam([spectrum], learning_rate)
    scores, snapshots = [], {0: image(spectrum).detach().cpu()}
    for iteration in runtime.progress(range(iterations), "class images"):
        shift = [draw(-jitter, jitter) * 2 / size for _ in range(2)]
        angle, scale = math.radians(draw(-degrees, degrees)), draw(*scales)

        def gradients_of_part(part, own, angle=angle, scale=scale, shift=shift):
            with torch.enable_grad():
                view = _view(image(part.requires_grad_()), angle, scale, shift)
                score = network(view).gather(1, own[:, None])[:, 0]
                return score.detach(), *torch.autograd.grad(-score.sum(), part)

        score, spectrum.grad = in_batches(gradients_of_part, spectrum, classes, name="classes")
        optimizer.step()
        scores.append(score)
        if iteration + 1 in snapshots_at:
            snapshots[iteration + 1] = image(spectrum).detach().cpu()
    chosen = [snapshots[number] for number in snapshots_at]
    images = image(spectrum).detach()
    chosen = torch.stack(chosen) if chosen else torch.empty(0, *images.shape)
    return ClassImages(images, torch.stack(scores), chosen)


def gallery(recipe, network, classes, *, batch_size=10, checkpoint=None, **options):
    """Return images (N, 3, H, W) of many classes (N,), `batch_size` of them at a time.

    recipe: `maximise` or `maximise_spectrum`, whose `options` these are. An image does not depend
    on the others (up to the rounding of a batch). checkpoint: a path where each finished batch is
    kept; a call with the same arguments goes on after the last one, and what was made from other
    ones is kept beside it (see `files.Checkpoint`).
    Raises as the recipe does, and ValueError for a batch size below 1.
    """
    check_counts(batch_size=batch_size)
    if not len(classes):
        raise ValueError("classes is empty, expected at least one")
    classes = torch.as_tensor(classes)
    images, kept = [], None
    if checkpoint:
        settings = [recipe.__name__, classes.tolist(), batch_size, options]
        code = sys.modules[__name__], type(network)
        made_from = fingerprint(settings, network.state_dict(), *code)
        kept = Checkpoint(Path(checkpoint), made_from, runtime.machine())
        found, _ = kept.load()
        images = [] if found is None else list(found.split(batch_size))
    batches = classes.split(batch_size)
    for batch in runtime.progress(batches[len(images) :], "batches", len(batches), len(images)):
        images.append(recipe(network, batch, **options).images.cpu())
        if kept:
            kept.save(torch.cat(images), finished=len(images) == len(batches))
    return torch.cat(images).to(network.mean.device)


def recognition(network, images, classes):
    """Return a network's top-1 accuracy on class images, and its mean probability of their classes.

    Images (N, 3, H, W) in [0, 1] of `classes` (N,) are resized to the network's input. A network
    that took no part in the optimisation tells whether an image shows its class or only pleases
    the network that it was made for.
    """
    check_images(images)
    parts = resize(network, images).split(8)
    with torch.inference_mode():
        chances = torch.cat([network(part).softmax(1) for part in parts]).cpu()
    classes = check_labels(classes, *chances.shape, "classes").cpu()
    own = chances.gather(1, classes[:, None])
    return (chances.argmax(1) == classes).double().mean().item(), own.mean().item()


def _view(images, angle, scale, shift):
    """Turn, scale and shift images (in radians, as a factor, in halves of a side); grey outside."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    matrix = torch.tensor([[cos, -sin, shift[0]], [sin, cos, shift[1]]]).to(images)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), images.shape, align_corners=False)
    return (F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5).clamp(0, 1)


def _blur(images, sigma):
    size = 2 * math.ceil(4 * sigma) + 1  # what is left out is less than 1e-4 of the Gaussian
    return transforms.gaussian_blur(images, [size, size], [sigma, sigma]).clamp(0, 1)


def _check_settings(iterations, learning_rate, l2, blur_every, blur_sigma, jitter, snapshots_at):
    check_counts(iterations=iterations)
    bounds = {  # (value, lowest, whether the lowest itself is allowed)
        "learning_rate": (learning_rate, 0, False),
        "l2": (l2, 0, True),
        "blur_every": (1 if blur_every is None else blur_every, 1, True),
        "blur_sigma": (blur_sigma, 0, False),
        "jitter": (jitter, 0, True),
    }
    for name, (value, lowest, inclusive) in bounds.items():
        if not (math.isfinite(value) and (value >= lowest if inclusive else value > lowest)):
            raise ValueError(
                f"{name} is {value}, expected {'at least' if inclusive else 'above'} {lowest}"
            )
    for number in snapshots_at:
        if not 0 <= number <= iterations:
            raise ValueError(f"snapshots_at holds {number}, expected 0 to {iterations} iterations")
