"""Practical 2, class images: what an image would have to be to get the highest score of a class."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.checks import check_counts, check_images
from dlapps.files import Checkpoint, fingerprint
from dlapps.models.gradients import check_labels, class_count, class_gradients, in_batches, unit


@dataclass(frozen=True)
class ClassImages:
    """What `maximise` made for N classes in T iterations.

    images: (N, 3, H, W) in [0, 1]; scores: (T, N), the class's score before each iteration, of the
    shifted image; snapshots: (S, N, 3, H, W) on the CPU, the images after each of `snapshots_at`.
    """

    images: Tensor
    scores: Tensor
    snapshots: Tensor


class Film:
    """The scores of each iteration, and images after those iterations that are asked for."""

    def __init__(self, snapshots_at, first):
        self.snapshots_at, self.scores, self.images = snapshots_at, [], {0: first.cpu()}

    def add(self, score, image):
        """Add an iteration; image: a function that returns the images after it."""
        self.scores.append(score)
        if len(self.scores) in self.snapshots_at:
            self.images[len(self.scores)] = image().cpu()

    def result(self, images):
        chosen = [self.images[number] for number in self.snapshots_at]
        chosen = torch.stack(chosen) if chosen else torch.empty(0, *images.shape)
        return ClassImages(images, torch.stack(self.scores), chosen)


def ascent_step(z: Tensor, g: Tensor, η: float, λ: float) -> Tensor:
    """Return z + η d / ||d||_2 with d = g - 2 λ z, the gradient of score - λ ||z||_2^2.

    z are images (N, 3, H, W) in the network's normalised space, g (N, 3, H, W) the gradients of
    their scores there. η is the Euclidean length of the step of each image, λ the weight of the
    penalty (Simonyan et al., ICLR workshop 2014, eq. 1). Where d is 0, z stays.
    """
    return z + η * unit(g - 2 * λ * z)


@runtime.keep_freed_memory()
def maximise(
    network: nn.Module, classes: Sequence[int], start: Tensor | None = None, iterations=200,
    learning_rate=5.0, l2=1e-3, blur_every: int | None = 10, blur_sigma=0.5, jitter=16, seed=0,
    snapshots_at: Sequence[int] = (),
) -> ClassImages:  # fmt: skip
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

    classes: integers (N,); start: float (N, 3, H, W) in [0, 1], one image per class, or None for
    N(0, 1) noise in normalised space, of the network's input size. `seed` decides on noise and
    shifts; they are the same for each class, so a class's image does not depend on the others.
    `snapshots_at` holds numbers of iterations, 0 being the start. Returns `ClassImages`.
    Raises TypeError or ValueError for classes that the network does not have, other images and
    settings out of range.

    Simonyan, Vedaldi, Zisserman: "Deep Inside Convolutional Networks", ICLR workshop 2014, eq. 1;
    jitter and blur after Mordvintsev et al. (2015) and Yosinski et al. (2015), as in CS231n.
    """
    check_settings(
        classes, iterations, snapshots_at, jitter, learning_rate=learning_rate, l2=l2,
        blur_every=1 if blur_every is None else blur_every, blur_sigma=blur_sigma,
    )  # fmt: skip
    mean, std = network.mean, network.std
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    if start is None:
        size = network.input_size
        noise = torch.randn(1, 3, size, size, generator=generator).to(mean)
        start = (noise * std + mean).clamp(0, 1).expand(len(classes), -1, -1, -1)
    check_images(start, name="start")
    classes = check_labels(classes, len(start), class_count(network, start), "classes")
    classes = classes.to(mean.device)

    x, η, λ = start.detach().clone(), learning_rate, l2
    film = Film(snapshots_at, x)
    for iteration in runtime.progress(range(iterations), "class images"):
        shift = torch.randint(jitter + 1, (2,), generator=generator).tolist()
        x = x.roll(shift, (2, 3))
        scores, ds_dx = class_gradients(network, x, classes)
        # x = mean + std z, so that ds/dz = std ds/dx.
        z = ascent_step((x - mean) / std, std * ds_dx, η, λ)
        x = (mean + std * z).clamp(0, 1).roll([-s for s in shift], (2, 3))
        if blur_every is not None and iteration % blur_every == 0:
            x = _blur(x, blur_sigma)
        film.add(scores.gather(1, classes[:, None])[:, 0], lambda x=x: x)
    return film.result(x)


# The square root of the covariance of the colours of ImageNet's pixels, by columns: light, then
# blue against yellow, then green against magenta (Olah et al., 2017).
COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def colours() -> Tensor:
    """Return C (3, 3), `COLOURS` with a longest column of length 1."""
    correlated = torch.tensor(COLOURS)
    return correlated / correlated.norm(dim=0).max()


