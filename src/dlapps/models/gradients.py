"""Gradients of class scores with respect to images, and the check of the labels they are for."""

import torch

from dlapps import runtime
from dlapps.models.checks import check_images


def score_gradients(network, images, labels, at_once=None):
    """Return the scores (N, K) and d scores[n, labels[n]] / d images[n], (N, 3, H, W).

    One backward pass serves a batch: an image's score depends on no other image, so the gradient of
    the sum of the scores holds every image's own gradient. at_once: how many images a batch has, by
    default all of them; memory grows with it and hardly with N.
    Raises TypeError or ValueError for images that are not float (N, 3, H, W) in [0, 1], N at least
    1, and for labels that are not N integers among the K classes; MemoryError for too many images.
    """
    check_images(images)
    found = []
    for part in images.detach().split(at_once or len(images)):
        part.requires_grad_()
        with torch.enable_grad(), runtime.naming_memory("images", f"a batch of {len(part)}"):
            scores = network(part)
            if not found:
                labels = check_labels(labels, len(images), scores.shape[1]).to(scores.device)
                of_parts = iter(labels.split(at_once or len(images)))
            chosen = scores.gather(1, next(of_parts)[:, None])
            (gradients,) = torch.autograd.grad(chosen.sum(), part)
        found.append((scores.detach(), gradients))
    scores, gradients = map(torch.cat, zip(*found, strict=True))
    return scores, gradients


def unit(vectors):
    """Return vectors (N, ...), each divided by its Euclidean norm; a zero vector stays zero."""
    norms = vectors.flatten(1).norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors / norms.view(-1, *[1] * (vectors.ndim - 1))


def check_labels(labels, count, classes, name="labels"):
    """Return `labels` as an int64 tensor; raise unless it is `count` integers below `classes`."""
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} is {labels!r}, expected integers") from None
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} is {labels.dtype}, expected integers")
    if labels.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(labels.shape)}, expected ({count},)")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"{name} holds {outside[0].item()}, expected 0 to {classes - 1}")
    return labels.long()
