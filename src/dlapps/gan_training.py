"""Practical 4: the losses of GANs, the step that trains all of ours, ways to sample."""

import copy
import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn import functional as F

from dlapps import steps, training
from dlapps.models.checks import check_counts, check_positive, check_uint8_images

RECORDED = (
    "discriminator_loss",
    "generator_loss",
    "d_real",
    "d_fake",
    "discriminator_gradient",
    "generator_gradient",
    "spread",
)
LOSSES = "non-saturating", "saturating", "hinge"


@dataclass(frozen=True)
class Settings:
    """How a GAN is trained: by default with DCGAN's values (Radford et al., ICLR 2016, section 4).

    An iteration is `discriminator_steps` updates of D, each with a batch of its own, and
    `generator_steps` of G; there are as many iterations as batches in `epochs`.
    loss: "non-saturating", "saturating" (the true minimax objective) or "hinge".
    r1: the weight of the penalty on D's gradient at real images, see `gradient_penalty`.
    average: how slowly the generator's running average follows, which is what is kept; 0 for none.
    """

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 2e-4
    beta1: float = 0.5
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
        for name in ("beta1", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}, expected one of {', '.join(LOSSES)}")
        if not (self.r1 >= 0 and math.isfinite(self.r1)):
            raise ValueError(f"r1 is {self.r1}, expected a weight of at least 0")


@dataclass(frozen=True)
class History:
    """What a training left behind.

    `records` holds a list of one number an iteration for each name in `RECORDED`, of the last
    update of each network: both losses (nats, or hinge losses), D's mean probability of "real" on
    real and on generated images, the lengths of both gradients, and the `spread` of the generated
    batch. `snapshots` holds {iteration: uint8 images of the fixed noise}. `failures` holds
    {kind: the iteration at which it began}, see `failures`. `seconds` is the time of an iteration
    on this machine, sampling and saving left out.
    """

    records: dict
    snapshots: dict
    failures: dict
    seconds: float


def discriminator_loss(real_logits, fake_logits, loss="non-saturating"):
    """Return -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al., 2014, eq. 1), D = sigmoid.

    With "hinge" E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] of the logits themselves (Miyato et
    al., "Spectral normalization", ICLR 2018, eq. 17).
    """
    if loss == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits, loss="non-saturating"):
    """Return -E[log D(G(z))]; E[log(1 - D(G(z)))] of the same equation 1 if "saturating".

    Both fall as D is fooled. The second, the true minimax objective, has a gradient that vanishes
    while D rejects every image (Goodfellow et al., 2014, section 3). With "hinge" -E[D(G(z))] of
    the logits.
    """
    if loss == "hinge":
        return -fake_logits.mean()
    return (
        -F.softplus(fake_logits).mean() if loss == "saturating" else F.softplus(-fake_logits).mean()
    )


