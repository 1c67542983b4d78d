"""Training a digit network for a domain without labels, and testing it."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from dlapps import runtime, steps, training
from dlapps.adaptation.batch_norm import adapt_batch_norm
from dlapps.adaptation.dann import dann_step, reversal_schedule
from dlapps.adaptation.settings import OPTIMIZERS, Settings
from dlapps.adaptation.teacher import augment, self_training_step, teacher_of
from dlapps.datasets import ImageSet


def train(
    network: nn.Module,
    source: ImageSet,
    target_images: Tensor,
    settings: Settings,
    *,
    tests: tuple[ImageSet, ImageSet],
    target_labels: Tensor | None = None,
    checkpoint: Path | None = None,
    description: str = "DANN",
) -> dict[str, list[float]]:
    """Train `network` in place on a labelled source and images without labels.

    `target_images` are uint8 (N, C, 28, 28); `tests` are of source and target, their accuracies
    after each epoch influence nothing. `target_labels` (N,) are `pseudo_labels`, -1 for none.
    An epoch shows each source image once (what fills no batch is left out) and as many target
    images; where nothing needs the target, none of it is seen. With `consistency` the network ends
    with the teacher's weights, which are those tested. `checkpoint`: see `training.run`.
    Returns {name: list of one number per epoch}: `label_loss`, `domain_loss` and `domain_accuracy`
    if there is a domain classifier, `accepted` if there is a teacher (all means over the epoch),
    the last `factor` of the reversal, `source_accuracy`, `target_accuracy`. Raises ValueError for
    fewer images than a batch and for target labels of another number, FloatingPointError for a loss
    that is not finite.
    """
    domains = {"source": (source.images, source.labels)}
    if settings.needs_target or target_labels is not None:
        domains["target_images"] = target_images, target_labels
    _check_data(domains, len(source.classes), settings.batch_size)
    kind, options = OPTIMIZERS[settings.optimizer]
    optimizer = steps.optimizer(kind, steps.to_device(network), **options)
    averages = {"network": teacher_of(network)} if settings.consistency else {}
    tested = averages.get("network", network)

    def test(t):
        on_target = tested if len(domains) == 1 else target_network(tested, settings, target_images)
        return {"source": accuracy(tested, tests[0]), "target": accuracy(on_target, tests[1])}

    plan = _plan(settings, len(source) // settings.batch_size, test)
    batches = [
        steps.Batches(*data, settings.batch_size, steps=plan.steps, seed=settings.seed, stream=i)
        for i, data in enumerate(domains.values())
    ]
    state = training.State({"network": network}, {"network": optimizer}, batches, averages)
    pairs = [*domains.values(), *((part.images, part.labels) for part in tests)]
    tensors = [tensor for pair in pairs for tensor in pair if tensor is not None]
    result = training.run(
        _step(state, settings), state, plan, checkpoint=checkpoint,
        made_from=[asdict(settings), *tensors, train, type(network)], description=description,
    ).check()  # fmt: skip
    network.load_state_dict(tested.state_dict())
    return _history(result, plan, settings)


def _plan(settings: Settings, per_epoch: int, test: Callable) -> training.Plan:
    """Return what is recorded and scheduled, and when it is tested: after each epoch."""
    count = settings.epochs * per_epoch
    records = ["label_loss"]
    schedules = {"learning_rate": lambda t: steps.cosine(t, count, settings.learning_rate)}
    if settings.reversal is not None:
        records += ["domain_loss", "domain_accuracy"]
        scheduled = settings.reversal == "scheduled"
        schedules["λ"] = lambda t: reversal_schedule(t / count) if scheduled else settings.reversal
    if settings.consistency:
        records.append("accepted")
        begin = settings.consistency_from * count
        schedules["ω"] = lambda t: settings.consistency if t >= begin else 0.0
    return training.Plan(
        count, tuple(records), schedules, settings.seed, settings.decay,
        watch=test, watch_at=tuple(range(per_epoch, count + 1, per_epoch)),
    )  # fmt: skip


def _step(state: training.State, settings: Settings) -> Callable:
    """Return the step that the settings ask for, on batches of the source and maybe the target."""
    network, optimizer = state.networks["network"], state.optimizers["network"]
    teacher = state.averages.get("network")

    def source_alone(at):
        ((x_s, y_s),) = (draw(at.t) for draw in state.batches)
        found = steps.supervised_step(network, optimizer, augment(x_s, settings.augment), y_s)
        return {"label_loss": found["loss"]}

    def dann(at):
        (x_s, y_s), (x_t, _) = (draw(at.t) for draw in state.batches)
        x_s, x_t = (augment(x, settings.augment) for x in (x_s, x_t))
        return dann_step(network, optimizer, x_s, y_s, x_t, at.λ, settings.joint)

    def self_training(at):
        source, target = (draw(at.t) for draw in state.batches)
        λ = None if settings.reversal is None else at.λ
        ω = None if teacher is None else at.ω
        return self_training_step(network, optimizer, source, target, λ, ω, teacher, settings)

    if len(state.batches) == 1:
        return source_alone
    return dann if teacher is None and state.batches[1].labels is None else self_training


def _history(result: training.Result, plan: training.Plan, settings: Settings) -> dict:
    """Return {name: list of one number per epoch}, of what there is."""
    found = result.means(settings.epochs)
    if settings.reversal is not None:
        found["factor"] = [plan.schedules["λ"](t - 1) for t in plan.watch_at]
    for domain in ("source", "target"):
        found[f"{domain}_accuracy"] = [result.watched[t][domain] for t in plan.watch_at]
    return found


def _check_data(domains, classes, batch_size):
    for name, (images, _) in domains.items():
        if len(images) < batch_size:
            raise ValueError(f"{name} has {len(images)} rows for batches of {batch_size}")
    images, labels = domains.get("target_images", (None, None))
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


def target_network(network: nn.Module, settings: Settings, target_images: Tensor) -> nn.Module:
    """Return the network as it is tested on the target: by the target's averages unless joint."""
    return network if settings.joint else adapt_batch_norm(network, target_images)


def predict(network: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return class scores (N, classes) on the CPU for uint8 images (N, C, 28, 28), in eval mode."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    batches = images.split(batch_size)
    bar = runtime.progress(batches, "digits classified", disable=len(images) < 50_000)
    with torch.inference_mode():
        scores = torch.cat([network(batch.to(device) / 255) for batch in bar])
    network.train(was_training)
    return scores.cpu()


def accuracy(network: nn.Module, test: ImageSet) -> float:
    """Return the share of images whose label has the largest score."""
    return (predict(network, test.images).argmax(1) == test.labels).float().mean().item()
