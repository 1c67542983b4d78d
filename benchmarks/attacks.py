"""Attacks to random targets, beside torchattacks: the time until all images are fooled."""

from functools import partial

import torch
import torchattacks
from compare import by_device, compare

from dlapps import datasets, runtime
from dlapps.models import features, pretrained
from dlapps.visualization import attack_measures, minimal_norm, references, white_box


def rows():
    """Return a row for each pair of attacks that reach the same with changes as short."""
    network = features.fold_batch_norms(pretrained.load("efficientnet_lite0"))  # as practical 2
    # Channel after channel: some of torchattacks view their gradients as rows.
    theirs_network = pretrained.load("efficientnet_lite0")
    theirs_network.to(memory_format=torch.contiguous_format)
    photographs = datasets.load(runtime.pick(quick="photos", full="imagenet-25"), split="test")
    images = network.prepare(photographs.images).contiguous()
    with torch.no_grad():
        predicted = network(images).argmax(1)
    generator = torch.Generator().manual_seed(0)
    targets = (
        predicted + torch.randint(1, 1000, (len(images),), generator=generator).to(predicted)
    ) % 1000

    def theirs(attack):
        attack.set_mode_targeted_by_label(quiet=True)
        return lambda: attack(images, targets)

    def ours(attack, **options):
        return lambda: attack(network, images, targets, targeted=True, **options).images

    pairs = {
        "PGD, l∞ 8/255, at most 40 steps": (
            ours(white_box.pgd),
            "PGD",
            theirs(torchattacks.PGD(theirs_network, eps=8 / 255, alpha=2 / 255, steps=40)),
            by_device(cpu=1.5, gpu=2.5),
        ),
        "PGD, l2 2.0, at most 40 steps": (
            ours(white_box.pgd, norm="l2", epsilon=2.0),
            "PGDL2",
            theirs(torchattacks.PGDL2(theirs_network, eps=2.0, alpha=0.2, steps=40)),
            by_device(cpu=1.5, gpu=2.5),
        ),
        "shortest change, Newton DDN with 20 gradients": (
            ours(minimal_norm.newton_ddn, steps=20),
            "CW, c = 1, 100 steps",
            theirs(torchattacks.CW(theirs_network, c=1, steps=100, lr=0.01)),
            5.0,
        ),
    }
    found = []
    for name, (mine, peer, other, target) in pairs.items():
        reached = [
            attack_measures.measure(network, images, attack(), targets, targeted=True)
            for attack in (mine, other)
        ]
        lengths = " and ".join(
            f"{one['success']:.0%} at {one['l2'] if one['l2'] is None else round(one['l2'], 2)}"
            for one in reached
        )
        found.append(
            compare(
                f"{name}: {len(images)} of {photographs.name}, {network.title}",
                f"torchattacks {peer}",
                mine,
                other,
                agreement=f"fooled and median l2: {lengths}",
                target=target,
                rounds=3,
            )
        )
    return found + _of_adversarial_library(network, images, predicted, targets, photographs.name)


def _of_adversarial_library(network, images, predicted, targets, data, steps=20):
    """Return rows for the shortest changes of adversarial-library, none where it is not installed.

    It is not among the peers that are installed with `.[benchmarks]`: it asks for visdom, which not
    every machine builds.
    """
    found = []
    for goal, labels in (("random", targets), ("any other", predicted)):
        targeted = goal == "random"
        options = {"targeted": targeted, "steps": steps}
        theirs = references.shortest_of_adversarial_library(network, images, labels, **options)
        mine = minimal_norm.newton_ddn(network, images, labels, **options).images
        for peer, changed in theirs.items():
            lengths = [
                attack_measures.measure(network, images, one, labels, targeted=targeted)
                for one in (mine, changed)
            ]
            said = " and ".join(f"{one['success']:.0%} at {one['l2']}" for one in lengths)
            found.append(
                compare(
                    f"shortest change to {goal} class, {steps} gradients: {len(images)} of {data}",
                    f"adversarial-library {peer}",
                    partial(minimal_norm.newton_ddn, network, images, labels, **options),
                    partial(
                        references.shortest_of_adversarial_library,
                        network, images, labels, attacks=(peer,), **options,
                    ),
                    agreement=f"fooled and median l2: {said}",
                    rounds=1,
                )
            )  # fmt: skip
    return found
