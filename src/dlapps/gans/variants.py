"""Variants of a GAN as entries of a list, trained and measured one by one, or many at once."""

import re
import zlib
from dataclasses import asdict, dataclass, field
from functools import cached_property

import torch
from joblib import Parallel, delayed
from torchvision.transforms.v2 import functional as transforms

from dlapps import gans, runtime
from dlapps.files import Checkpoint, fingerprint
from dlapps.gans import judging, measures
from dlapps.models import gan

MODELS = {
    "DCGAN": (gan.DCGANGenerator, gan.DCGANDiscriminator),
    "cDCGAN": (gan.ConditionalDCGANGenerator, gan.ConditionalDCGANDiscriminator),
    "cDCGAN, D without labels": (gan.ConditionalDCGANGenerator, gan.DCGANDiscriminator),
    "cGAN": (gan.ConditionalGANGenerator, gan.ConditionalGANDiscriminator),
}


@dataclass(frozen=True)
class Variant:
    """One way to train a GAN: a name, a model of MODELS and what differs from its defaults.

    generator, discriminator: keyword arguments of the two networks; settings: of
    `gans.Settings`. dcgan_weights: whether the weights are drawn as DCGAN's
    (`gan.init_weights`), not as PyTorch does. gan_train: whether a classifier is trained on
    generated images as well.
    """

    name: str
    model: str = "DCGAN"
    generator: dict = field(default_factory=dict)
    discriminator: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    dcgan_weights: bool = True
    gan_train: bool = False

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"model is {self.model!r}, expected one of {', '.join(MODELS)}")
        gans.Settings(**self.settings)

    def networks(self):
        """Return the generator and the discriminator with the seed's initial weights."""
        runtime.seed_everything(self.settings.get("seed", 0))
        kinds, options = MODELS[self.model], (self.generator, self.discriminator)
        networks = [kind(**keywords) for kind, keywords in zip(kinds, options, strict=True)]
        return [n.apply(gan.init_weights) for n in networks] if self.dcgan_weights else networks


@dataclass(frozen=True)
class Benchmark:
    """What variants are trained and measured on: real images, and a judge that has read others.

    images, labels: uint8 (N, C, H, W) and int64 (N,), to train on.
    test, test_labels: the same of other real images, to compare with.
    judge: a trained `models.judge.Judge`.
    """

    images: torch.Tensor
    labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor
    judge: torch.nn.Module

    @cached_property
    def reference(self):
        """The test images as variants are compared with them, see `Reference`."""
        return Reference(self.judge, self.test, self.test_labels)


class Reference:
    """Real images as a judge reads them: features, labels, and the radii of `neighbourhoods`."""

    def __init__(self, judge, images, labels):
        self.judge, self.labels = judge, labels
        self.features, _ = judging.features_and_classes(judge, images)
        self.radii = measures.radii(self.features)
        self.class_radii = measures.class_radii(self.features, labels)


def run(variant, benchmark, folder, snapshots=()):
    """Train one variant and measure it; return a dictionary of the result.

    Checkpoint and result are kept in `folder`; what is finished is read, not run again. The result
    holds `measures`, `failures`, `records`, `snapshots` and `seconds` (see
    `gans.History`), and the generator's state dict.
    """
    name = re.sub("[^a-z0-9]+", "_", variant.name.lower()).strip("_")
    name += f"-{zlib.crc32(variant.name.encode()):08x}"  # "rate × 10" and "rate ÷ 10" are two
    generator, discriminator = variant.networks()
    settings = gans.Settings(**variant.settings)
    conditional = generator.classes is not None
    made_from = fingerprint(
        [asdict(variant), list(snapshots)],
        benchmark.images, benchmark.labels, benchmark.test, benchmark.test_labels,
        benchmark.judge.state_dict(),
        run, type(benchmark.judge),
    )  # fmt: skip
    kept = Checkpoint(folder / f"{name}-result.pt", made_from, runtime.machine())
    result, _ = kept.load()
    if result is not None:
        return result
    size = variant.generator.get("size", benchmark.images.shape[-1])
    history = gans.train(
        generator,
        discriminator,
        resized(benchmark.images, size),
        benchmark.labels if conditional else None,
        settings,
        fixed=gans.fixed_inputs(generator),
        snapshots=snapshots,
        checkpoint=folder / f"{name}-training.pt",
        description=variant.name,
    )
    result = {
        "measures": measure(generator, benchmark, variant.gan_train)
        if "not finite" not in history.failures
        else None,
        "failures": history.failures,
        "records": history.records,
        "snapshots": history.snapshots,
        "seconds": history.seconds,
        "generator": {name: values.cpu() for name, values in generator.state_dict().items()},
    }
    kept.save(result)
    return result


