"""Variants of a GAN as entries of a list, trained and measured one by one, or many at once."""

import re
import zlib
from dataclasses import asdict, dataclass, field
from functools import cached_property

import torch
from joblib import Parallel, delayed
from torchvision.transforms.v2 import functional as transforms

from dlapps import gan_measures, gan_training, runtime
from dlapps.files import Checkpoint, fingerprint
from dlapps.models import gans

MODELS = {
    "DCGAN": (gans.DCGANGenerator, gans.DCGANDiscriminator),
    "cDCGAN": (gans.ConditionalDCGANGenerator, gans.ConditionalDCGANDiscriminator),
    "cDCGAN, D without labels": (gans.ConditionalDCGANGenerator, gans.DCGANDiscriminator),
    "cGAN": (gans.ConditionalGANGenerator, gans.ConditionalGANDiscriminator),
}


@dataclass(frozen=True)
class Variant:
    """One way to train a GAN: a name, a model of MODELS and what differs from its defaults.

    generator, discriminator: keyword arguments of the two networks; settings: of
    `gan_training.Settings`. own_weights: whether the weights are drawn as DCGAN's
    (`gans.init_weights`), not as PyTorch does. gan_train: whether a classifier is trained on
    generated images as well.
    """

    name: str
    model: str = "DCGAN"
    generator: dict = field(default_factory=dict)
    discriminator: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    own_weights: bool = True
    gan_train: bool = False

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"model is {self.model!r}, expected one of {', '.join(MODELS)}")
        gan_training.Settings(**self.settings)

    def networks(self):
        """Return the generator and the discriminator with the seed's initial weights."""
        runtime.seed_everything(self.settings.get("seed", 0))
        kinds, options = MODELS[self.model], (self.generator, self.discriminator)
        networks = [kind(**keywords) for kind, keywords in zip(kinds, options, strict=True)]
        return [n.apply(gans.init_weights) for n in networks] if self.own_weights else networks


@dataclass(frozen=True)
class Ground:
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
        self.features, _ = gan_measures.read(judge, images)
        self.radii = gan_measures.radii(self.features)
        self.class_radii = gan_measures.class_radii(self.features, labels)


def run(variant, ground, folder, snapshots=()):
    """Train one variant and measure it; return a dictionary of the result.

    Checkpoint and result are kept in `folder`; what is finished is read, not run again. The result
    holds `measures`, `failures`, `records`, `snapshots` and `seconds` (see
    `gan_training.History`), and the generator's state dict.
    """
    name = re.sub("[^a-z0-9]+", "_", variant.name.lower()).strip("_")
    name += f"-{zlib.crc32(variant.name.encode()):08x}"  # "rate × 10" and "rate ÷ 10" are two
    generator, discriminator = variant.networks()
    settings = gan_training.Settings(**variant.settings)
    conditional = generator.classes is not None
    made_from = fingerprint(
        [asdict(variant), list(snapshots)],
        ground.images, ground.labels, ground.test, ground.test_labels, ground.judge.state_dict(),
        run, type(ground.judge),
    )  # fmt: skip
    kept = Checkpoint(folder / f"{name}-result.pt", made_from, runtime.machine())
    result, _ = kept.load()
    if result is not None:
        return result
    size = variant.generator.get("size", ground.images.shape[-1])
    history = gan_training.train(
        generator,
        discriminator,
        resized(ground.images, size),
        ground.labels if conditional else None,
        settings,
        fixed=gan_training.fixed_inputs(generator),
        snapshots=snapshots,
        checkpoint=folder / f"{name}-training.pt",
        description=variant.name,
    )
    result = {
        "measures": measure(generator, ground, variant.gan_train)
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


def run_all(variants, ground, folder, snapshots=(), n_jobs=1):
    """Run variants (see `run`), `n_jobs` at a time, and return {name: result}.

    The jobs go through joblib: -1 takes all cores, each with one thread, so that the numbers do
    not depend on how many cores there are. Within `joblib.parallel_config(backend="dask")` they go
    to the workers of a Dask cluster, which must see the same folder.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"variants have the names {names}, expected each only once")
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(run)(variant, ground, folder, snapshots) for variant in variants
    )
    bar = runtime.progress(results, "variants", len(variants), disable=len(variants) == 1)
    return dict(zip(names, bar, strict=True))


def measure(generator, ground, gan_train=False, seed=1):
    """Return the figures of merit of as many images as there are to test on, see `gan_measures`.

    Conditional generators are asked for each class as often; they have three more numbers:
    "agreement", the share in which the judge reads the label asked for; "class coverage"; and, if
    asked, "gan train", the accuracy on real images of a classifier that saw generated ones only.
    """
    count = len(ground.test)
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    labels = None if generator.classes is None else torch.arange(count) % generator.classes
    images = resized(gan_training.generate(generator, z, labels), ground.test.shape[-1])
    measures = compare(ground.reference, images, labels)
    if gan_train and labels is not None:
        measures["gan train"] = train_on_generated(generator, ground, seed)
    return measures


def compare(real, images, labels=None):
    """Return the figures of merit of uint8 images (M, C, 32, 32) beside a `Reference`."""
    features, read = gan_measures.read(real.judge, images)
    measures = {"frechet": gan_measures.frechet_distance(real.features, features)}
    measures |= gan_measures.neighbourhoods(real.features, features, real_radii=real.radii)
    shares, variation = gan_measures.class_shares(read, real.judge.head.out_features)
    measures |= {"shares": shares.tolist(), "variation": variation}
    if labels is not None:
        measures["agreement"] = (read == labels).double().mean().item()
        measures["class coverage"] = gan_measures.class_coverage(
            real.features, real.labels, features, labels, real_radii=real.class_radii
        )
    return measures


def train_on_generated(generator, ground, seed=1):
    """Return the accuracy on the real test images of a judge trained on generated images alone.

    As many images as there are real ones to train on, each class as often (GAN-train; Shmelkov,
    Schmid, Alahari: "How good is my GAN?", ECCV 2018).
    """
    count = len(ground.images)
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed + 1))
    labels = torch.arange(count) % generator.classes
    images = resized(gan_training.generate(generator, z, labels), ground.test.shape[-1])
    runtime.seed_everything(seed)
    judge = type(ground.judge)(generator.classes, images.shape[1])
    gan_measures.train_judge(judge, images, labels, epochs=3, seed=seed, description="GAN-train")
    read = gan_measures.read(judge, ground.test)[1]
    return (read == ground.test_labels).double().mean().item()


def resized(images, size):
    """Return uint8 images (N, C, H, H) as (N, C, size, size), themselves if they have that size."""
    if images.shape[-1] == size:
        return images
    return transforms.resize(images, [size, size], antialias=True)
