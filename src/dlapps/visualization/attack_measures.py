"""Practical 2, what an attack achieved: how often it succeeds, and how large its changes are."""

from dlapps.models.checks import check_images
from dlapps.models.gradients import check_labels
from dlapps.visualization.attacks import is_adversarial, scores_of


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
    scores = scores_of(network, changed)
    labels = check_labels(labels, *scores.shape).to(scores.device)
    success = is_adversarial(scores.argmax(1), labels, targeted)
    rounded = scores_of(network, (changed * 255).round() / 255).argmax(1)
    saved = success & is_adversarial(rounded, labels, targeted)
    difference = (changed - originals).flatten(1)[success]
    lengths, largest = difference.norm(dim=1), difference.abs().amax(1)
    return {
        "success": success.double().mean().item(),
        "success_8bit": saved.double().mean().item(),
        "l2": lengths.median().item() if len(lengths) else None,
        "linf": largest.median().item() if len(largest) else None,
    }
