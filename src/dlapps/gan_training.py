"""Practical 4: the losses of GANs, one training loop for all of ours, ways to sample."""

import copy
import math
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models.averages import follow
from dlapps.models.checks import check_uint8_images

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
SECONDS_BETWEEN_CHECKPOINTS = 60


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
        for name in (*counts, "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
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


def train_step(networks, optimizers, batches, noises, settings):
    """Update D on each of `batches`, then G through the new D; return `RECORDED`.

    `networks` and `optimizers` are those of G and D, in this order. A batch is a pair of real
    images (N, C, H, W) in [0, 1] and labels (N,) or None, which the generated images take too.
    `noises` are (N, latent): one for each update of D, of which the last also serves G's first,
    then one for each further update of G.
    """
    (generator, discriminator), (generator_optimizer, discriminator_optimizer) = (
        networks,
        optimizers,
    )
    own, further = noises[: len(batches)], noises[len(batches) :]
    for number, ((real, labels), z) in enumerate(zip(batches, own, strict=True), start=1):
        with torch.set_grad_enabled(number == len(batches)):
            fake = generator(z, labels)
        real_logits = discriminator(real, labels)
        fake_logits = discriminator(fake.detach(), labels)
        loss_d = discriminator_loss(real_logits, fake_logits, settings.loss)
        if settings.r1:
            loss_d = loss_d + settings.r1 * gradient_penalty(discriminator, real, labels)
        discriminator_optimizer.zero_grad()
        loss_d.backward()
        discriminator_optimizer.step()

    discriminator.requires_grad_(False)  # G's updates need no gradients of D's weights
    for z in (None, *further):
        if z is not None:
            fake = generator(z, labels)
        loss_g = generator_loss(discriminator(fake, labels), settings.loss)
        generator_optimizer.zero_grad()
        loss_g.backward()
        generator_optimizer.step()
    discriminator.requires_grad_(True)

    with torch.no_grad():
        chances = [logits.sigmoid().mean() for logits in (real_logits, fake_logits)]
        gradients = [
            torch.nn.utils.get_total_norm([p.grad for p in network.parameters()])
            for network in (discriminator, generator)
        ]
        deviation = fake.std(0, correction=0).mean()
        return torch.stack([loss_d, loss_g, *chances, *gradients, deviation])


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
    With `checkpoint`, a path, the training is saved each minute and goes on from there: to the same
    weights, bit for bit, as without the interruption (on a CPU).
    Raises ValueError if the images are fewer than a batch or do not match the labels.
    """
    check_uint8_images(images)
    if len(images) < settings.batch_size:
        raise ValueError(f"images has {len(images)} rows for batches of {settings.batch_size}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels has {len(labels)} rows for {len(images)} images")
    steps = settings.epochs * (len(images) // settings.batch_size)
    snapshots = sorted({*(s for s in snapshots if s < steps), steps})

    device = runtime.device()
    networks = [n.to(device, memory_format=torch.channels_last) for n in (generator, discriminator)]
    averaged = copy.deepcopy(generator).requires_grad_(False) if settings.average else generator
    betas = (settings.beta1, 0.999)
    optimizers = [
        torch.optim.Adam(n.train().parameters(), settings.learning_rate, betas) for n in networks
    ]
    noise = torch.Generator().manual_seed(settings.seed)
    step, records, kept, seconds = 0, torch.zeros(steps, len(RECORDED)), {}, 0.0

    made_from = fingerprint(
        [asdict(settings), snapshots, torch.__version__, device.type],
        images, "no labels" if labels is None else labels, fixed[0],
        *(n.state_dict() for n in networks), *(sys.modules[type(n).__module__] for n in networks),
        discriminator_loss, generator_loss, gradient_penalty, train_step, train, _order, _batch,
        follow,
    )  # fmt: skip
    state = load_checkpoint(checkpoint, made_from) if checkpoint else None
    if state is not None:
        for part, saved in zip([*networks, *optimizers, averaged], state["parts"], strict=True):
            part.load_state_dict(saved)
        noise.set_state(state["noise"])
        step, records, kept = state["step"], state["records"], state["snapshots"]
        seconds = state["seconds"]

    def save():
        if checkpoint:
            parts = [part.state_dict() for part in (*networks, *optimizers, averaged)]
            state = {"parts": parts, "noise": noise.get_state(), "step": step}
            state |= {"records": records.cpu(), "snapshots": kept, "seconds": seconds}
            save_checkpoint(checkpoint, made_from, state)

    def batch(number):
        chosen = _batch(number, len(images), settings).to(device)
        real = images[chosen].to(memory_format=torch.channels_last) / 255
        return real, None if labels is None else labels[chosen]

    images, records = images.to(device), records.to(device)
    labels = None if labels is None else labels.to(device)
    updates = settings.discriminator_steps
    draws = updates + settings.generator_steps - 1
    started_at, last_save, sound = step, time.monotonic(), True
    with runtime.progress(None, f"{description} training", total=steps, initial=step) as bar:
        for step in range(step, steps + 1):  # noqa: B020 - goes on where it stopped
            sound = step == 0 or bool(records[step - 1].isfinite().all())
            if (step in snapshots or not sound) and step not in kept:
                kept[step] = generate(averaged, *fixed)
            if step == steps or not sound:
                break
            if time.monotonic() - last_save > SECONDS_BETWEEN_CHECKPOINTS:
                save()
                last_save = time.monotonic()
            begun = time.perf_counter()
            batches = [batch(step * updates + k) for k in range(updates)]
            shape = settings.batch_size, generator.latent
            noises = [torch.randn(shape, generator=noise).to(device) for _ in range(draws)]
            records[step] = train_step(networks, optimizers, batches, noises, settings)
            if settings.average:
                follow(averaged, generator, min(settings.average, 1 - 1 / (step + 1)))
            seconds += time.perf_counter() - begun
            bar.update()
    if step > started_at or state is None:
        save()
    if settings.average:
        generator.load_state_dict(averaged.state_dict())
    columns = dict(zip(RECORDED, records[:step].cpu().T.tolist(), strict=True))
    found = failures(columns, spread(images.cpu()))
    for kind, iteration in found.items():
        print(f"{description}: {kind} from iteration {iteration}")
    return History(columns, kept, found, seconds / step)


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


@lru_cache(maxsize=1)
def _order(epoch, count, seed):
    """Return a permutation of `count` images that depends on the epoch and the seed alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def _batch(number, count, settings):
    """Return the indices of a batch of images; an epoch leaves out what fills no batch."""
    epoch, batch = divmod(number, count // settings.batch_size)
    first = batch * settings.batch_size
    return _order(epoch, count, settings.seed)[first : first + settings.batch_size]


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
    """
    device = next(generator.parameters()).device
    was_training = generator.training
    generator.eval()
    batches = []
    with torch.inference_mode():
        for first in range(0, len(z), batch_size):
            part = slice(first, first + batch_size)
            y = None if labels is None else labels[part].to(device)
            images = generator(z[part].to(device), y)
            batches.append((images * 255).round().to(torch.uint8).cpu())
    generator.train(was_training)
    return torch.cat(batches).contiguous()


def spread(images, labels=None):
    """Return how much uint8 images (N, C, H, W) differ: 0 if all are equal, at most 0.5.

    The standard deviation of a pixel over the images, in [0, 1], averaged over the pixels. With
    `labels` (N,) it is taken within each class and averaged over the classes. A generator whose
    images spread much less than the real ones has collapsed onto a few.
    """
    check_uint8_images(images)
    groups = [images] if labels is None else [images[labels == y] for y in labels.unique()]
    deviations = [(group / 255).std(0, correction=0).mean() for group in groups]
    return torch.stack(deviations).mean().item()
