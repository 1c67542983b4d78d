"""Practical 3: a digit network for images without labels, by domain-adversarial training."""

import math
import sys
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint

RECORDED = (
    "label_loss",
    "domain_loss",
    "domain_accuracy",
    "factor",
    "source_accuracy",
    "target_accuracy",
)


@dataclass(frozen=True)
class Settings:
    """How a network is trained. `reversal` is "scheduled", a fixed factor >= 0, or None.

    None leaves the target images and the domain classifier out: training on the source alone.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    reversal: str | float | None = "scheduled"
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if isinstance(self.reversal, str) and self.reversal != "scheduled":
            raise ValueError(
                f"reversal is {self.reversal!r}, expected 'scheduled', a factor >= 0 or None"
            )
        if isinstance(self.reversal, int | float) and not self.reversal >= 0:
            raise ValueError(f"reversal is {self.reversal}, expected a factor >= 0")


def reversal_schedule(progress):
    """Return 2 / (1 + exp(-10 p)) - 1 for the share p of the training done, in [0, 1].

    The factor of gradient reversal grows from 0 to 1, so that the features first learn the digits
    (Ganin et al., JMLR 2016, section 5.2.2).
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is {progress}, expected a share in [0, 1]")
    return 2 / (1 + math.exp(-10 * progress)) - 1


def adversarial_loss(network, source, labels, target, factor):
    """Return the label loss, and the domain loss behind gradient reversal (nats, scalars).

    `source` and `target` are images (N, C, 28, 28) in [0, 1], `labels` (N,) those of the source.
    Each domain passes the network as a batch of its own, so that batch norm centres each by its
    own statistics. The domain loss is the sum over both domains: 2 log 2 = 1.386 at chance. Its
    gradient reaches the features multiplied by -factor (Ganin et al., JMLR 2016, eq. 9).
    Also returned: the domain classifier's accuracy.
    """
    source_features, target_features = network.features(source), network.features(target)
    label_loss = F.cross_entropy(network.label_classifier(source_features), labels)
    source_logits = network.domain_logits(source_features, factor)
    target_logits = network.domain_logits(target_features, factor)
    domain_loss = F.softplus(source_logits).mean() + F.softplus(-target_logits).mean()
    with torch.no_grad():
        accuracy = ((source_logits < 0).float().mean() + (target_logits > 0).float().mean()) / 2
    return label_loss, domain_loss, accuracy


def train(network, source, target_images, settings, *, tests, checkpoint=None, description="DANN"):
    """Train `network` in place on a labelled source and images without labels.

    `source` is an ImageSet, `target_images` uint8 (N, C, 28, 28), `tests` a pair of ImageSets,
    source and target, whose accuracies are recorded after each epoch and influence nothing.
    An epoch shows each source image once (what fills no batch is left out) and as many target
    images, drawn anew in each epoch. With `checkpoint`, a path, the state after each epoch is
    kept, and training goes on from there to the same weights, bit for bit (on a CPU).
    Returns {name of RECORDED: list of one number an epoch}; losses and domain accuracy are means
    over the epoch, None where there is no adaptation. Raises ValueError for fewer images than a
    batch.
    """
    adapts = settings.reversal is not None
    needed = {"source": source.images} | ({"target_images": target_images} if adapts else {})
    for name, images in needed.items():
        if len(images) < settings.batch_size:
            raise ValueError(f"{name} has {len(images)} rows for batches of {settings.batch_size}")
    device = runtime.device()
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
    made_from = fingerprint(
        [asdict(settings), torch.__version__, device.type],
        *needed.values(), source.labels, *(part for t in tests for part in (t.images, t.labels)),
        network.state_dict(), sys.modules[type(network).__module__],
        adversarial_loss, reversal_schedule, accuracy, train, _epoch,
    )  # fmt: skip
    state = load_checkpoint(checkpoint, made_from) if checkpoint else None
    if state is None:
        torch.manual_seed(settings.seed)  # dropout and the order of the images
        history = {name: [] for name in RECORDED}
    else:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        _set_random_state(state["random"])
        history = state["history"]

    data = [images.to(device) for images in needed.values()], source.labels.to(device)
    steps = len(source) // settings.batch_size
    done = len(history["label_loss"])
    bar = runtime.progress(
        None, f"{description} training", total=settings.epochs * steps, initial=done * steps
    )
    with bar:
        for epoch in range(done, settings.epochs):
            means = _epoch(network, optimizer, *data, settings, epoch, bar)
            scores = [accuracy(network, test) for test in tests]
            for name, value in zip(RECORDED, [*means, *scores], strict=True):
                history[name].append(value)
            if checkpoint:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"random": _random_state(), "history": history}
                save_checkpoint(checkpoint, made_from, state)
    return history


def _epoch(network, optimizer, images, labels, settings, epoch, bar):
    """Train for one epoch; return the means of both losses and domain accuracy, the last factor."""
    network.train()
    size, count = settings.batch_size, len(images[0])
    steps = count // size
    # A target smaller than the source is passed through more than once.
    orders = [
        torch.randperm(len(domain)).repeat(math.ceil(count / len(domain))).to(labels.device)
        for domain in images
    ]
    sums = torch.zeros(3, device=labels.device)
    factor = None
    for step in range(steps):
        part = slice(step * size, (step + 1) * size)
        source, *target = (
            domain[order[part]].to(memory_format=torch.channels_last) / 255
            for domain, order in zip(images, orders, strict=True)
        )
        y = labels[orders[0][part]]
        if settings.reversal is None:
            label_loss = F.cross_entropy(network(source), y)
            domain_loss = domain_accuracy = torch.zeros_like(label_loss)
        else:
            factor = settings.reversal
            if factor == "scheduled":
                factor = reversal_schedule((epoch * steps + step) / (settings.epochs * steps))
            label_loss, domain_loss, domain_accuracy = adversarial_loss(
                network, source, y, *target, factor
            )
        optimizer.zero_grad()
        (label_loss + domain_loss).backward()
        optimizer.step()
        sums += torch.stack([label_loss.detach(), domain_loss.detach(), domain_accuracy])
        bar.update()
    label_loss, domain_loss, domain_accuracy = (sums / steps).tolist()
    if settings.reversal is None:
        return label_loss, None, None, None
    return label_loss, domain_loss, domain_accuracy, factor


def predict(network, images, batch_size=500):
    """Return class scores (N, classes) on the CPU for uint8 images (N, C, 28, 28), in eval mode."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        scores = [network(batch.to(device) / 255).cpu() for batch in images.split(batch_size)]
    network.train(was_training)
    return torch.cat(scores)


def accuracy(network, test):
    """Return the share of an ImageSet's images whose label is the network's first choice."""
    return (predict(network, test.images).argmax(1) == test.labels).float().mean().item()


def _random_state():
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state):
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
