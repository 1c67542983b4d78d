"""Class images: eight classes in one call, beside one after the other as in the practical."""

import torch
from compare import by_device, compare

from dlapps import runtime
from dlapps.models import features, pretrained
from dlapps.visualization import class_images

CLASSES = 8


def rows():
    """Return one row; a class's image does not depend on the others."""
    network = features.fold_batch_norms(pretrained.load("efficientnet_lite0"))  # as practical 2
    plain = pretrained.load("efficientnet_lite0").to(memory_format=torch.contiguous_format)
    classes = torch.arange(0, 1000, 1000 // CLASSES)[:CLASSES]
    iterations = runtime.pick(quick=8, full=40)

    def ours():
        return class_images.maximise(network, classes, iterations=iterations).images

    def one_by_one():
        return torch.cat(
            [
                class_images.maximise(plain, one[None], iterations=iterations).images
                for one in classes
            ]
        )

    difference = (ours() - one_by_one()).abs().mean().item()
    return [
        compare(
            f"{CLASSES} class images, {iterations} iterations, {network.title}",
            "one after the other (NCHW)",
            ours,
            one_by_one,
            agreement=f"pixels differ by {difference:.1e} on average",
            target=by_device(cpu=2.0, gpu=1.0),
            rounds=3,
        )
    ]
