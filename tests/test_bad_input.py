"""Generated bad arguments of public functions: an error of ours that names them, nothing else."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import dlapps
from dlapps import adaptation, datasets, gans, runtime, transfer
from dlapps.artifacts import Artifacts
from dlapps.gans import judging, variants
from dlapps.models import dann, features, gan, pretrained
from dlapps.models.judge import Judge
from dlapps.transfer import fine_tuning
from dlapps.visualization import (
    attack_measures,
    black_box,
    class_image_measures,
    class_images,
    saliency,
    saliency_measures,
    white_box,
)

EXAMPLES = 12  # values for each argument
SOURCE = Path(dlapps.__file__).parent

torch.manual_seed(0)
IMAGES = torch.rand(2, 3, 8, 8)
BYTES = torch.randint(0, 256, (40, 1, 32, 32), dtype=torch.uint8)
PHOTOGRAPH = BYTES[0].expand(3, -1, -1)
DIGITS = datasets.ImageSet(
    BYTES[:, :, :28, :28], torch.arange(40) % 10, tuple("0123456789"), "noise"
)


class Tiny(nn.Module):
    """A classifier of 10 classes with what class images ask of a network."""

    input_size = 8
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10))

    def forward(self, images):
        return self.layers(images)


NETWORK = Tiny().eval()
with torch.no_grad():
    PREDICTED = NETWORK(IMAGES).argmax(1)
SQUEEZENET = pretrained.build("squeezenet1_1")

ZEROS, ONES = torch.zeros(5), torch.ones(5)

not_positive = st.floats(max_value=0) | st.just(math.nan)
negative = st.floats(max_value=-1e-9) | st.just(math.nan)
below_1 = st.integers(max_value=0)
not_counts = below_1 | st.sampled_from([2.5, math.nan, "3", True])
not_names = st.text(max_size=8).filter(lambda text: text not in datasets.NAMES) | st.integers()
outside_0_1 = st.floats(min_value=1.001) | st.floats(max_value=-1e-3) | st.just(math.nan)
not_images = st.sampled_from(
    [
        IMAGES[0], IMAGES[:0], IMAGES[:, :2], IMAGES[None], IMAGES + 1, -IMAGES, IMAGES * math.nan,
        (IMAGES * 255).to(torch.uint8), IMAGES.long(), IMAGES.numpy(), None, "images", 1.0,
    ]
)  # fmt: skip
WIDE = torch.rand(2, 3, 32, 32)  # for what blurs images
not_wide = not_images | st.just(IMAGES)
not_labels = st.sampled_from(
    [
        [0], [0, 1, 2], [], [0, 10], [-1, 0], [0.5, 1.0], [True, False], None, ["a", "b"],
        [[0], [1, 2]], torch.zeros(2, 1, dtype=int),
    ]
)  # fmt: skip
not_bytes = st.sampled_from(
    [BYTES.float(), BYTES[0], BYTES[:0], BYTES.expand(-1, 2, -1, -1), BYTES.numpy(), None, "images"]
)
not_noise = st.sampled_from([torch.randn(2, 99), torch.randn(100), torch.randn(0, 100)])
not_rows = st.sampled_from([np.zeros(40), np.full((40, 3), np.nan), np.zeros((39, 3))])

FEATURES, LABELS = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 4
GENERATOR, CONDITIONAL = gan.DCGANGenerator(width=4), gan.ConditionalDCGANGenerator(width=4)


def attack_of(attack):
    def call(images=IMAGES, labels=PREDICTED, **options):
        return attack(NETWORK, images, labels, **options)

    return call


def maps_of(method):
    def call(images=IMAGES, labels=PREDICTED, **options):
        return method(NETWORK, images, labels, **options)

    return call


def extract(images=BYTES, layers=("fire9",), **options):
    return features.extract(SQUEEZENET, images, layers, cache=False, quiet=True, **options)


def train_gan(images=BYTES, labels=None, **options):
    generator = GENERATOR if labels is None else CONDITIONAL
    return gans.train(
        generator, gan.DCGANDiscriminator(width=4), images, labels,
        gans.Settings(batch_size=20, **options),
        fixed=gans.fixed_inputs(generator, 2),
    )  # fmt: skip


def train_dann(target_images=DIGITS.images, target_labels=None, batch_size=20):
    return adaptation.train(
        dann.DANN(), DIGITS, target_images, adaptation.Settings(batch_size=batch_size),
        tests=(DIGITS, DIGITS), target_labels=target_labels,
    )  # fmt: skip


# What is called, and for each of its arguments what it must refuse.
CASES = {
    "gradient": (maps_of(saliency.gradient), {"images": not_images, "labels": not_labels}),
    "smooth_gradient": (
        maps_of(saliency.smooth_gradient),
        {"images": not_images, "labels": not_labels, "noise": not_positive, "samples": not_counts},
    ),
    "integrated_gradients": (
        maps_of(saliency.integrated_gradients),
        {"images": not_images, "labels": not_labels, "baseline": outside_0_1, "steps": not_counts},
    ),
    "perturbation_curves": (
        lambda images=WIDE, labels=PREDICTED, maps=WIDE[:, 0], mode="deletion", steps=4: (
            saliency_measures.perturbation_curves(
                nn.Sequential(nn.AdaptiveAvgPool2d(8), NETWORK), images, labels, maps, mode, steps
            )
        ),
        {
            "images": not_wide,
            "maps": st.sampled_from([WIDE, WIDE[:, 0] * math.nan, WIDE[:1, 0]]),
            "mode": not_names,
            "labels": not_labels,
            "steps": not_counts,
        },
    ),
    "grad_cam": (
        lambda images=WIDE, labels=(1, 2), layer="fire9": saliency.grad_cam(
            SQUEEZENET, images, labels, layer
        ),
        {
            "images": not_images,
            "labels": not_labels.filter(lambda labels: labels != [0, 10]) | st.just([0, 1000]),
            "layer": not_names | st.just("logits"),
        },
    ),
    "randomised": (
        lambda layers=1: saliency_measures.randomise(NETWORK, layers),
        {"layers": st.integers(max_value=-1) | st.integers(min_value=3)},
    ),
    "measure": (
        lambda originals=IMAGES, changed=IMAGES, labels=PREDICTED: attack_measures.measure(
            NETWORK, originals, changed, labels
        ),
        {
            "originals": not_images,
            "changed": not_images | st.just(IMAGES[:1]) | st.just(WIDE),
            "labels": not_labels,
        },
    ),
    "fgsm": (
        attack_of(white_box.fgsm),
        {"images": not_images, "labels": not_labels, "epsilon": not_positive},
    ),
    "pgd": (
        attack_of(white_box.pgd),
        {
            "images": not_images,
            "labels": not_labels,
            "epsilon": not_positive,
            "steps": not_counts,
            "step": not_positive,
            "norm": not_names,
        },
    ),
    "carlini_wagner": (
        attack_of(white_box.carlini_wagner),
        {"constant": not_positive, "steps": not_counts, "learning_rate": not_positive},
    ),
    "minimal_norm": (
        attack_of(white_box.ddn),
        {"steps": not_counts, "radius": not_positive, "images": not_images},
    ),
    "one_pixel": (
        attack_of(black_box.one_pixel),
        {"pixels": not_counts, "population": not_counts, "generations": not_counts},
    ),
    "square": (attack_of(black_box.square), {"epsilon": not_positive, "max_queries": not_counts}),
    "nes": (attack_of(black_box.nes), {"samples": not_counts, "noise": not_positive}),
    "fool": (
        lambda images=IMAGES, targets=(PREDICTED + 1) % 10, **options: white_box.fool(
            NETWORK, images, targets, **options
        ),
        {
            "images": not_images,
            "targets": not_labels | st.just(PREDICTED),
            "step": not_positive,
            "max_steps": not_counts,
        },
    ),
    "maximise": (
        lambda classes=(1, 2), **options: class_images.maximise(NETWORK, classes, **options),
        {
            "classes": st.sampled_from([[], [10], [-1], [0.5]]),
            "start": not_images.filter(lambda value: value is not None),
            "iterations": not_counts,
            "learning_rate": not_positive,
            "l2": negative,
            "blur_every": below_1,
            "blur_sigma": not_positive,
            "jitter": st.integers(max_value=-1),
            "snapshots_at": st.sampled_from([[-1], [201]]),
        },
    ),
    "maximise_spectrum": (
        lambda classes=(1, 2), **options: class_images.maximise_spectrum(
            NETWORK, classes, **options
        ),
        {
            "classes": st.sampled_from([[], [10], [-1], [0.5]]),
            "iterations": not_counts,
            "scales": st.sampled_from([(0, 1), (2, 1), (-1, 1)]),
            "degrees": negative,
            "decay": negative,
        },
    ),
    "gallery": (
        lambda classes=(1, 2), **options: class_images.gallery(
            class_images.maximise, NETWORK, classes, iterations=1, **options
        ),
        {"classes": st.sampled_from([[], [10], [-1], [0.5]]), "batch_size": not_counts},
    ),
    "recognised": (
        lambda images=IMAGES, classes=(1, 2): class_image_measures.recognition(
            SQUEEZENET, images, classes
        ),
        {"images": not_images, "classes": st.sampled_from([[], [0], [0, 1000], [-1, 0], None])},
    ),
    "with_normalisation": (
        lambda mean=(0.5,) * 3, std=(0.5,) * 3: SQUEEZENET.with_normalisation(mean, std),
        {
            "mean": st.sampled_from([0.5, [0.5], [0.5] * 4, [math.nan] * 3, [math.inf] * 3]),
            "std": st.lists(not_positive, min_size=3, max_size=3),
        },
    ),
    "top_k": (
        lambda images=WIDE, k=5: transfer.top_k(SQUEEZENET, images, k),
        {"images": not_images, "k": not_counts | st.integers(min_value=1001)},
    ),
    "training_mode_passes": (
        lambda images=WIDE: transfer.training_mode_passes(SQUEEZENET, images, passes=1),
        {"images": not_images},
    ),
    "extract": (
        extract,
        {
            "images": not_bytes,
            "layers": st.sampled_from([[], ["fire99"], ["fire9", ""]]),
            "sizes": st.sampled_from([[], [0], [-64], [6.4], ["64"], [16], [64, 8]]),
            "batch_size": not_counts,
            "bands": not_counts,
            "dtype": st.sampled_from([torch.float64, torch.int8, "float32"]),
        },
    ),
    "pretrained.load": (
        lambda name="squeezenet1_1": pretrained.load(name),
        {"name": not_names},
    ),
    "datasets.load": (
        lambda name="photos", split="test", size=None: datasets.load(name, split, size),
        {
            "name": not_names,
            "split": not_names,
            "size": st.integers(max_value=0) | st.integers(min_value=1025) | st.just(32.5),
        },
    ),
    "load_photographs": (
        lambda source="packaged", split="train": datasets.load_photographs(source, split),
        {"source": not_names, "split": not_names},
    ),
    "build_mnist_m": (
        lambda digits=DIGITS.images, photographs=(PHOTOGRAPH,), **options: datasets.build_mnist_m(
            digits, photographs, **options
        ),
        {
            "digits": not_bytes.filter(
                lambda value: isinstance(value, torch.Tensor) and len(value)
            ),
            "photographs": st.sampled_from(
                [[], [BYTES[0]], [PHOTOGRAPH / 255], [PHOTOGRAPH[:, :27]]]
            ),
            "seed": st.integers(max_value=-1) | st.just(2**64) | st.just(0.5),
            "stream": st.integers(max_value=-1) | st.just(2**64) | st.just(0.5),
        },
    ),
    "ImageSet": (
        lambda images=BYTES, labels=LABELS: datasets.ImageSet(
            images, torch.as_tensor(labels), tuple("0123"), "noise"
        ),
        {
            "images": not_bytes.filter(lambda v: isinstance(v, torch.Tensor) and len(v)),
            "labels": st.sampled_from([[0], [4] * 40, [-1] * 40, [0.0] * 40]),
        },
    ),
    "gans.Settings": (
        gans.Settings,
        {
            "epochs": not_counts,
            "batch_size": not_counts,
            "learning_rate": not_positive | st.just(math.inf),
            "beta1": outside_0_1 | st.just(1.0),
            "beta2": outside_0_1 | st.just(1.0),
            "schedule": not_names,
            "discriminator_steps": not_counts,
        },
    ),
    "adaptation.Settings": (
        adaptation.Settings,
        {
            "epochs": not_counts,
            "batch_size": not_counts | st.just(1),
            "learning_rate": not_positive | st.just(math.inf),
            "optimizer": not_names,
            "reversal": st.sampled_from(["", "always", math.nan, math.inf]),
            "augment": not_names,
            "consistency": negative,
            "confidence": outside_0_1 | st.just(1.0),
            "decay": outside_0_1 | st.just(1.0),
        },
    ),
    "fine_tuning.Settings": (
        fine_tuning.Settings,
        {"epochs": not_counts, "batch_size": not_counts, "learning_rate": not_positive},
    ),
    "gans.train": (
        train_gan,
        {
            "images": not_bytes | st.just(BYTES[:10]),
            "labels": st.sampled_from([torch.arange(3), torch.zeros(41, dtype=int)]),
        },
    ),
    "adaptation.train": (
        train_dann,
        {
            "target_images": st.just(DIGITS.images[:10]),
            "target_labels": st.sampled_from(
                [torch.zeros(3, dtype=int), torch.zeros(41, dtype=int), torch.full((40,), 10)]
            ),
        },
    ),
    "interpolate": (
        lambda start=ZEROS, end=ONES, steps=3: gans.interpolate(start, end, steps),
        {
            "start": st.sampled_from([torch.zeros(4), torch.zeros(1, 5)]),
            "end": st.sampled_from([torch.zeros(4), torch.zeros(1, 5)]),
            "steps": st.integers(max_value=1),
        },
    ),
    "spread": (lambda images=BYTES: gans.spread(images), {"images": not_bytes}),
    "generator": (lambda z=None: GENERATOR(z), {"z": not_noise}),
    "conditional generator": (
        lambda labels=None: CONDITIONAL(torch.randn(2, 100), labels),
        {
            "labels": st.sampled_from([None, torch.zeros(3, dtype=int), torch.zeros(2)]),
        },
    ),
    "generate": (
        lambda labels=None: gans.generate(CONDITIONAL, torch.randn(2, 100), labels),
        {"labels": st.sampled_from([torch.tensor([0, 10]), torch.tensor([-1, 0])])},
    ),
    "train_judge": (
        lambda images=BYTES, epochs=1, batch_size=20: judging.train_judge(
            Judge(), images, torch.arange(40) % 10, epochs=epochs, batch_size=batch_size
        ),
        {"images": not_bytes, "epochs": not_counts, "batch_size": not_counts},
    ),
    "pseudo_labels": (
        lambda threshold=0.9: adaptation.pseudo_labels(dann.DANN(), DIGITS.images, threshold),
        {"threshold": outside_0_1},
    ),
    "reversal_schedule": (
        lambda p=0.5: adaptation.reversal_schedule(p),
        {"p": outside_0_1},
    ),
    "fit_linear_svm": (
        lambda features=FEATURES, labels=LABELS, C=1.0, normalisation="l2": transfer.fit_linear_svm(
            features, labels, C, normalisation=normalisation
        ),
        {
            "features": not_rows,
            "labels": st.sampled_from([LABELS[:3], np.zeros((40, 1))]),
            "C": not_positive,
            "normalisation": not_names,
        },
    ),
    "random_splits": (
        lambda labels=LABELS, per_class=5, count=2: transfer.random_splits(
            labels, per_class, count
        ),
        {"per_class": not_counts | st.integers(min_value=10), "count": not_counts},
    ),
    "pca_curve": (
        lambda dimensions=(1, 2): transfer.pca_curve(
            FEATURES, LABELS, FEATURES, LABELS, dimensions
        ),
        {"dimensions": st.lists(st.integers(max_value=0) | st.integers(min_value=4), min_size=1)},
    ),
    "Variant": (lambda model="DCGAN": variants.Variant("one", model), {"model": not_names}),
    "fine_tuning.train": (
        lambda data=DIGITS: fine_tuning.train(
            fine_tuning.Classifier(SQUEEZENET, 10), data, fine_tuning.Settings()
        ),
        {"data": st.integers(1, 15).map(lambda count: DIGITS.subset(range(count)))},
    ),
    "record": (
        lambda name="number", value=1: Artifacts("1_bad").record(
            {name: value}, unit="", data="", model="", seed=0
        ),
        {
            "name": st.sampled_from(["", "_", "!?", "ß·"]),
            "value": st.sampled_from([math.nan, math.inf, "1", True, {}, [1, "a"], [math.nan]]),
        },
    ),
    "save_animation": (
        lambda frames=None: Artifacts("1_bad").save_animation(frames, "film"),
        {"frames": st.sampled_from([np.zeros((2, 1, 4, 4)), np.zeros((0, 3, 4, 4)), np.zeros(3)])},
    ),
}
PAIRS = [(name, argument) for name, (_, refused) in CASES.items() for argument in refused]


@pytest.mark.parametrize(("name", "argument"), PAIRS)
def test_a_bad_argument_is_refused_by_name(name, argument, tmp_path, monkeypatch):
    """Generated values, one at a time; the error comes from this package's own code."""
    monkeypatch.setattr(runtime, "project_root", lambda: tmp_path)
    monkeypatch.setenv("DLAPPS_DATA", str(tmp_path))
    call, refused = CASES[name]

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(refused[argument])
    def check(value):
        with pytest.raises((TypeError, ValueError, datasets.DatasetError)) as caught:
            call(**{argument: value})
        assert re.search(rf"\b{argument}\b", str(caught.value))
        last = Path(caught.traceback[-1].path)
        assert last.is_relative_to(SOURCE), f"raised in {last}"

    check()
    assert not list(tmp_path.rglob("*"))


def bad_values(name, argument):
    """Return the texts of the distinct values that the test above tries, without a call."""
    found = set()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(CASES[name][1][argument])
    def note(value):
        found.add(repr(value))

    note()
    return found


def test_there_are_at_least_two_hundred_of_them():
    assert sum(len(bad_values(*pair)) for pair in PAIRS) >= 200
