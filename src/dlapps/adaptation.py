"""Practical 3: a digit network for images without labels, by domain-adversarial training."""

import copy
import math
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint

RECORDED = (
    "label_loss",
    "domain_loss",
    "domain_accuracy",
    "accepted",
    "factor",
    "source_accuracy",
    "target_accuracy",
)
OPTIMIZERS = "adam", "sgd"
AUGMENTATIONS = None, "shape", "shape and colour"


@dataclass(frozen=True)
class Settings:
    """How a network is trained: the learning rate falls to 0 along half a cosine.

    reversal: the factor of gradient reversal: "scheduled" (from 0 to 1), a number, or None for no
    domain classifier. With 0 the domain classifier learns and the features take no notice of it;
    a negative factor leaves the gradient's sign, and the features help it.
    joint: whether batch norm normalises one batch of both domains, and by averages over both in
    tests; otherwise each domain by its own batch and, in tests, by its own averages.
    augment: None, "shape" or "shape and colour", see `augment`.
    consistency: the weight of the loss of `consistency_loss`, 0 for none; `confidence` is how sure
    the teacher must be of a label, `decay` how slowly it follows.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    reversal: str | float | None = "scheduled"
    joint: bool = False
    augment: str | None = None
    consistency: float = 0.0
    confidence: float = 0.9
    decay: float = 0.99
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        for name, known in [("optimizer", OPTIMIZERS), ("augment", AUGMENTATIONS)]:
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {known}")
        if isinstance(self.reversal, str) and self.reversal != "scheduled":
            raise ValueError(
                f"reversal is {self.reversal!r}, expected 'scheduled', a factor or None"
            )
        if isinstance(self.reversal, int | float) and not math.isfinite(self.reversal):
            raise ValueError(f"reversal is {self.reversal}, expected a finite factor")
        if not (self.consistency >= 0 and math.isfinite(self.consistency)):
            raise ValueError(f"consistency is {self.consistency}, expected a weight of at least 0")
        for name in ("confidence", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number in [0, 1)")


def reversal_schedule(progress):
    """Return 2 / (1 + exp(-10 p)) - 1 for the share p of the training done, in [0, 1].

    The factor of gradient reversal grows from 0 to 1, so that the features first learn the digits
    (Ganin et al., JMLR 2016, section 5.2.2).
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is {progress}, expected a share in [0, 1]")
    return 2 / (1 + math.exp(-10 * progress)) - 1


def adversarial_loss(network, source_features, target_features, factor, joint=False):
    """Return the domain loss behind gradient reversal (nats), and the domain classifier's accuracy.

    Each domain passes the domain classifier as a batch of its own, or both as one if `joint`. The
    loss is the sum over both domains: 2 log 2 = 1.386 at chance. Its gradient reaches the features
    (N, D) multiplied by -factor (Ganin et al., JMLR 2016, eq. 9).
    """
    if joint:
        logits = network.domain_logits(torch.cat([source_features, target_features]), factor)
        source_logits, target_logits = logits.split([len(source_features), len(target_features)])
    else:
        source_logits = network.domain_logits(source_features, factor)
        target_logits = network.domain_logits(target_features, factor)
    loss = F.softplus(source_logits).mean() + F.softplus(-target_logits).mean()
    with torch.no_grad():
        accuracy = ((source_logits < 0).float().mean() + (target_logits > 0).float().mean()) / 2
    return loss, accuracy


def consistency_loss(scores, teacher_scores, confidence):
    """Return the cross-entropy of scores (N, K) to the labels that a teacher is sure of (nats).

    The mean over all N rows, where those count 0 whose largest probability by the teacher is below
    `confidence`. Also returned: the share of the rows that count.

    The teacher has the running average of the student's weights (Tarvainen, Valpola: "Mean
    teachers", NeurIPS 2017; for domain adaptation French, Mackiewicz, Fisher: "Self-ensembling for
    visual domain adaptation", ICLR 2018). It sees the image itself and the student a view of it;
    a confidence decides which labels count (FixMatch, Sohn et al., NeurIPS 2020).
    """
    chances, labels = teacher_scores.softmax(1).max(1)
    sure = chances >= confidence
    losses = F.cross_entropy(scores, labels, reduction="none")
    return (losses * sure).mean(), sure.float().mean()


