"""Practical 4: the two losses of a GAN, one training loop for all of ours, ways to sample."""

import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models.checks import check_uint8_images

RECORDED = ("discriminator_loss", "generator_loss", "d_real", "d_fake")
SECONDS_BETWEEN_CHECKPOINTS = 60


@dataclass(frozen=True)
class Settings:
    """How a GAN is trained: DCGAN's values (Radford et al., ICLR 2016, section 4)."""

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 2e-4
    beta1: float = 0.5
    saturating: bool = False
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"beta1 is {self.beta1}, expected 0 <= beta1 < 1")


@dataclass(frozen=True)
class History:
    """What a training left behind.

    `records` holds a list of one number an iteration for each name in `RECORDED`: both losses in
    nats, and D's mean probability of "real" on real and on generated images before its step.
    `snapshots` holds {iteration: uint8 images of the fixed noise}.
    """

    records: dict
    snapshots: dict


def discriminator_loss(real_logits, fake_logits):
    """Return -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al., 2014, eq. 1), D = sigmoid."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits, saturating=False):
    """Return -E[log D(G(z))], or E[log(1 - D(G(z)))] of the same equation 1 if `saturating`.

    Both fall as D is fooled. The second, the true minimax objective, has a gradient that vanishes
    while D rejects every image (Goodfellow et al., 2014, section 3).
    """
    return -F.softplus(fake_logits).mean() if saturating else F.softplus(-fake_logits).mean()


def train_step(generator, discriminator, optimizers, real, labels, z, saturating=False):
    """Update D on real and generated images, then G through the new D; return `RECORDED`.

    `real` (N, C, 32, 32) in [0, 1] and `z` (N, latent); generated images take the labels of the
    real ones, if there are labels. `optimizers` are those of G and D, in this order.
    """
    generator_optimizer, discriminator_optimizer = optimizers
    fake = generator(z, labels)

    real_logits = discriminator(real, labels)
    fake_logits = discriminator(fake.detach(), labels)
    loss_d = discriminator_loss(real_logits, fake_logits)
    discriminator_optimizer.zero_grad()
    loss_d.backward()
    discriminator_optimizer.step()

    discriminator.requires_grad_(False)  # G's step needs no gradients of D's weights
    loss_g = generator_loss(discriminator(fake, labels), saturating)
    discriminator.requires_grad_(True)
    generator_optimizer.zero_grad()
    loss_g.backward()
    generator_optimizer.step()

    with torch.no_grad():
        d_real, d_fake = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
        return torch.stack([loss_d, loss_g, d_real, d_fake])


def train(
    generator, discriminator, images, labels, settings, *, fixed, snapshots=(), checkpoint=None
):
    """Train both networks in place on uint8 images (N, C, 32, 32); return a `History`.

    `labels` (N,) are used by conditional networks, otherwise None. `fixed` is the pair (z, labels)
    whose images are kept after each number of iterations in `snapshots`, and at the end. With
    `checkpoint`, a path, the training is saved each minute and goes on from there: to the same
    weights, bit for bit, as without the interruption (on a CPU).
    Raises ValueError if the images are fewer than a batch or do not match the labels.
    """
    check_uint8_images(images)
    if len(images) < settings.batch_size:
        raise ValueError(f"images has {len(images)} rows for batches of {settings.batch_size}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels has {len(labels)} rows for {len(images)} images")
    steps_per_epoch = len(images) // settings.batch_size
    steps = settings.epochs * steps_per_epoch
    snapshots = sorted({*(s for s in snapshots if s < steps), steps})

    device = runtime.device()
    networks = [n.to(device, memory_format=torch.channels_last) for n in (generator, discriminator)]
    betas = (settings.beta1, 0.999)
    optimizers = [
        torch.optim.Adam(n.train().parameters(), settings.learning_rate, betas) for n in networks
    ]
    noise = torch.Generator().manual_seed(settings.seed)
    step, records, kept = 0, torch.zeros(steps, len(RECORDED)), {}

    made_from = fingerprint(
        [asdict(settings), snapshots, torch.__version__, device.type],
        images, "no labels" if labels is None else labels, fixed[0],
        *(n.state_dict() for n in networks), *(sys.modules[type(n).__module__] for n in networks),
        discriminator_loss, generator_loss, train_step, train,
    )  # fmt: skip
    state = load_checkpoint(checkpoint, made_from) if checkpoint else None
    if state is not None:
        for part, saved in zip([*networks, *optimizers], state["parts"], strict=True):
            part.load_state_dict(saved)
        noise.set_state(state["noise"])
        step, records, kept = state["step"], state["records"], state["snapshots"]

    def save():
        if checkpoint:
            parts = [part.state_dict() for part in (*networks, *optimizers)]
            state = {"parts": parts, "noise": noise.get_state(), "step": step}
            state |= {"records": records.cpu(), "snapshots": kept}
            save_checkpoint(checkpoint, made_from, state)

    images = images.to(device)
    labels = None if labels is None else labels.to(device)
    records = records.to(device)
    last_save = time.monotonic()
    name = type(generator).__name__.removesuffix("Generator")
    with runtime.progress(None, f"{name} training", total=steps, initial=step) as bar:
        for step in range(step, steps + 1):  # noqa: B020 - goes on where it stopped
            if step in snapshots and step not in kept:
                kept[step] = generate(generator, *fixed)
            if step == steps:
                break
            if time.monotonic() - last_save > SECONDS_BETWEEN_CHECKPOINTS:
                save()
                last_save = time.monotonic()
            batch = _batch(step, len(images), settings).to(device)
            z = torch.randn(settings.batch_size, generator.latent, generator=noise).to(device)
            real = images[batch].to(memory_format=torch.channels_last) / 255
            y = None if labels is None else labels[batch]
            records[step] = train_step(*networks, optimizers, real, y, z, settings.saturating)
            bar.update()
    if state is None or state["step"] < steps:
        save()
    columns = records.cpu().T.tolist()
    return History(dict(zip(RECORDED, columns, strict=True)), kept)


@lru_cache(maxsize=1)
def _order(epoch, count, seed):
    """Return a permutation of `count` images that depends on the epoch and the seed alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def _batch(step, count, settings):
    """Return the indices of the images of one step; an epoch leaves out what fills no batch."""
    epoch, batch = divmod(step, count // settings.batch_size)
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


def interpolate(start, end, steps=10):
    """Return (steps, latent): points at equal distances on the line from noise `start` to `end`."""
    if steps < 2 or start.shape != end.shape or start.ndim != 1:
        raise ValueError(
            f"start {tuple(start.shape)}, end {tuple(end.shape)} and steps {steps}: expected two "
            "vectors of one length and at least 2 steps"
        )
    return torch.lerp(start, end, torch.linspace(0, 1, steps)[:, None])


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