def run_all(variants, benchmark, folder, snapshots=(), n_jobs=1):
    """Run variants (see `run`), `n_jobs` at a time, and return {name: result}.

    The jobs go through joblib: -1 takes all cores, each with one thread, so that the numbers do
    not depend on how many cores there are. Within `joblib.parallel_config(backend="dask")` they go
    to the workers of a Dask cluster, which must see the same folder.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"variants have the names {names}, expected each only once")
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(run)(variant, benchmark, folder, snapshots) for variant in variants
    )
    bar = runtime.progress(results, "variants", len(variants), disable=len(variants) == 1)
    return dict(zip(names, bar, strict=True))


def measure(generator, benchmark, gan_train=False, seed=1):
    """Return the figures of merit of as many images as in the test set, see `measures`.

    Conditional generators are asked for each class as often; they have three more numbers:
    "agreement", the share in which the judge reads the label asked for; "class coverage"; and, if
    asked, "gan train", the accuracy on real images of a classifier that saw generated ones only.
    """
    count = len(benchmark.test)
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    labels = None if generator.classes is None else torch.arange(count) % generator.classes
    images = resized(gans.generate(generator, z, labels), benchmark.test.shape[-1])
    found = compare(benchmark.reference, images, labels)
    if gan_train and labels is not None:
        found["gan train"] = train_on_generated(generator, benchmark, seed)
    return found


def compare(real, images, labels=None):
    """Return the figures of merit of uint8 images (M, C, 32, 32) beside a `Reference`."""
    features, read = judging.features_and_classes(real.judge, images)
    found = {"frechet": measures.frechet_distance(real.features, features)}
    found |= measures.neighbourhoods(real.features, features, real_radii=real.radii)
    shares, variation = measures.class_shares(read, real.judge.head.out_features)
    found |= {"shares": shares.tolist(), "variation": variation}
    if labels is not None:
        found["agreement"] = (read == labels).double().mean().item()
        found["class coverage"] = measures.class_coverage(
            real.features, real.labels, features, labels, real_radii=real.class_radii
        )
    return found


def train_on_generated(generator, benchmark, seed=1):
    """Return the accuracy on the real test images of a judge trained on generated images alone.

    As many images as there are real ones to train on, each class as often (GAN-train; Shmelkov,
    Schmid, Alahari: "How good is my GAN?", ECCV 2018).
    """
    count = len(benchmark.images)
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed + 1))
    labels = torch.arange(count) % generator.classes
    images = resized(gans.generate(generator, z, labels), benchmark.test.shape[-1])
    runtime.seed_everything(seed)
    judge = type(benchmark.judge)(generator.classes, images.shape[1])
    judging.train_judge(judge, images, labels, epochs=3, seed=seed, description="GAN-train")
    read = judging.features_and_classes(judge, benchmark.test)[1]
    return (read == benchmark.test_labels).double().mean().item()


def resized(images, size):
    """Return uint8 images (N, C, H, H) as (N, C, size, size), themselves if they have that size."""
    if images.shape[-1] == size:
        return images
    return transforms.resize(images, [size, size], antialias=True)