def augment(images, colour, generator):
    """Return a random view of each image (N, C, 28, 28) in [0, 1].

    Turned by up to 10 degrees, scaled by 0.9 to 1.1 and shifted by up to 2 pixels; with `colour`,
    each channel is also inverted with a probability of 1/2, multiplied by 0.7 to 1.3 and moved by
    up to 0.15.
    """
    count, channels = images.shape[:2]

    def draw(low, high, *shape):
        values = low + (high - low) * torch.rand(count, *shape, generator=generator)
        return values.to(images)

    angle, scale = draw(-math.pi / 18, math.pi / 18), draw(0.9, 1.1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x, y = (draw(-2, 2) * 2 / size for size in images.shape[:1:-1])
    matrices = torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)
    grid = F.affine_grid(matrices, images.shape, align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if colour:
        shape = channels, 1, 1
        inverted = draw(0, 1, *shape) < 0.5
        images = torch.where(inverted, 1 - images, images)
        images = images * draw(0.7, 1.3, *shape) + draw(-0.15, 0.15, *shape)
    return images.clamp(0, 1)


def train(
    network,
    source,
    target_images,
    settings,
    *,
    tests,
    target_labels=None,
    checkpoint=None,
    description="DANN",
):
    """Train `network` in place on a labelled source and images without labels.

    `source` is an ImageSet, `target_images` uint8 (N, C, 28, 28), `tests` a pair of ImageSets,
    source and target, whose accuracies are recorded after each epoch and influence nothing.
    `target_labels` (N,) are labels that a network gave, -1 where it gave none (`pseudo_labels`).
    An epoch shows each source image once (what fills no batch is left out) and as many target
    images, drawn anew in each epoch; settings without anything that needs the target leave it out.
    With `consistency` the network ends with the teacher's weights, which are those tested.
    With `checkpoint`, a path, the state after each epoch is kept, and training goes on from there
    to the same weights, bit for bit (on a CPU).
    Returns {name of RECORDED: list of one number an epoch}; losses and domain accuracy are means
    over the epoch, None where there is no such thing. Raises ValueError for fewer images than a
    batch, and for target labels of another number.
    """
    adapts = bool(
        settings.reversal is not None or settings.consistency or target_labels is not None
    )
    needed = {"source": source.images} | ({"target_images": target_images} if adapts else {})
    for name, images in needed.items():
        if len(images) < settings.batch_size:
            raise ValueError(f"{name} has {len(images)} rows for batches of {settings.batch_size}")
    if target_labels is not None and target_labels.shape != (len(target_images),):
        raise ValueError(
            f"target_labels has shape {tuple(target_labels.shape)}, "
            f"expected ({len(target_images)},)"
        )
    device = runtime.device()
    network.to(device, memory_format=torch.channels_last)
    teacher = copy.deepcopy(network).requires_grad_(False) if settings.consistency else None
    optimizer = (
        torch.optim.Adam(network.parameters(), settings.learning_rate)
        if settings.optimizer == "adam"
        else torch.optim.SGD(network.parameters(), settings.learning_rate, momentum=0.9)
    )
    given = [] if target_labels is None else [target_labels]
    made_from = fingerprint(
        [asdict(settings), torch.__version__, device.type],
        *needed.values(), source.labels, *given,
        *(part for t in tests for part in (t.images, t.labels)),
        network.state_dict(), sys.modules[type(network).__module__], sys.modules[__name__],
    )  # fmt: skip
    state = load_checkpoint(checkpoint, made_from) if checkpoint else None
    if state is None:
        history = {name: [] for name in RECORDED}
    else:
        history = state["history"]
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if teacher:
            teacher.load_state_dict(state["teacher"])

    images = [part.to(device) for part in needed.values()]
    labels = [part.to(device) for part in [source.labels, *given]]
    steps = len(source) // settings.batch_size
    done = len(history["label_loss"])
    bar = runtime.progress(
        None, f"{description} training", total=settings.epochs * steps, initial=done * steps
    )
    with bar:
        for epoch in range(done, settings.epochs):
            means = _epoch(network, teacher, optimizer, images, labels, settings, epoch, bar)
            tested = teacher or network
            on_target = _for_target(tested, settings, target_images) if adapts else tested
            scores = accuracy(tested, tests[0]), accuracy(on_target, tests[1])
            for name, value in zip(RECORDED, [*means, *scores], strict=True):
                history[name].append(value)
            if checkpoint:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"history": history}
                state |= {"teacher": teacher.state_dict()} if teacher else {}
                save_checkpoint(checkpoint, made_from, state)
    if teacher:
        network.load_state_dict(teacher.state_dict())
    return history