def gradient_penalty(discriminator, real, labels=None):
    """Return E[|dD(x)/dx|²] / 2 of the logits at real images (Mescheder et al., ICML 2018, eq. 9).

    Without it D may grow ever steeper at the data, and the training need not converge.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real, labels).sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


def gan_step(networks, optimizers, batches, noises, settings):
    """Update D on each of `batches`, then G (Goodfellow et al., 2014, algorithm 1).

    `networks` and `optimizers` are those of G and D, in this order. A batch is a pair of real
    images x (N, C, H, W) in [0, 1] and labels y (N,) or None, which the generated images take too.
    `noises` are z (N, latent): one for each update of D, of which the last also serves G's first,
    then one for each further update of G. Returns {name of RECORDED: of the last updates}.
    """
    (G, D), (optimizer_G, optimizer_D) = networks, optimizers
    for k, (x, y) in enumerate(batches, start=1):
        with torch.set_grad_enabled(k == len(batches)):
            fake = G(noises[k - 1], y)
        D_x, D_fake = D(x, y), D(fake.detach(), y)
        L_D = discriminator_loss(D_x, D_fake, settings.loss)
        if settings.r1:
            L_D = L_D + settings.r1 * gradient_penalty(D, x, y)
        steps.update(optimizer_D, L_D)
    for z in (None, *noises[len(batches) :]):
        fake = fake if z is None else G(z, y)
        L_G = generator_loss(D(fake, y), settings.loss)
        steps.update(optimizer_G, L_G, of=G)
    gradients = [gradient_length(network) for network in (D, G)]
    spread = fake.detach().std(0, correction=0).mean()
    found = [L_D, L_G, D_x.sigmoid().mean(), D_fake.sigmoid().mean(), *gradients, spread]
    return dict(zip(RECORDED, found, strict=True))


def gradient_length(network):
    """Return the Euclidean length of the gradients of all weights of a network."""
    return torch.stack([weight.grad.norm() for weight in network.parameters()]).norm()


def train(
    generator,
    discriminator,
    images,
    labels,
    settings,
    *,
    fixed,
    snapshots=(),
    checkpoint=None,
    description="GAN",
):
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
    G, D = steps.place(generator), steps.place(discriminator)
    averaged = copy.deepcopy(G).requires_grad_(False) if settings.average else None
    betas = settings.beta1, 0.999
    optimizers = [steps.optimizer(torch.optim.Adam, n, betas=betas) for n in (G, D)]
    draws = settings.discriminator_steps
    batches = steps.Batches(
        images, labels, settings.batch_size, steps=count, draws=draws, seed=settings.seed
    )

    def step(at):
        drawn = [batches(at.t, draw) for draw in range(draws)]
        count = draws + settings.generator_steps - 1
        z = torch.randn(count, settings.batch_size, G.latent, device=at.t.device)
        return gan_step((G, D), optimizers, drawn, z.unbind(), settings)

    plan = training.Plan(
        count,
        RECORDED,
        {"learning_rate": lambda t: settings.learning_rate},
        settings.seed,
        settings.average,
        watch=lambda t: generate(averaged or G, *fixed),
        watch_at=tuple(sorted({*(s for s in snapshots if s < count), count})),
    )
    state = training.State(
        {"generator": G, "discriminator": D},
        dict(zip(("generator", "discriminator"), optimizers, strict=True)),
        (batches,),
        {"generator": averaged} if averaged else {},
    )
    made_from = [asdict(settings), images, *(y for y in (labels, *fixed) if y is not None)]
    made_from += [train, type(G), type(D)]
    result = training.run(
        step, state, plan, checkpoint=checkpoint, made_from=made_from, description=description
    )
    if averaged:
        G.load_state_dict(averaged.state_dict())
    records = {name: values.tolist() for name, values in result.records.items()}
    found = failures(records, spread(images))
    for kind, iteration in found.items():
        print(f"{description}: {kind} from iteration {iteration}")
    return History(records, result.watched, found, result.seconds)


def check_data(images, labels, settings, generator):
    """Raise unless uint8 images (N, C, H, W) fill a batch and labels, if any, are theirs."""
    check_uint8_images(images)
    if len(images) < settings.batch_size:
        raise ValueError(f"images has {len(images)} rows for batches of {settings.batch_size}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels has {len(labels)} rows for {len(images)} images")
    check_classes(labels, generator.classes)


def check_classes(labels, classes):
    """Raise ValueError unless labels, or None, are numbers of classes, if there are classes."""
    if labels is not None and classes is not None and len(labels):
        low, high = labels.min().item(), labels.max().item()
        if low < 0 or high >= classes:
            raise ValueError(f"labels has values in [{low}, {high}], expected 0 to {classes - 1}")


def failures(records, real_spread, window=100, share=0.1):
    """Return {kind: the iteration at which it began} of what went wrong in a training.

    "not finite": a number is infinite or not a number; training ends there.
    "collapse": in the last `window` iterations the generated images spread, on average, less than
    `share` of what the real images do (`real_spread`).
    "discriminator won": in the last `window` iterations D gave real images more than 0.99 and
    generated ones less than 0.01, on average.
    The beginning is that of the last stretch of which this is true; a training of fewer iterations
    than `window` says nothing of either.
    """
    found = {}
    for iteration, values in enumerate(zip(*records.values(), strict=True)):
        if not all(map(math.isfinite, values)):
            found["not finite"] = iteration
            break
    count = found.get("not finite", len(records["spread"]))
    signs = {
        "collapse": lambda part: np.mean(part["spread"]) < share * real_spread,
        "discriminator won": lambda part: (
            np.mean(part["d_real"]) > 0.99 and np.mean(part["d_fake"]) < 0.01
        ),
    }
    for kind, sign in signs.items():
        first = None
        for start in range(count - window, -1, -1):
            part = {name: values[start : start + window] for name, values in records.items()}
            if not sign(part):
                break
            first = start
        if first is not None:
            found[kind] = first
    return found


def fixed_inputs(generator, count=80, seed=0):
    """Return (z (count, latent), labels (count,) or None): noise to watch a training by.

    Labels run through the classes, so that in rows of as many images each column is one class.
    """
    z = torch.randn(count, generator.latent, generator=torch.Generator().manual_seed(seed))
    labels = None if generator.classes is None else torch.arange(count) % generator.classes
    return z, labels


def every_label(generator, columns=10, seed=0):
    """Return (z, labels) for a grid with one noise vector a column and one label a row."""
    if generator.classes is None:
        raise ValueError("generator takes no labels, expected a conditional one")
    z = torch.randn(columns, generator.latent, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(generator.classes).repeat_interleave(columns)
    return z.repeat(generator.classes, 1), labels


def interpolate(start, end, steps=10, spherical=False):
    """Return (steps, latent): noise at equal distances on the way from `start` to `end`.

    On the straight line, or on the great circle if `spherical` (Shoemake, SIGGRAPH 1985): normal
    noise of many dimensions lies close to a sphere, whose inside a line crosses.
    """
    if steps < 2 or start.shape != end.shape or start.ndim != 1:
        raise ValueError(
            f"start {tuple(start.shape)}, end {tuple(end.shape)} and steps {steps}: expected two "
            "vectors of one length and at least 2 steps"
        )
    shares = torch.linspace(0, 1, steps)[:, None]
    if not spherical:
        return torch.lerp(start, end, shares)
    angle = torch.arccos(F.cosine_similarity(start, end, dim=0).clamp(-1, 1))
    if angle.sin() < 1e-4:
        raise ValueError("start and end lie on one line through 0, expected an angle between them")
    return (((1 - shares) * angle).sin() * start + (shares * angle).sin() * end) / angle.sin()


def generate(generator, z, labels=None, batch_size=500):
    """Return uint8 images (N, C, 32, 32) on the CPU for noise (N, latent), in eval mode.

    In eval mode batch norm uses its running statistics: an image does not depend on its batch.
    Raises ValueError for labels that are no classes.
    """
    check_classes(labels, generator.classes)
    device = next(generator.parameters()).device
    was_training = generator.training
    generator.eval()
    batches = []
    with torch.inference_mode():
        for first in range(0, len(z), batch_size):
            part = slice(first, first + batch_size)
            y = None if labels is None else labels[part].to(device)
            images = generator(z[part].to(device), y)
            batches.append((images * 255).round().to(torch.uint8))
    generator.train(was_training)
    return torch.cat(batches).cpu().contiguous()


def spread(images, labels=None):
    """Return how much uint8 images (N, C, H, W) differ: 0 if all are equal, at most 0.5.

    The standard deviation of a pixel over the images, in [0, 1], averaged over the pixels. With
    `labels` (N,) it is taken within each class and averaged over the classes. A generator whose
    images spread much less than the real ones has collapsed onto a few.
    """
    check_uint8_images(images)
    groups = [images] if labels is None else [images[labels == y] for y in labels.unique()]
    return torch.stack([_deviations(group).mean() for group in groups]).mean().item()


def _deviations(images):
    """Return the standard deviation of each pixel over uint8 images, in [0, 1]."""
    mean = sum((part.double() / 255).sum(0) for part in images.split(1000)) / len(images)
    squares = sum((part / 255 - mean).square().sum(0) for part in images.split(1000))
    return (squares / len(images)).sqrt()
