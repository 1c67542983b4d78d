"""What a pretrained network predicts for photographs, in evaluation and in training mode."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from dlapps.checks import check_counts, check_images
from dlapps.datasets import ImageSet


def softmax(s: Tensor) -> Tensor:
    """Return the probabilities of class scores s (..., K), which sum to 1 over the K classes.

        p_i = e^(s_i) / Σ_j e^(s_j)

    Subtracting the largest score first changes no p_i and keeps e^(s_i) from overflowing.
    """
    e = (s - s.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def top_k(network: nn.Module, images: Tensor, k: int = 5) -> tuple[list[list[str]], np.ndarray]:
    """Return the k most probable classes of each image, the most probable first.

    `images` (N, 3, H, W) are floats in [0, 1], as `network.prepare` makes them; the class names are
    `network.categories`. The result is a list of N lists of k class names and a float array (N, k)
    of their softmax probabilities. Raises TypeError or ValueError for other images and for a k that
    is no number of classes.
    """
    check_counts(k=k)
    check_images(images)
    with torch.inference_mode():
        probabilities = softmax(network(images))
    if k > probabilities.shape[1]:
        raise ValueError(f"k is {k}, expected at most the {probabilities.shape[1]} classes")
    probabilities, classes = probabilities.topk(k)
    names = [[network.categories[c] for c in row] for row in classes.tolist()]
    return names, probabilities.cpu().numpy()


def top_k_accuracy(names: Sequence[Sequence[str]], truths: Sequence[str], k: int) -> float:
    """Return the share of images whose true class is among the first k of their `names`."""
    return float(np.mean([t in found[:k] for t, found in zip(truths, names, strict=True)]))


def true_class_scores(network: nn.Module, data: ImageSet) -> dict[str, float]:
    """Return the top-1 accuracy on an ImageSet and the mean probability of the true class."""
    with torch.inference_mode():
        p = network(network.prepare(data.images)).softmax(1).cpu()
    return {
        "top-1": (p.argmax(1) == data.labels).double().mean().item(),
        "probability of the true class": p.gather(1, data.labels[:, None]).mean().item(),
    }


@dataclass(frozen=True)
class Case:
    """An image that shows something about a network: what, the image, its true class."""

    caption: str
    image: Tensor  # (C, H, W)
    truth: str


def example_cases(
    images: Tensor, truths: Sequence[str], names: Sequence[Sequence[str]], p: np.ndarray
) -> list[Case]:
    """Choose seven images by rule: easy, odd, of look-alike classes, and a mistake.

    images: square, uint8 (N, C, S, S); truths: their N classes; names, p: what `top_k` returns. Of
    the image recognised with the highest probability a corner, the picture upside down and an
    enlarged part of its middle are shown as well. Look-alike is where the second choice is most
    probable. Where there is no mistake, the image with the least certain first choice is the last.
    """
    side = images.shape[-1]
    right = np.array([t == found[0] for t, found in zip(truths, names, strict=True)])
    ranking = np.argsort(-p[:, 0], kind="stable")
    easy, second = [i for i in ranking if right[i]][:2]
    mistake = next((i for i in ranking if not right[i]), ranking[-1])
    rivals = np.argsort(-p[:, 1], kind="stable")
    alike = next(i for i in rivals if i not in (easy, second, mistake))

    def window(left, size):
        box = left, left, size, size, [side, side]
        return transforms.resized_crop(images[easy], *box, antialias=True)

    chosen = [
        ("easy", images[easy], easy),
        ("its corner", window(side // 2, side // 2), easy),
        ("upside down", transforms.vertical_flip(images[easy]), easy),
        ("its middle, enlarged", window(7 * side // 16, side // 8), easy),
        ("easy", images[second], second),
        ("look-alike classes", images[alike], alike),
        ("uncertain" if right[mistake] else "confident mistake", images[mistake], mistake),
    ]
    return [Case(caption, image, truths[i]) for caption, image, i in chosen]


def class_similarity(network: nn.Module) -> Tensor:
    """Return the cosines (K, K) between the classes' weights in the last layer of a network.

    Two classes whose weights point the same way get their scores from the same features: to the
    network they look alike.
    """
    layers = [m for m in network.body.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    w = nn.functional.normalize(layers[-1].weight.detach().flatten(1).cpu())
    return w @ w.T


def look_alikes(network: nn.Module, data: ImageSet, pairs: int = 2) -> list[tuple[int, int]]:
    """Return the `pairs` pairs of images whose classes look most alike to a network.

    See `class_similarity`. Each pair holds the indices of two images of different classes, and no
    image is in two pairs. Raises ValueError if there are too few images.
    """
    check_counts(pairs=pairs)
    likeness = class_similarity(network)[data.labels][:, data.labels]
    likeness[data.labels[:, None] == data.labels] = -torch.inf
    found = []
    for _ in range(pairs):
        if likeness.max() == -torch.inf:
            raise ValueError(f"pairs is {pairs}, expected at most {len(found)} of these images")
        first, second = divmod(likeness.argmax().item(), len(data))
        found.append((first, second))
        for i in (first, second):
            likeness[i] = likeness[:, i] = -torch.inf
    return found


def training_mode_passes(
    network: nn.Module, images: Tensor, passes: int = 20, seed: int = 0
) -> Tensor:
    """Return the class probabilities (passes, N, K) of `passes` passes in training mode.

    There dropout removes other units in each pass, and batch norm uses the mean and standard
    deviation of the batch. `images` (N, 3, H, W) are floats in [0, 1], on the device of `network`,
    which stays as it is: a copy is put into training mode. `seed` is that of the dropout. The
    result lies on the CPU. Raises TypeError or ValueError for other images.
    """
    check_images(images)
    model = copy.deepcopy(network).train()
    all_gpus = range(torch.cuda.device_count())  # which manual_seed seeds
    with torch.random.fork_rng(all_gpus), torch.inference_mode():
        torch.manual_seed(seed)
        return torch.stack([model(images).softmax(1).cpu() for _ in range(passes)])


def follow_first_choice(passes: Tensor, evaluation: Tensor) -> tuple[Tensor, Tensor]:
    """Follow the class that evaluation mode puts first through passes in training mode.

    passes: (P, N, K), evaluation: (N, K), probabilities of both. Returns the probability (P, N) of
    that class in each pass, and the share (N,) of the passes in which another class comes first.
    """
    first = evaluation.argmax(1)
    changed = (passes.argmax(2) != first).double().mean(0)
    return passes[:, torch.arange(len(first)), first], changed