def _epoch(network, teacher, optimizer, images, labels, settings, epoch, bar):
    """Train for one epoch; return its means (losses, accuracy, accepted) and the last factor."""
    network.train()
    size, count = settings.batch_size, len(images[0])
    steps = count // size
    # Each domain has its own chance: without influence, the target changes nothing for the source.
    generators = [_generator(settings.seed, epoch, domain) for domain in (0, 1)]
    # A target smaller than the source is passed through more than once.
    orders = [
        torch.randperm(len(part), generator=generator)
        .repeat(math.ceil(count / len(part)))
        .to(part.device)
        for part, generator in zip(images, generators, strict=False)
    ]
    sums, factor = torch.zeros(4, device=images[0].device), None
    for step in range(steps):
        part, moment = slice(step * size, (step + 1) * size), epoch * steps + step
        progress = moment / (settings.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        if settings.reversal is not None:
            factor = settings.reversal
            if factor == "scheduled":
                factor = reversal_schedule(progress)
        batches = [_batch(images[d], orders[d][part]) for d in range(len(images))]
        known = [labels[d][orders[d][part]] for d in range(len(labels))]
        losses = _losses(network, teacher, batches, known, factor, settings, generators, moment)
        label_loss, domain_loss, consistency, accuracy, accepted = losses
        optimizer.zero_grad()
        (label_loss + domain_loss + settings.consistency * consistency).backward()
        optimizer.step()
        if teacher:
            _follow(teacher, network, min(settings.decay, 1 - 1 / (moment + 1)))
        sums += torch.stack([v.detach() for v in (label_loss, domain_loss, accuracy, accepted)])
        bar.update()
    label_loss, domain_loss, accuracy, accepted = (sums / steps).tolist()
    if settings.reversal is None:
        domain_loss = accuracy = None
    return label_loss, domain_loss, accuracy, accepted if teacher else None, factor


def _losses(network, teacher, batches, labels, factor, settings, generators, moment):
    """Return the three losses of a step, the domain accuracy and the share of accepted labels."""
    views = [_view(b, settings, g) for b, g in zip(batches, generators, strict=False)]
    zero = views[0].new_zeros(())
    domain_loss = consistency = accuracy = accepted = zero
    if len(views) == 1:
        with _chance(settings.seed, moment, 0):
            return F.cross_entropy(network(views[0]), labels[0]), zero, zero, zero, zero

    with _chance(settings.seed, moment, 0):
        if settings.joint:
            both = torch.cat([view.expand(-1, 3, -1, -1) for view in views])
            source, target = network.features(both).split([len(view) for view in views])
        else:
            source = network.features(views[0])
        label_loss = F.cross_entropy(network.label_classifier(source), labels[0])
    with _statistics_of_batches(network, kept=not settings.joint):
        with _chance(settings.seed, moment, 1):
            if not settings.joint:
                target = network.features(views[1])
            if len(labels) > 1 or teacher:
                scores = network.label_classifier(target)
        if len(labels) > 1 and (labels[1] >= 0).any():
            label_loss = label_loss + F.cross_entropy(scores, labels[1], ignore_index=-1)
        if factor is not None:
            domain_loss, accuracy = adversarial_loss(
                network, source, target, factor, settings.joint
            )
    if teacher:
        with torch.no_grad(), _statistics_of_batches(teacher, kept=True, dropout=False):
            teacher_scores = teacher(batches[1])
        consistency, accepted = consistency_loss(scores, teacher_scores, settings.confidence)
    return label_loss, domain_loss, consistency, accuracy, accepted


def _batch(images, indices):
    return images[indices].to(memory_format=torch.channels_last) / 255


def _view(images, settings, generator):
    if settings.augment is None:
        return images
    return augment(images, settings.augment == "shape and colour", generator)


def _follow(teacher, network, decay):
    """Move the teacher's weights towards the network's; take over its batch norms' averages."""
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for mine, theirs in zip(teacher.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


def _generator(*numbers):
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> 1))


