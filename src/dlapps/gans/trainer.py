"""Training a GAN, and what may go wrong in it."""

import copy
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from dlapps import steps, training
from dlapps.checks import check_counts, check_positive, check_uint8_images
from dlapps.gans.losses import LOSSES, RECORDED, gan_step
from dlapps.gans.sampling import check_classes, generate, spread

SCHEDULES = "constant", "cosine"


@dataclass(frozen=True)
class Settings:
    """How a GAN is trained: by default with DCGAN's values (Radford et al., ICLR 2016, section 4).

    An iteration is `discriminator_steps` updates of D, each with a batch of its own, and
    `generator_steps` of G; there are as many iterations as batches in `epochs`.
    schedule: of the learning rate: "constant", or "cosine", down to 0 along half a cosine.
    beta1, beta2: Adam's decays of the means of gradients and of their squares.
    loss: "non-saturating", "saturating" (the true minimax objective) or "hinge".
    r1: the weight of the penalty on D's gradient at real images, see `gradient_penalty`.
    average: how slowly the generator's running average follows, which is what is kept; 0 for none.
    """

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 2e-4
    schedule: str = "constant"
    beta1: float = 0.5
    beta2: float = 0.999
    loss: str = "non-saturating"
    r1: float = 0.0
    discriminator_steps: int = 1
    generator_steps: int = 1
    average: float = 0.0
    seed: int = 0

    def __post_init__(self):
        counts = "epochs", "batch_size", "discriminator_steps", "generator_steps"
        check_counts(**{name: getattr(self, name) for name in counts})
        check_positive(learning_rate=self.learning_rate)
        for name in ("beta1", "beta2", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        for name, known in (("loss", LOSSES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if not (self.r1 >= 0 and math.isfinite(self.r1)):
            raise ValueError(f"r1 is {self.r1}, expected a weight of at least 0")

    def rate(self, t: int, count: int) -> float:
        """Return the learning rate after t of `count` iterations."""
        if self.schedule == "cosine":
            return steps.cosine(t, count, self.learning_rate)
        return self.learning_rate


@dataclass(frozen=True)
class History:
    """What a training left behind.

    `records` holds a list of one number per iteration for each name in `RECORDED`, of the last
    update of each network: both losses (nats, or hinge losses), D's mean probability of "real" on
    real and on generated images, the lengths of both gradients, and the `spread` of the generated
    batch. `snapshots` holds {iteration: uint8 images of the fixed noise}. `failures` holds
    {kind: the iteration at which it began}, see `failures`. `seconds` is the time of an iteration
    on this machine, sampling and saving left out.
    """

    records: dict[str, list[float]]
    snapshots: dict[int, Tensor]
    failures: dict[str, int]
    seconds: float


def train(
    generator: nn.Module,
    discriminator: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    settings: Settings,
    *,
    fixed: tuple[Tensor, Tensor | None],
    snapshots: Iterable[int] = (),
    checkpoint: str | Path | None = None,
    description: str = "GAN",
) -> History:
    """Train both networks in place on uint8 images (N, C, H, W); return a `History`.

    `labels` (N,) are used by conditional networks, otherwise None. `fixed` is the pair (z, labels)
    whose images are kept after each number of iterations in `snapshots`, and at the end. With
    `settings.average` it is the generator's running average that draws them, and that the
    generator is in the end. Training stops, and says so, at the first number that is not finite.
    `checkpoint`: see `training.run`.
    Raises ValueError if the images are fewer than a batch or do not match the labels.
    """
    check_data(images, labels, settings, generator)
    count = settings.epochs * (len(images) // settings.batch_size)
    G, D = steps.to_device(generator), steps.to_device(discriminator)
    averaged = copy.deepcopy(G).requires_grad_(False) if settings.average else None
    betas = settings.beta1, settings.beta2
    optimizers = [steps.optimizer(torch.optim.Adam, n, betas=betas) for n in (G, D)]
    draws, seed = settings.discriminator_steps, settings.seed
    batches = steps.Batches(
        images, labels, settings.batch_size, steps=count, draws=draws, seed=seed
    )
    step = _stepping((G, D), optimizers, batches, settings)
    plan = training.Plan(
        count,
        RECORDED,
        {"learning_rate": lambda t: settings.rate(t, count)},
        seed,
        settings.average,
        watch=lambda t: generate(averaged or G, *fixed),
        watch_at=tuple(sorted({*(s for s in snapshots if s < count), count})),
    )
    state = training.State(
        {"generator": G, "discriminator": D},
        {"generator": optimizers[0], "discriminator": optimizers[1]},
        (batches,),
        {"generator": averaged} if averaged else {},
    )
    made_from = [asdict(settings), images, *(y for y in (labels, *fixed) if y is not None)]
    made_from += [train, Settings, type(G), type(D)]
    result = training.run(
        step, state, plan, checkpoint=checkpoint, made_from=made_from, description=description
    )
    if averaged:
        G.load_state_dict(averaged.state_dict())
    records = {name: values.tolist() for name, values in result.records.items()}
    failed = failures(records, spread(images))
    for kind, iteration in failed.items():
        print(f"{description}: {kind} from iteration {iteration}")
    return History(records, result.watched, failed, result.seconds)


def _stepping(networks, optimizers, batches, settings):
    """Return the step of a training: batches and noise for `gan_step`."""
    draws = settings.discriminator_steps

    def step(at):
        drawn = [batches(at.t, draw) for draw in range(draws)]
        noises = draws + settings.generator_steps - 1
        z = torch.randn(noises, settings.batch_size, networks[0].latent, device=at.t.device)
        return gan_step(networks, optimizers, drawn, z.unbind(), settings)

    return step


def check_data(
    images: Tensor, labels: Tensor | None, settings: Settings, generator: nn.Module
) -> None:
    """Raise unless uint8 images (N, C, H, W) fill a batch and labels, if any, are theirs."""
    check_uint8_images(images)
    if len(images) < settings.batch_size:
        raise ValueError(f"images has {len(images)} rows for batches of {settings.batch_size}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels has {len(labels)} rows for {len(images)} images")
    check_classes(labels, generator.classes)


def failures(
    records: dict[str, list[float]], real_spread: float, window: int = 100, share: float = 0.1
) -> dict[str, int]:
    """Return {kind: the iteration at which it began} of what went wrong in a training.

    "not finite": a number is infinite or not a number; training ends there.
    "collapse": in the last `window` iterations the generated images spread, on average, less than
    `share` of what the real images do (`real_spread`).
    "discriminator won": in the last `window` iterations D gave real images more than 0.99 and
    generated ones less than 0.01, on average.
    The beginning is that of the last stretch of which this is true; a training of fewer iterations
    than `window` says nothing of either.
    """
    columns = {name: np.asarray(values) for name, values in records.items()}
    finite = np.isfinite(list(columns.values())).all(0)
    count = len(finite) if finite.all() else int(finite.argmin())
    failed = {} if finite.all() else {"not finite": count}
    if count < window:
        return failed
    means = {name: sliding_window_view(v[:count], window).mean(1) for name, v in columns.items()}
    signs = {
        "collapse": means["spread"] < share * real_spread,
        "discriminator won": (means["d_real"] > 0.99) & (means["d_fake"] < 0.01),
    }
    for kind, sign in signs.items():
        if sign[-1]:
            failed[kind] = 0 if sign.all() else len(sign) - int(sign[::-1].argmin())
    return failed
