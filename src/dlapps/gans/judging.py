"""Training a classifier to judge generated images, and what it sees in them."""

import torch

from dlapps import steps, training, views
from dlapps.models.checks import check_counts, check_uint8_images


def train_judge(
    judge, images, labels, *, epochs=6, batch_size=128, seed=0, checkpoint=None, description="judge"
):
    """Train a classifier in place on uint8 images (N, C, 32, 32), turned and shifted a little.

    Adam, whose rate of 0.002 falls to 0 along half a cosine. `checkpoint`: see `training.run`.
    Raises ValueError for labels of another number and for fewer images than a batch.
    """
    check_uint8_images(images)
    check_counts(epochs=epochs, batch_size=batch_size)
    if len(labels) != len(images) or len(images) < batch_size:
        raise ValueError(
            f"images has {len(images)} rows and labels {len(labels)}, expected as many of both, "
            f"and at least {batch_size}"
        )
    count = epochs * (len(images) // batch_size)
    steps.to_device(judge)
    optimizer = steps.optimizer(torch.optim.Adam, judge)
    batches = steps.Batches(images, labels, batch_size, steps=count, seed=seed)

    def step(at):
        x, y = batches(at.t)
        shift = 0.07 * x.shape[-1]
        return steps.supervised_step(judge, optimizer, views.random_affine(x, shift=shift), y)

    plan = training.Plan(
        count,
        ("loss", "accuracy"),
        {"learning_rate": lambda t: steps.cosine(t, count, 2e-3)},
        seed,
    )
    state = training.State({"judge": judge}, {"judge": optimizer}, (batches,))
    made_from = [epochs, batch_size, images, labels, train_judge, type(judge)]
    training.run(
        step, state, plan, checkpoint=checkpoint, made_from=made_from, description=description
    ).check()
    judge.eval()


def features_and_classes(judge, images, batch_size=500):
    """Return features (N, D) and the most likely class (N,) of uint8 images (N, C, 32, 32)."""
    check_uint8_images(images)
    device = next(judge.parameters()).device
    judge.eval()
    features = []
    with torch.inference_mode():
        for batch in images.split(batch_size):
            features.append(judge.features(batch.to(device) / 255))
        features = torch.cat(features)
        classes = judge.head(features).argmax(1)
    return features.cpu(), classes.cpu()