class _Spectrum:
    """Images x = sigmoid(C F^-1(a / max(f, 1 / size)^decay)) of complex spectra a (N, 3, f, f, 2).

    They are as large as the network's input, and begin as faint noise, the same in each.
    """

    def __init__(self, network, count, decay, generator):
        mean, self.size = network.mean, network.input_size
        shape = 1, 3, self.size, self.size // 2 + 1, 2
        noise = 0.01 * torch.randn(shape, generator=generator).to(mean)
        self.a = noise.expand(count, *shape[1:]).clone().requires_grad_()
        down, across = torch.fft.fftfreq(self.size)[:, None], torch.fft.rfftfreq(self.size)[None]
        frequency = (down**2 + across**2).sqrt().clamp_min(1 / self.size)
        self.weight = (self.size / frequency**decay).to(mean)
        self.colours = colours().to(mean)

    def images(self, a):
        weighted, size = torch.view_as_complex(a) * self.weight, (self.size, self.size)
        planes = torch.fft.irfft2(weighted, s=size) / 4
        return torch.einsum("ck,nkhw->nchw", self.colours, planes).sigmoid()

    def current(self):
        return self.images(self.a).detach()


@runtime.keep_freed_memory()
def maximise_spectrum(
    network: nn.Module, classes: Sequence[int], iterations=256, learning_rate=0.05, decay=1.0,
    jitter=16, scales=(0.8, 1.2), degrees=15.0, seed=0, snapshots_at: Sequence[int] = (),
) -> ClassImages:  # fmt: skip
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
    check_settings(
        classes, iterations, snapshots_at, jitter, learning_rate=learning_rate, degrees=degrees,
        decay=decay,
    )  # fmt: skip
    if not 0 < scales[0] <= scales[1]:
        raise ValueError(f"scales is {scales}, expected 0 < smallest <= largest")
    mean, size = network.mean, network.input_size
    count = class_count(network, torch.full((1, 3, size, size), 0.5).to(mean))
    classes = check_labels(classes, len(classes), count, "classes").to(mean.device)

    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    spectrum = _Spectrum(network, len(classes), decay, generator)
    optimizer = torch.optim.Adam([spectrum.a], learning_rate)
    film = Film(snapshots_at, spectrum.current())
    for _ in runtime.progress(range(iterations), "class images"):
        view = _random_view(jitter * 2 / size, degrees, scales, generator)

        def gradients_of_part(a, own, view=view):
            with torch.enable_grad():
                x = spectrum.images(a.requires_grad_())
                score = network(_view(x, *view)).gather(1, own[:, None])[:, 0]
                return score.detach(), *torch.autograd.grad(-score.sum(), a)

        score, spectrum.a.grad = in_batches(gradients_of_part, spectrum.a, classes, name="classes")
        optimizer.step()
        film.add(score, spectrum.current)
    return film.result(spectrum.current())


def gallery(
    recipe: Callable[..., ClassImages], network: nn.Module, classes: Sequence[int], *,
    batch_size=10, checkpoint: Path | str | None = None, **options,
) -> Tensor:  # fmt: skip
    """Return images (N, 3, H, W) of many classes (N,), `batch_size` of them at a time.

    recipe: `maximise`, `maximise_spectrum` or `magnitude_constrained.maximise_phase`, whose
    `options` these are. An image does not depend
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
        settings = [recipe.__name__, classes.tolist(), batch_size]
        code = sys.modules[recipe.__module__], type(network)
        made_from = fingerprint(settings, options, network.state_dict(), *code)
        kept = Checkpoint(Path(checkpoint), made_from, runtime.machine())
        found, _ = kept.load()
        images = [] if found is None else list(found.split(batch_size))
    batches = classes.split(batch_size)
    for batch in runtime.progress(batches[len(images) :], "batches", len(batches), len(images)):
        images.append(recipe(network, batch, **options).images.cpu())
        if kept:
            kept.save(torch.cat(images), finished=len(images) == len(batches))
    return torch.cat(images).to(network.mean.device)


def _random_view(shift, degrees, scales, generator):
    """Draw what `_view` asks for: an angle, a scale and a shift of at most so much."""

    def draw(low, high):
        return low + (high - low) * torch.rand(1, generator=generator).item()

    shifts = [draw(-shift, shift) for _ in range(2)]
    return math.radians(draw(-degrees, degrees)), draw(*scales), shifts


def _view(images, angle, scale, shift):
    """Turn, scale and shift images (in radians, as a factor, in halves of a side); grey outside."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    matrix = torch.tensor([[cos, -sin, shift[0]], [sin, cos, shift[1]]]).to(images)
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), images.shape, align_corners=False)
    return (F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5).clamp(0, 1)


def _blur(images, sigma):
    size = 2 * math.ceil(4 * sigma) + 1  # what is left out is less than 1e-4 of the Gaussian
    return transforms.gaussian_blur(images, [size, size], [sigma, sigma]).clamp(0, 1)


def check_settings(classes, iterations, snapshots_at, jitter, **settings):
    """Raise unless there are classes, and each setting is in its range."""
    if not len(classes):
        raise ValueError("classes is empty, expected at least one")
    check_counts(iterations=iterations)
    lowest = {"jitter": 0, "l2": 0, "degrees": 0, "decay": 0, "blur_every": 1}  # allowed itself
    for name, value in {"jitter": jitter, **settings}.items():
        enough = value >= lowest[name] if name in lowest else value > 0
        if not (math.isfinite(value) and enough):
            bound = f"at least {lowest[name]}" if name in lowest else "above 0"
            raise ValueError(f"{name} is {value}, expected {bound}")
    for number in snapshots_at:
        if not 0 <= number <= iterations:
            raise ValueError(f"snapshots_at holds {number}, expected 0 to {iterations} iterations")
