"""Practical 3: a digit network for images without labels, by domain-adversarial training."""

import copy
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dlapps import runtime, steps, training, views
from dlapps.models.checks import check_counts, check_positive

LOSSES = "label_loss", "domain_loss", "domain_accuracy", "accepted"
RECORDED = (*LOSSES, "factor", "source_accuracy", "target_accuracy")
OPTIMIZERS = {"adam": (torch.optim.Adam, {}), "sgd": (torch.optim.SGD, {"momentum": 0.9})}
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
        check_counts(epochs=self.epochs, batch_size=self.batch_size)
        check_positive(learning_rate=self.learning_rate)
        if self.batch_size < 2:
            raise ValueError("batch_size is 1, expected at least 2: batch norm compares images")
        for name, known in [("optimizer", tuple(OPTIMIZERS)), ("augment", AUGMENTATIONS)]:
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
    probabilities, labels = teacher_scores.softmax(1).max(1)
    sure = probabilities >= confidence
    losses = F.cross_entropy(scores, labels, reduction="none")
    return (losses * sure).mean(), sure.float().mean()


def pseudo_label_loss(scores, labels):
    """Return the mean cross-entropy of scores (N, K) to labels (N,), -1 for none (nats).

    The mean over the images that have a label, 0 if none has one (Lee, ICML workshop 2013, eq. 15).
    """
    total = F.cross_entropy(scores, labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)


def features_of_both(network, x_s, x_t, joint):
    """Return the features of source and target, each by the statistics of its own batch.

    Those of the target do not enter batch norm's averages. If `joint`, both are one batch.
    """
    if joint:
        both = torch.cat([x.expand(-1, 3, -1, -1) for x in (x_s, x_t)])
        return network.features(both).split([len(x_s), len(x_t)])
    f_s = network.features(x_s)
    with averages_kept(network):
        return f_s, network.features(x_t)


def dann_step(network, optimizer, x_s, y_s, x_t, λ, joint=False):
    """Update a `DANN` on images x_s with labels y_s, and x_t without (Ganin et al., 2016, eq. 9).

        L = L_y(G_y(f_s), y_s) + L_d(G_d(R_λ(f_s)), 0) + L_d(G_d(R_λ(f_t)), 1),  f = G_f(x),

    with R_λ the reversal of the gradient: G_f climbs λ L_d while G_d descends L_d.
    """
    f_s, f_t = features_of_both(network, x_s, x_t, joint)
    L_y = F.cross_entropy(network.label_classifier(f_s), y_s)
    L_d, right = adversarial_loss(network, f_s, f_t, λ, joint)
    steps.update(optimizer, L_y + L_d)
    return {"label_loss": L_y, "domain_loss": L_d, "domain_accuracy": right}


def self_training_step(network, optimizer, source, target, λ, teacher=None, settings=Settings()):
    """Update a `DANN` on the source, and on labels of the target that networks gave.

        L = L_y + L_d + L_ŷ + ω L_c,

    with L_y and, unless λ is None, L_d as in `dann_step`, of views of the images; L_ŷ the
    `pseudo_label_loss` of labels ŷ_t, unless they are None; ω L_c the `consistency_loss` beside the
    teacher, if there is one: it sees the images themselves, and then follows (`steps.ema`).
    """
    (x_s, y_s), (x_t, ŷ_t), joint = source, target, settings.joint
    seen = [augment(x, settings.augment) for x in (x_s, x_t)]
    f_s, f_t = features_of_both(network, *seen, joint)
    L = L_y = F.cross_entropy(network.label_classifier(f_s), y_s)
    found = {"label_loss": L_y}
    if λ is not None:
        found["domain_loss"], found["domain_accuracy"] = adversarial_loss(
            network, f_s, f_t, λ, joint
        )
        L = L + found["domain_loss"]
    with averages_kept(network, not joint):
        scores = network.label_classifier(f_t)
    if ŷ_t is not None:
        L = L + pseudo_label_loss(scores, ŷ_t)
    if teacher is not None:
        with torch.no_grad():
            teacher_scores = teacher(x_t)
        L_c, found["accepted"] = consistency_loss(scores, teacher_scores, settings.confidence)
        L = L + settings.consistency * L_c
    steps.update(optimizer, L)
    return found


