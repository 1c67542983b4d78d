"""What all attacks share: what they are after, whether an image is there, and what that took.

An attack is called as `attack(network, images, labels, *, targeted=False, **options)` and returns
an `AttackResult`. Untargeted, `labels` are the classes that the network shall no longer predict;
targeted, those that it shall, and does not yet. However many images there are, no more than
`runtime.images_at_once` are in the network's memory. All work in image space: what they return lies
in [0, 1], and every length is on that scale.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlapps.checks import check_images, check_positive
from dlapps.models.gradients import check_labels, in_batches


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of N images.

    images: (N, 3, H, W) in [0, 1], the original where the attack failed and asks for small changes;
    success: (N,), whether the network predicts what was asked for; gradients and queries: (N,), how
    many gradients and how many passes without one each image took until its attack was done.
    """

    images: Tensor
    success: Tensor
    gradients: Tensor
    queries: Tensor


def is_adversarial(predictions: Tensor, labels: Tensor, targeted=False) -> Tensor:
    """Return whether each of the predictions (N,) is what an attack is after, as Booleans (N,).

    Targeted, that is the label; untargeted, any class but the label.
    """
    return predictions == labels if targeted else predictions != labels


class Attack:
    """An attack on its way: which images are still active, and what each has taken so far.

    Images are (N, 3, H, W) in [0, 1]; `which` are indices of those that a method is given, by
    default all. Raises TypeError or ValueError for images and labels of another form, settings
    that are not positive and a target that is predicted already.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, labels: Tensor, targeted: bool,
        name="labels", **settings,
    ):  # fmt: skip
        check_images(images)
        check_positive(**settings)
        self.network, self.targeted = network, targeted
        self.images = images.detach().clone()
        self.scores = scores_of(network, self.images)  # of the images as they are
        self.predicted = self.scores.argmax(1)
        self.labels = check_labels(labels, *self.scores.shape, name).to(images.device)
        if targeted:
            check_targets(self.predicted, self.labels, name)
        self.success = torch.zeros_like(self.labels, dtype=torch.bool)
        self.gradients, self.queries = (torch.zeros_like(self.labels) for _ in range(2))

    @property
    def active(self) -> Tensor:
        """The indices of the images that have not succeeded."""
        return (~self.success).nonzero().flatten()

    def loss_gradients(self, images: Tensor, which=slice(None)) -> tuple[Tensor, Tensor]:
        """Return scores and the gradient of what is to grow: the cross-entropy, minus it targeted.

        The images that succeed are marked.
        """

        def gradients_of_part(images, labels):
            with torch.enable_grad():
                scores = self.network(images.requires_grad_())
                loss = F.cross_entropy(scores, labels, reduction="sum")
                gradient = torch.autograd.grad(-loss if self.targeted else loss, images)
                return scores.detach(), *gradient

        scores, gradients = in_batches(gradients_of_part, images, self.labels[which])
        self.gradients[which] += 1
        self.mark(scores, which)
        return scores, gradients

    def margin_gradients(
        self, images: Tensor, which=slice(None), smooth=False
    ) -> tuple[Tensor, Tensor]:
        """Return by how much the goal is missed (N,), and the gradient of that, which is to fall.

        The images that succeed are marked. smooth: differentiate the margin to the logarithm of the
        sum of the other scores' exponentials, instead of the largest of them.
        """
        sign = -1 if self.targeted else 1

        def gradients_of_part(images, labels):
            with torch.enable_grad():
                scores = self.network(images.requires_grad_())
                margins = sign * margins_of(scores, labels, smooth)
                return scores.detach(), *torch.autograd.grad(margins.sum(), images)

        scores, gradients = in_batches(gradients_of_part, images, self.labels[which])
        self.gradients[which] += 1
        self.mark(scores, which)
        return self.margins(scores, which), gradients

    def ask(self, images: Tensor, which=slice(None)) -> Tensor:
        """Return the scores, one query each; the images that succeed are marked."""
        scores = scores_of(self.network, images)
        self.queries[which] += 1
        self.mark(scores, which)
        return scores

    def mark(self, scores: Tensor, which=slice(None)) -> None:
        """Say of images with these scores whether they succeed."""
        self.success[which] = is_adversarial(scores.argmax(1), self.labels[which], self.targeted)

    def margins(self, scores: Tensor, which=slice(None)) -> Tensor:
        """Return by how much the goal is missed (N,), below 0 once it is reached."""
        margins = margins_of(scores, self.labels[which])
        return -margins if self.targeted else margins

    def result(self, images: Tensor) -> AttackResult:
        """Return the `AttackResult` of these images, as they are marked."""
        return AttackResult(images, self.success, self.gradients, self.queries)


class Shortest:
    """The shortest changes so far that reached the goal; before there is any, the images."""

    def __init__(self, images: Tensor):
        self.originals, self.images = images, images.clone()
        self.lengths = torch.full((len(images),), math.inf).to(images)

    def keep(self, changed: Tensor, success: Tensor) -> None:
        """Take over the changed images that succeed and are closer to the originals."""
        lengths = (changed - self.originals).flatten(1).norm(dim=1)
        better = success & (lengths < self.lengths)
        self.lengths = torch.where(better, lengths, self.lengths)
        self.images = torch.where(better.view(-1, 1, 1, 1), changed, self.images)


def scores_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return the class scores (N, K), without a graph."""
    with torch.no_grad():
        return in_batches(lambda part: (network(part),), images)[0]


def margins_of(scores: Tensor, labels: Tensor, smooth=False) -> Tensor:
    """Return by how much the label's score (N,) exceeds the largest other.

    smooth: the logarithm of the sum of the others' exponentials in its place.
    """
    own = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], -math.inf)
    return own - (others.logsumexp(1) if smooth else others.amax(1))


def rounded(images: Tensor, levels: int | None) -> Tensor:
    """Return images, clipped to [0, 1] and rounded to so many levels; None rounds nothing."""
    images = images.clamp(0, 1)
    return (images * (levels - 1)).round() / (levels - 1) if levels else images


def closest(attack: Attack, best: Shortest, steps: int) -> AttackResult:
    """Return the result of the shortest changes, each image having taken `steps` gradients."""
    used = torch.full_like(attack.labels, steps)
    return AttackResult(best.images, best.lengths.isfinite(), used, torch.zeros_like(used))


def check_targets(predicted: Tensor, targets: Tensor, name: str) -> None:
    """Raise ValueError where a target is predicted already."""
    taken = (predicted == targets).nonzero().flatten().tolist()
    if taken:
        raise ValueError(
            f"{name}[{taken[0]}] is {targets[taken[0]].item()}, expected another class than the "
            "one that the network predicts already"
        )
