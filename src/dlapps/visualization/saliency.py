"""Practical 2, where a network looks: maps of how much each pixel matters to a class score.

Every method has one call shape, `method(network, images, labels, **options)`, and returns one map
per image, (N, H, W). A network is in eval mode and gives class scores (N, K) for images
(N, 3, H, W) in [0, 1]; no call changes it or the images. However many images there are, no more
than `runtime.images_at_once` are in the network's memory. `saliency_measures` judges maps.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps import runtime
from dlapps.checks import check_counts, check_images
from dlapps.models.gradients import (
    check_classes,
    check_integers,
    check_labels,
    class_count,
    class_gradients,
    in_batches,
    score_gradients,
)


def gradient(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the saliency maps (N, H, W): max over the channels of |d score / d pixel|.

    images: float (N, 3, H, W) in [0, 1]; labels: integers (N,), the class whose score is explained,
    one per image. A map is in score per unit of pixel value, at least 0.
    Raises as `score_gradients` does.

    Simonyan, Vedaldi, Zisserman: "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps", ICLR workshop 2014, section 3.1.
    """
    x, c = images, labels
    _, ds_dx = score_gradients(network, x, c)
    return ds_dx.abs().amax(dim=1)


@runtime.keep_freed_memory()
def smooth_gradient(
    network: nn.Module, images: Tensor, labels: Tensor, noise=0.15, samples=25, seed=0
) -> Tensor:
    """Return the maps (N, H, W) of the gradient averaged over `samples` noisy copies of an image.

    noise: the standard deviation of the Gaussian noise, in pixel values; the copies are clipped to
    [0, 1]. The gradients are averaged with their signs, so that what chance adds cancels; then the
    largest absolute value over the channels is taken, as in `gradient`. `seed` decides on the
    noise, which is the same for each image.
    Raises as `score_gradients` does, and ValueError for `noise` or `samples` that is not positive.

    Smilkov, Thorat, Kim, Viégas, Wattenberg: "SmoothGrad: removing noise by adding noise", 2017,
    section 3.
    """
    if not noise > 0:
        raise ValueError(f"noise is {noise}, expected a standard deviation above 0")
    check_counts(samples=samples)
    images, labels = _check(network, images, labels)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    total = torch.zeros_like(images)
    for _ in runtime.progress(range(samples), "SmoothGrad"):
        change = noise * torch.randn(1, *images.shape[1:], generator=generator)
        noisy = (images + change.to(images)).clamp(0, 1)
        total += class_gradients(network, noisy, labels)[1]
    return (total / samples).abs().amax(dim=1)


@runtime.keep_freed_memory()
def integrated_gradients(
    network: nn.Module, images: Tensor, labels: Tensor, baseline: float | Tensor = 0.0, steps=50
) -> Tensor:
    """Return the maps (N, H, W) of what each pixel adds to the score on the way from `baseline`.

        (x - b) * integral from 0 to 1 of d score(b + t (x - b)) / dx dt,

    summed over the channels: a map has both signs, and its sum is score(x) - score(b) up to the
    error of the integration (completeness). baseline: an image b, (3, H, W) in [0, 1], or one pixel
    value, by default black. The integral is a Gauss-Legendre sum of `steps` points.
    Raises as `score_gradients` does, and ValueError for another baseline or no steps.

    Sundararajan, Taly, Yan: "Axiomatic Attribution for Deep Networks", ICML 2017, eq. 1.
    """
    check_counts(steps=steps)
    images, labels = _check(network, images, labels)
    baseline = torch.as_tensor(baseline).to(images)
    if baseline.ndim and baseline.shape != images.shape[1:]:
        raise ValueError(
            f"baseline has shape {tuple(baseline.shape)}, expected {tuple(images.shape[1:])} or "
            "one number"
        )
    if not ((baseline >= 0) & (baseline <= 1)).all():
        raise ValueError("baseline has values outside [0, 1]")
    change = images - baseline
    total = torch.zeros_like(images)
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    ways = zip(((1 + points) / 2).tolist(), (weights / 2).tolist(), strict=True)
    for part, weight in runtime.progress(ways, "integrated gradients", steps):
        between = (baseline + part * change).clamp(0, 1)
        total += weight * class_gradients(network, between, labels)[1]
    return (change * total).sum(1)


def grad_cam(
    network: nn.Module, images: Tensor, labels: Tensor, layer: str | None = None
) -> Tensor:
    """Return the maps (N, H, W) of where the channels of a layer that raise the score are active.

        ReLU(sum over channels k of a_k A_k), a_k = mean over space of d score / d A_k,

    for the maps A of `layer`, resized to the images (bilinear). A map is at least 0. layer: a name
    of `network.layers` whose output has a height and a width, by default `map_layers`' last.
    Raises as `score_gradients` does, and ValueError for another layer.

    Selvaraju et al.: "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, eq. 1 and 2.
    """
    check_images(images)
    if layer is None:
        layer = map_layers(network, images[:1])[-1]
    elif layer not in network.layers:
        raise ValueError(f"layer is {layer!r}, expected one of {', '.join(network.layers)}")
    labels = check_integers(labels, len(images))

    def maps_of_part(part, own):
        with torch.enable_grad():
            # The weights may be frozen: it is the image that makes the maps differentiable.
            found = network.activations(part.requires_grad_(), [layer, network.layers[-1]])
            active, scores = found[layer], found[network.layers[-1]].flatten(1)
            check_classes(labels, scores.shape[1])
            if not _has_space(active):
                raise ValueError(
                    f"layer is {layer!r}, expected one whose output has height and width"
                )
            chosen = scores.gather(1, own[:, None])
            (gradients,) = torch.autograd.grad(chosen.sum(), active)
        weighted = F.relu((gradients.mean((2, 3), keepdim=True) * active.detach()).sum(1, True))
        return (F.interpolate(weighted, images.shape[2:], mode="bilinear")[:, 0],)

    return in_batches(maps_of_part, images, labels.to(images.device))[0]


def map_layers(network: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the layers whose output for images has a height and a width.

    images: float (N, 3, H, W); only their size matters.
    """
    with torch.inference_mode():
        found = network.activations(images, network.layers)
    return [name for name in network.layers if _has_space(found[name])]


def _has_space(output):
    return output.ndim == 4 and output.shape[2:] != (1, 1)


def _check(network, images, labels):
    """Return the images without a graph and the labels on their device; raise for others."""
    check_images(images)
    images = images.detach()
    labels = check_labels(labels, len(images), class_count(network, images))
    return images, labels.to(images.device)