def augment(images, kind):
    """Return a random view of each image (N, C, 28, 28) in [0, 1]; the images if `kind` is None.

    "shape": turned, scaled and shifted (`views.turned`); "shape and colour": in other colours as
    well (`views.recoloured`).
    """
    if kind is None:
        return images
    images = views.turned(images)
    return views.recoloured(images) if kind == "shape and colour" else images


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
    images; settings without anything that needs the target leave it out.
    With `consistency` the network ends with the teacher's weights, which are those tested.
    `checkpoint`: see `training.run`.
    Returns {name of RECORDED: list of one number per epoch}; losses and domain accuracy are means
    over the epoch, None where there is no such thing. Raises ValueError for fewer images than a
    batch and for target labels of another number, FloatingPointError for a loss that is not finite.
    """
    alone = settings.reversal is None and not settings.consistency and target_labels is None
    data = {"source": (source.images, source.labels)}
    data |= {} if alone else {"target_images": (target_images, target_labels)}
    _check_data(data, len(source.classes), settings.batch_size)
    per_epoch = len(source) // settings.batch_size
    count = settings.epochs * per_epoch

    steps.place(network)
    kind, options = OPTIMIZERS[settings.optimizer]
    optimizer = steps.optimizer(kind, network, **options)
    averages = {"network": _teacher_of(network)} if settings.consistency else {}
    tested = averages.get("network", network)
    batches = [
        steps.Batches(*domain, settings.batch_size, steps=count, seed=settings.seed, stream=stream)
        for stream, domain in enumerate(data.values())
    ]

    def accuracies(t):
        on_target = tested if alone else _for_target(tested, settings, target_images)
        return [accuracy(tested, tests[0]), accuracy(on_target, tests[1])]

    plan = training.Plan(
        count, LOSSES, _schedules(settings, count), settings.seed, settings.decay,
        watch=accuracies, watch_at=tuple(range(per_epoch, count + 1, per_epoch)),
    )  # fmt: skip
    state = training.State({"network": network}, {"network": optimizer}, batches, averages)
    tensors = [part for domain in data.values() for part in domain if part is not None]
    tensors += [part for test in tests for part in (test.images, test.labels)]
    result = training.run(
        _step_of(network, averages.get("network"), optimizer, batches, settings), state, plan,
        checkpoint=checkpoint, made_from=[asdict(settings), *tensors, train, type(network)],
        description=description,
    ).check()  # fmt: skip
    network.load_state_dict(tested.state_dict())
    return _history(result, plan, settings)


def _schedules(settings, count):
    found = {"learning_rate": lambda t: steps.cosine(t, count, settings.learning_rate)}
    if settings.reversal == "scheduled":
        found["λ"] = lambda t: reversal_schedule(t / count)
    elif settings.reversal is not None:
        found["λ"] = lambda t: settings.reversal
    return found


def _step_of(network, teacher, optimizer, batches, settings):
    """Return the step that the settings ask for, on batches of the source and maybe the target."""

    def source_alone(at):
        x_s, y_s = batches[0](at.t)
        found = steps.supervised_step(network, optimizer, augment(x_s, settings.augment), y_s)
        return {"label_loss": found["loss"]}

    def dann(at):
        (x_s, y_s), (x_t, _) = (draw(at.t) for draw in batches)
        x_s, x_t = (augment(x, settings.augment) for x in (x_s, x_t))
        return dann_step(network, optimizer, x_s, y_s, x_t, at.λ, settings.joint)

    def self_training(at):
        source, target = (draw(at.t) for draw in batches)
        λ = None if settings.reversal is None else at.λ
        return self_training_step(network, optimizer, source, target, λ, teacher, settings)

    if len(batches) == 1:
        return source_alone
    return dann if teacher is None and batches[1].labels is None else self_training


def _history(result, plan, settings):
    """Return {name of RECORDED: a list of one number per epoch, or None}."""
    found = result.means(settings.epochs)
    if settings.reversal is None:
        found |= dict.fromkeys(
            ("domain_loss", "domain_accuracy", "factor"), [None] * settings.epochs
        )
    else:
        found["factor"] = [plan.schedules["λ"](t - 1) for t in plan.watch_at]
    if not settings.consistency:
        found["accepted"] = [None] * settings.epochs
    accuracies = zip(*(result.watched[t] for t in plan.watch_at), strict=True)
    found |= zip(RECORDED[-2:], map(list, accuracies), strict=True)
    return {name: found[name] for name in RECORDED}


def _check_data(data, classes, batch_size):
    for name, (images, _) in data.items():
        if len(images) < batch_size:
            raise ValueError(f"{name} has {len(images)} rows for batches of {batch_size}")
    images, labels = data.get("target_images", (None, None))
    if labels is None:
        return
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"target_labels has shape {tuple(labels.shape)}, expected ({len(images)},)"
        )
    low, high = labels.min().item(), labels.max().item()
    if low < -1 or high >= classes:
        raise ValueError(
            f"target_labels has values in [{low}, {high}], expected -1 to {classes - 1}"
        )


def _teacher_of(network):
    """Return a copy that reads each batch by its own statistics, without dropout and averages."""
    teacher = copy.deepcopy(network).requires_grad_(False).train()
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
        elif isinstance(module, _DropoutNd):
            module.p = 0.0
    return teacher


@contextmanager
def averages_kept(network, kept=True):
    """Normalise by batches without a change of batch norm's averages, unless `kept` is False."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    try:
        for module in norms:
            module.track_running_stats = not kept
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


def with_statistics_of(network, images, count=10_000, batch_size=500):
    """Return a copy whose batch norms have the averages of uint8 images (N, C, 28, 28).

    Of `count` of them at most, evenly spaced. The weights stay as they are; labels are not needed
    (Li et al.: "Revisiting Batch Normalization for Practical Domain Adaptation", 2016).
    """
    other = copy.deepcopy(network).eval()
    for module in other.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = True  # a teacher's does not
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
        scores = torch.cat([network(batch.to(device) / 255) for batch in bar])
    network.train(was_training)
    return scores.cpu()


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
    probabilities, labels = predict(network, images).softmax(1).max(1)
    return torch.where(probabilities >= threshold, labels, -1)


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