@contextmanager
def _chance(*numbers):
    """Seed PyTorch's own generator of the device, which dropout draws from, for the block."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    # torch.manual_seed notes the call stack for GPUs to come: a twentieth of a step's time.
    on_gpu = runtime.device().type == "cuda"
    (torch.cuda.manual_seed if on_gpu else torch.default_generator.manual_seed)(seed)
    yield


@contextmanager
def _statistics_of_batches(network, kept, dropout=True):
    """In training mode, normalise by batches; if `kept`, without a change of the averages."""
    modules = list(network.modules())
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    modes = [module.training for module in modules]
    try:
        network.train()
        for module in modules:
            if isinstance(module, _DropoutNd) and not dropout:
                module.eval()
        for module in norms:
            module.track_running_stats = not kept
        yield
    finally:
        for module in norms:
            module.track_running_stats = True
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def with_statistics_of(network, images, count=10_000, batch_size=500):
    """Return a copy whose batch norms have the averages of uint8 images (N, C, 28, 28).

    Of `count` of them at most, evenly spaced. The weights stay as they are; labels are not needed
    (Li et al.: "Revisiting Batch Normalization for Practical Domain Adaptation", 2016).
    """
    other = copy.deepcopy(network).eval()
    for module in other.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the plain mean of all batches
            module.train()
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).long()
    device = next(other.parameters()).device
    with torch.no_grad():
        for batch in images[chosen].split(batch_size):
            if len(batch) > 1:
                other(batch.to(device) / 255)
    for module in other.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.1
    return other.train(network.training)


def _for_target(network, settings, target_images):
    """Return the network as it reads the target: by the target's own averages unless joint."""
    return network if settings.joint else with_statistics_of(network, target_images)


def predict(network, images, batch_size=500):
    """Return class scores (N, classes) on the CPU for uint8 images (N, C, 28, 28), in eval mode."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    batches = images.split(batch_size)
    bar = runtime.progress(batches, "digits read", disable=len(images) < 50_000)
    with torch.inference_mode():
        scores = [network(batch.to(device) / 255).cpu() for batch in bar]
    network.train(was_training)
    return torch.cat(scores)


def accuracy(network, test):
    """Return the share of an ImageSet's images whose label is the network's first choice."""
    return (predict(network, test.images).argmax(1) == test.labels).float().mean().item()


def pseudo_labels(network, images, threshold):
    """Return the label (N,) of each uint8 image that the network is sure of, -1 for the others.

    Sure means a largest probability of at least `threshold` (Lee: "Pseudo-Label", ICML workshop
    2013). Raises ValueError for a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected a probability in [0, 1]")
    chances, labels = predict(network, images).softmax(1).max(1)
    return torch.where(chances >= threshold, labels, -1)


def self_train(
    network,
    source,
    target_images,
    settings,
    *,
    threshold,
    rounds,
    tests,
    checkpoint=None,
    description="pseudo-labels",
):
    """Train `network` in place in rounds on the source and on labels that it gave the target.

    A round asks the network, as it reads the target, for the labels that it is sure of
    (`pseudo_labels`), and trains for `settings.epochs` on them beside the source's labels. What
    it is wrong about it then learns: the share of right ones among them bounds what it can gain.
    `checkpoint` is the path of the first round's, the others stand beside it. Other arguments as in
    `train`. Returns for each round the labels that it learned from (N,), -1 for none, and its
    history.
    """
    done = []
    for number in range(1, rounds + 1):
        labels = pseudo_labels(
            _for_target(network, settings, target_images), target_images, threshold
        )
        history = train(
            network,
            source,
            target_images,
            settings,
            tests=tests,
            target_labels=labels,
            checkpoint=checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{number}"),
            description=f"{description}, round {number}",
        )
        done.append((labels, history))
    return done
