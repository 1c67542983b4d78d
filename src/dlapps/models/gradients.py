"""Gradients of class scores with respect to images, few images at a time, and their labels."""

import torch
from torch import Tensor

from dlapps import runtime
from dlapps.checks import check_images


def score_gradients(network, images: Tensor, labels) -> list[Tensor]:
    """Return the scores (N, K) and d scores[n, labels[n]] / d images[n], (N, 3, H, W).

    One backward pass serves a batch: an image's score depends on no other image, so the gradient of
    the sum of the scores holds every image's own gradient.
    Raises TypeError or ValueError for images that are not float (N, 3, H, W) in [0, 1], N at least
    1, and for labels that are not N integers among the K classes; MemoryError for too many images.
    """
    check_images(images)
    labels = check_integers(labels, len(images))

    def checked(part):
        scores = network(part)
        check_classes(labels, scores.shape[1])
        return scores

    return class_gradients(checked, images, labels.to(images.device))


def class_gradients(network, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return what `score_gradients` does, without its checks: in a loop no GPU shall wait for them.

    labels: int64 (N,), on the device of the images.
    """

    def gradients_of_part(part, own):
        with torch.enable_grad():
            scores = network(part.requires_grad_())
            chosen = scores.gather(1, own[:, None])
            return scores.detach(), *torch.autograd.grad(chosen.sum(), part)

    return in_batches(gradients_of_part, images, labels)


def class_count(network, images: Tensor) -> int:
    """Return how many classes a network has, from its scores of the first of the images."""
    with torch.no_grad():
        return network(images[:1]).shape[1]


def in_batches(function, *tensors: Tensor, name: str = "images") -> list[Tensor]:
    """Return what a function has of tensors (N, ...), at most `runtime.images_at_once` rows a call.

    The function gets detached parts of the tensors and returns a tuple of tensors, as many rows
    each; returned is a list of those tensors, joined to (N, ...). What the network needs in between
    is freed after each part, so that memory hardly grows with N.
    Raises MemoryError that says how many of the argument `name` were too many.
    """
    count = runtime.images_at_once(tensors[0].device)
    found = []
    for part in zip(*(tensor.detach().split(count) for tensor in tensors), strict=True):
        with runtime.naming_memory(name, f"a batch of {len(part[0])}"):
            found.append(function(*part))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def unit(vectors: Tensor) -> Tensor:
    """Return vectors (N, ...), each divided by its Euclidean norm; a zero vector stays zero."""
    norms = vectors.flatten(1).norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors / norms.view(-1, *[1] * (vectors.ndim - 1))


def check_labels(labels, count: int, classes: int, name: str = "labels") -> Tensor:
    """Return `labels` as an int64 tensor; raise unless it is `count` integers below `classes`."""
    labels = check_integers(labels, count, name)
    check_classes(labels, classes, name)
    return labels


def check_integers(labels, count: int, name: str = "labels") -> Tensor:
    """Return `labels` as an int64 tensor; raise unless it is `count` integers."""
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {labels!r}, expected integers") from None
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} is {labels.dtype}, expected integers")
    if labels.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(labels.shape)}, expected ({count},)")
    return labels.long()


def check_classes(labels: Tensor, classes: int, name: str = "labels") -> None:
    """Raise unless integers, a tensor, are all from 0 to `classes` - 1."""
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"{name} holds {outside[0].item()}, expected 0 to {classes - 1}")
