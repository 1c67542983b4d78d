"""Variants of a GAN as entries of a list, trained and measured one by one, or many at once."""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from torch import Tensor, nn

from dlapps import runtime
from dlapps.datasets.image_set import resize
from dlapps.files import Checkpoint, fingerprint
from dlapps.gans.benchmark import Benchmark, measure
from dlapps.gans.sampling import fixed_inputs
from dlapps.gans.trainer import History, Settings, train
from dlapps.models import gan
from dlapps.replacements import carrying

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
        Settings(**self.settings)

    def vary(
        self, name: str, *, generator=None, discriminator=None, dcgan_weights=None, **settings
    ) -> "Variant":
        """Return this variant with another name, and other options of networks or training."""
        return replace(
            self,
            name=name,
            generator=self.generator | (generator or {}),
            discriminator=self.discriminator | (discriminator or {}),
            settings=self.settings | settings,
            dcgan_weights=self.dcgan_weights if dcgan_weights is None else dcgan_weights,
        )

    def networks(self) -> list[nn.Module]:
        """Return the generator and the discriminator with the seed's initial weights."""
        runtime.seed_everything(self.settings.get("seed", 0))
        kinds, options = MODELS[self.model], (self.generator, self.discriminator)
        networks = [kind(**keywords) for kind, keywords in zip(kinds, options, strict=True)]
        return [n.apply(gan.init_weights) for n in networks] if self.dcgan_weights else networks

    @property
    def file_name(self) -> str:
        """The name as part of a file's name; "rate × 10" and "rate ÷ 10" are two."""
        words = re.sub("[^a-z0-9]+", "_", self.name.lower()).strip("_")
        return f"{words}-{zlib.crc32(self.name.encode()):08x}"


@dataclass(frozen=True)
class Outcome:
    """A variant that was trained and measured.

    measures: see `benchmark.measure`, or None if the training diverged; history: of the training;
    weights: the state dict of the finished generator.
    """

    variant: Variant
    measures: dict | None
    history: History
    weights: dict[str, Tensor]

    def generator(self) -> nn.Module:
        """Return the finished generator, on the device that computes."""
        generator, _ = self.variant.networks()
        generator.load_state_dict(self.weights)
        return generator.to(runtime.device())

    def ending(self, record: str, window: int = 100) -> float:
        """Return the mean of a record of `losses.RECORDED` over the last iterations."""
        return float(np.mean(self.history.records[record][-window:]))

    @property
    def lead(self) -> float:
        """How far D is ahead at the end: its probability of real images less that of generated."""
        return self.ending("d_real") - self.ending("d_fake")


@dataclass(frozen=True)
class Runs:
    """A variant that was trained and measured with several seeds: one outcome each."""

    variant: Variant
    outcomes: Sequence[Outcome]

    @property
    def first(self) -> Outcome:
        """The outcome of the first seed, whose images are shown."""
        return self.outcomes[0]

    @property
    def seeds(self) -> list[int]:
        """The seed of each outcome."""
        return [outcome.variant.settings["seed"] for outcome in self.outcomes]

    def values(self, measure: str) -> list[float | None]:
        """Return a figure of merit, or the "lead" of D, for each seed; None where it diverged."""
        if measure == "lead":
            return [outcome.lead for outcome in self.outcomes]
        return [(outcome.measures or {}).get(measure) for outcome in self.outcomes]

    def mean(self, measure: str) -> float:
        """Return the mean of `values` that are not None, NaN if there are none."""
        values = [value for value in self.values(measure) if value is not None]
        return float(np.mean(values)) if values else float("nan")

    def ending(self, record: str, window: int = 100) -> float:
        """Return the mean over the seeds of a record's mean over the last iterations."""
        return float(np.mean([outcome.ending(record, window) for outcome in self.outcomes]))


def train_variant(
    variant: Variant, images: Tensor, labels: Tensor, folder: Path, snapshots: Iterable[int] = ()
) -> tuple[nn.Module, History]:
    """Train one variant on uint8 images (N, C, H, W); return its generator and `History`.

    The checkpoint is kept in `folder`: what is finished is read, not trained again. On a CPU one
    thread computes, so that the numbers do not depend on how many cores there are.
    """
    generator, discriminator = variant.networks()
    settings = Settings(**variant.settings)
    with runtime.one_thread():
        history = train(
            generator,
            discriminator,
            resize(images, variant.generator.get("size", images.shape[-1])),
            None if generator.classes is None else labels,
            settings,
            fixed=fixed_inputs(generator),
            snapshots=snapshots,
            checkpoint=folder / f"{variant.file_name}-seed-{settings.seed}-training.pt",
            description=f"{variant.name}, seed {settings.seed}",
        )
    return generator, history


def run(
    variant: Variant, benchmark: Benchmark, folder: Path, snapshots: Iterable[int] = ()
) -> Outcome:
    """Train one variant (see `train_variant`) and measure it, unless `folder` has the result."""
    made_from = fingerprint(
        [asdict(variant), list(snapshots)],
        benchmark.images, benchmark.labels, benchmark.test, benchmark.test_labels,
        benchmark.judge.state_dict(),
        run, type(benchmark.judge),
    )  # fmt: skip
    kept = folder / f"{variant.file_name}-seed-{variant.settings.get('seed', 0)}-result.pt"
    kept = Checkpoint(kept, made_from, runtime.machine())
    result, _ = kept.load()
    if result is None:
        data = benchmark.images, benchmark.labels
        generator, history = train_variant(variant, *data, folder, snapshots)
        with runtime.one_thread():
            diverged = "not finite" in history.failures
            figures = None if diverged else measure(generator, benchmark, variant.gan_train)
        weights = {name: values.cpu() for name, values in generator.state_dict().items()}
        result = {"measures": figures, "history": vars(history), "weights": weights}
        kept.save(result)
    return Outcome(variant, **(result | {"history": History(**result["history"])}))


def run_all(
    variants: Sequence[Variant],
    benchmark: Benchmark,
    folder: Path,
    snapshots: Iterable[int] = (),
    *,
    seeds: Sequence[int] = (0,),
    ahead: Sequence[Variant] = (),
    n_jobs: int | None = None,
) -> dict[str, Runs]:
    """Run variants (see `run`) with each of `seeds`, `n_jobs` at a time; return {name: runs}.

    n_jobs: by default one on a GPU, and on a CPU one per core; the jobs go through joblib. Within
    `joblib.parallel_config(backend="dask")` they go to the workers of a Dask cluster, which must
    see the same folder.
    ahead: variants of a later call. Where several run at a time they join in, on cores that would
    have nothing to do; the later call reads what is finished.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ValueError(f"variants have the names {names}, expected each only once")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds is {seeds!r}, expected at least one, and each only once")
    n_jobs = n_jobs or (1 if torch.cuda.is_available() else cpu_count())
    wanted = [*variants, *(ahead if n_jobs != 1 else ())]
    jobs = [variant.vary(variant.name, seed=seed) for variant in wanted for seed in seeds]
    n_jobs = 1 if len(jobs) == 1 else n_jobs  # in this process
    results = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(carrying(run))(job, benchmark, folder, snapshots) for job in jobs
    )
    outcomes = iter(runtime.progress(results, "trainings", len(jobs), disable=len(jobs) == 1))
    done = [Runs(variant, [next(outcomes) for _ in seeds]) for variant in wanted]
    return {runs.variant.name: runs for runs in done[: len(names)]}
