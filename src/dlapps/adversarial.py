"""Practical 2, fooling images: changes too small to see that make a network see another class."""

import math
from dataclasses import dataclass

import torch

from dlapps import runtime
from dlapps.models.checks import check_images
from dlapps.models.gradients import check_labels, score_gradients, unit


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
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}, expected at least 1")

    images = images.detach().clone()
    with torch.no_grad():
        scores = network(images)
    first = scores.argmax(dim=1)
    targets = check_labels(targets, *scores.shape, name="targets").to(images.device)
    taken = (first == targets).nonzero().flatten().tolist()
    if taken:
        raise ValueError(
            f"targets[{taken[0]}] is {targets[taken[0]].item()}, expected another class than the "
            "one that the network predicts already"
        )

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
