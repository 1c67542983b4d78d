"""Practical 2 beside Captum and torchattacks: the same task, the same images, one run.

    python benchmarks/visualization.py [--network squeezenet1_1] [--images 25]

Prints two tables. Maps: how far ours are from Captum's (largest difference, as a share of the
largest value), and Captum's time as a multiple of ours. Attacks, to random targets: success, median
L2 norm of the change on the [0, 1] scale, and time an image as a multiple of Carlini and Wagner's
attack in torchattacks. Needs both libraries: `pip install --editable '.[benchmarks]'`.
"""

import argparse
import functools
import time

import pandas as pd
import torch
import torchattacks
from captum import attr

from dlapps import adversarial, datasets, saliency
from dlapps.models import pretrained


def timed(function):
    """Return what a function returns, and the seconds it took."""
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def maps(network, images, labels, steps=20):
    """Return a row for each kind of map that both have, computed for the whole batch."""

    def captums_grad_cam():
        layer = network.module_of(saliency.map_layers(network, images[:1])[-1])
        found = attr.LayerGradCam(network, layer).attribute(images, labels, relu_attributions=True)
        return attr.LayerAttribution.interpolate(found, images.shape[2:], "bilinear")[:, 0]

    def captums_integrated():
        method = attr.IntegratedGradients(network)
        return method.attribute(
            images, images * 0, labels, n_steps=steps, internal_batch_size=len(images)
        ).sum(1)

    pairs = {
        "gradient": (
            saliency.gradient,
            lambda: attr.Saliency(network).attribute(images, labels).amax(1),
        ),
        "integrated gradients": (
            functools.partial(saliency.integrated_gradients, steps=steps),
            captums_integrated,
        ),
        "Grad-CAM": (saliency.grad_cam, captums_grad_cam),
    }
    rows = []
    for name, (ours, theirs) in pairs.items():
        theirs()  # the first call pays for what later ones find prepared
        found, seconds = timed(lambda ours=ours: ours(network, images, labels))
        expected, others = timed(theirs)
        expected = expected.detach()
        rows.append(
            {
                "map": name,
                "largest difference": (
                    (found - expected).abs().max() / expected.abs().max()
                ).item(),
                "Captum's time": others / seconds,
            }
        )
    return rows


def attacks(network, images, targets):
    """Return a row for each attack, ours and theirs, to the same targets."""

    def theirs(attack):
        attack.set_mode_targeted_by_label(quiet=True)
        return lambda: attack(images.contiguous(), targets)

    def ours(attack, **options):
        return lambda: attack(network, images, targets, targeted=True, **options).images

    contenders = {
        "torchattacks CW(c=1, steps=100, lr=0.01)": theirs(
            torchattacks.CW(network, c=1, steps=100, lr=0.01)
        ),
        "torchattacks PGD(eps=8/255, steps=40)": theirs(
            torchattacks.PGD(network, eps=8 / 255, alpha=2 / 255, steps=40)
        ),
        "torchattacks PGDL2(eps=2, steps=40)": theirs(
            torchattacks.PGDL2(network, eps=2.0, alpha=0.2, steps=40)
        ),
        "carlini_wagner, the same settings": ours(adversarial.carlini_wagner),
        "pgd, linf 8/255, 40 steps": ours(adversarial.pgd),
        "pgd, l2 2.0, 40 steps": ours(adversarial.pgd, norm="l2", epsilon=2.0),
        "fool, step 0.05": lambda: adversarial.fool(network, images, targets).images,
        "minimal_norm, 20 gradients": ours(adversarial.minimal_norm, steps=20),
        "minimal_norm, 100 gradients": ours(adversarial.minimal_norm),
    }
    rows = []
    for name, attack in contenders.items():
        changed, seconds = timed(attack)
        values = adversarial.measure(network, images, changed, targets, targeted=True)
        rows.append({"attack": name, **values, "time": seconds})
    for row in reversed(rows):
        row["time"] /= rows[0]["time"]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=pretrained.NAMES, default="squeezenet1_1")
    parser.add_argument("--images", type=int, default=25)
    options = parser.parse_args()

    # Channel after channel: torchattacks' PGDL2 views its gradients as rows.
    network = pretrained.load(options.network).to(memory_format=torch.contiguous_format)
    photos = datasets.load("imagenet-25", split="test")
    images = network.prepare(photos.images[: options.images])
    with torch.no_grad():
        predicted = network(images).argmax(1)
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randint(1, 1000, (len(images),), generator=generator).to(predicted)
    print(f"{network.title}, {len(images)} of {photos.name}, {torch.get_num_threads()} threads")
    with pd.option_context("display.width", 160, "display.precision", 3):
        print(pd.DataFrame(maps(network, images, predicted)).to_string(index=False))
        targets = (predicted + offsets) % 1000
        print(pd.DataFrame(attacks(network, images, targets)).to_string(index=False))


if __name__ == "__main__":
    main()
