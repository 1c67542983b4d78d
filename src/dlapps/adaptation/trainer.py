"""Training a digit network for a domain without labels, and testing it."""

from dataclasses import asdict

import torch

from dlapps import runtime, steps, training
from dlapps.adaptation.batch_norm import adapt_batch_norm
from dlapps.adaptation.dann import dann_step, reversal_schedule
from dlapps.adaptation.settings import OPTIMIZERS
from dlapps.adaptation.teacher import augment, self_training_step, teacher_of

LOSSES = "label_loss", "domain_loss", "domain_accuracy", "accepted"
RECORDED = (*LOSSES, "factor", "source_accuracy", "target_accuracy")


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

    steps.to_device(network)
    kind, options = OPTIMIZERS[settings.optimizer]
    optimizer = steps.optimizer(kind, network, **options)
    averages = {"network": teacher_of(network)} if settings.consistency else {}
    tested = averages.get("network", network)
    batches = [
        steps.Batches(*domain, settings.batch_size, steps=count, seed=settings.seed, stream=stream)
        for stream, domain in enumerate(data.values())
    ]

    def accuracies(t):
        on_target = tested if alone else target_network(tested, settings, target_images)
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


def target_network(network, settings, target_images):
    """Return the network as it reads the target: by the target's own averages unless joint."""
    return network if settings.joint else adapt_batch_norm(network, target_images)


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
