"""What generators are measured on: real images, a judge of them, and the figures of merit."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from dlapps import runtime
from dlapps.datasets.image_set import resize
from dlapps.gans import judging, measures
from dlapps.gans.sampling import generate
from dlapps.models.judge import Judge


@dataclass(frozen=True)
class Benchmark:
    """What variants are trained and measured on: real images, and a judge trained on them.

    images, labels: uint8 (N, C, H, W) and int64 (N,), to train on.
    test, test_labels: the same of other real images, to compare with.
    judge: a trained `models.judge.Judge`.
    """

    images: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    judge: nn.Module

    @cached_property
    def reference(self) -> "Reference":
        """The test images as variants are compared with them, see `Reference`."""
        return Reference(self.judge, self.test, self.test_labels)

    @cached_property
    def accuracy(self) -> float:
        """The judge's accuracy on the test images."""
        return judging.accuracy(self.judge, self.test, self.test_labels)

    def measures_of_real_images(self, seed: int = 0) -> dict:
        """Return what `compare` says of as many training images as there are test images."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self.images), generator=generator)[: len(self.test)]
        return compare(self.reference, self.images[chosen], self.labels[chosen])


def make_benchmark(
    train,
    test,
    *,
    epochs: int,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    description: str = "judge",
) -> Benchmark:
    """Train a judge on the image set `train`; return the `Benchmark` of it and `test`."""
    runtime.seed_everything(seed)
    judge = Judge(len(train.classes), train.images.shape[1])
    judging.train_judge(
        judge, train.images, train.labels,
        epochs=epochs, seed=seed, checkpoint=checkpoint, description=description,
    )  # fmt: skip
    return Benchmark(train.images, train.labels, test.images, test.labels, judge)


class Reference:
    """Real images as a judge sees them: features, labels, and the radii of `neighbourhoods`."""

    def __init__(self, judge: nn.Module, images: Tensor, labels: Tensor):
        self.judge, self.labels = judge, labels
        self.features, _ = judging.features_and_classes(judge, images)
        self.radii = measures.radii(self.features)
        self.class_radii = measures.class_radii(self.features, labels)


def measure(
    generator: nn.Module,
    benchmark: Benchmark,
    gan_train: bool = False,
    seed: int = 1,
    scale: float = 1.0,
) -> dict:
    """Return the figures of merit of as many images as in the test set, see `compare`.

    Conditional generators are asked for each class as often; if wanted, they have one more number:
    "gan train", the accuracy on real images of a classifier that saw generated ones only.
    scale: of the noise; below 1 it stays where the generator was trained most (the truncation trick
    of Brock, Donahue, Simonyan: "BigGAN", ICLR 2019, with a factor for the threshold).
    """
    count = len(benchmark.test)
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    z = scale * z
    labels = None if generator.classes is None else torch.arange(count) % generator.classes
    images = resize(generate(generator, z, labels), benchmark.test.shape[-1])
    figures = compare(benchmark.reference, images, labels)
    if gan_train and labels is not None:
        figures["gan train"] = train_on_generated(generator, benchmark, seed)
    return figures


def compare(real: Reference, images: Tensor, labels: Tensor | None = None) -> dict:
    """Return the figures of merit of uint8 images (M, C, 32, 32) beside a `Reference`.

    {a name of `measures.UNITS`: value}, and "shares", a list of the classes' shares. With the
    labels asked for, (M,), there are "agreement", the share of images that the judge classifies as
    asked, "permuted agreement" and "class coverage" as well.
    """
    features, predicted = judging.features_and_classes(real.judge, images)
    classes = real.judge.head.out_features
    figures = {"frechet": measures.frechet_distance(real.features, features)}
    figures |= measures.neighbourhoods(real.features, features, real_radii=real.radii)
    shares, variation = measures.class_shares(predicted, classes)
    figures |= {"shares": shares.tolist(), "variation": variation}
    if labels is not None:
        figures["agreement"] = (predicted == labels).double().mean().item()
        figures["permuted agreement"] = measures.permuted_agreement(labels, predicted, classes)
        figures["class coverage"] = measures.class_coverage(
            real.features, real.labels, features, labels, real_radii=real.class_radii
        )
    return figures


def train_on_generated(generator: nn.Module, benchmark: Benchmark, seed: int = 1) -> float:
    """Return the accuracy on the real test images of a judge trained on generated images alone.

    As many images as there are real ones to train on, each class as often (GAN-train; Shmelkov,
    Schmid, Alahari: "How good is my GAN?", ECCV 2018).
    """
    count = len(benchmark.images)
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed + 1))
    labels = torch.arange(count) % generator.classes
    images = resize(generate(generator, z, labels), benchmark.test.shape[-1])
    runtime.seed_everything(seed)
    judge = type(benchmark.judge)(generator.classes, images.shape[1])
    judging.train_judge(judge, images, labels, epochs=3, seed=seed, description="GAN-train")
    return judging.accuracy(judge, benchmark.test, benchmark.test_labels)
