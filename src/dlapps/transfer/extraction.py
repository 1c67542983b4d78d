"""How fast features are extracted."""

import copy
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from dlapps import runtime
from dlapps.models import features


def compare_extractions(
    network: nn.Module, images: Tensor, size: int, repeats: int = 3
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Time a plain loop over batches of 32 and `features.extract` on uint8 images (N, C, H, W).

    The features are those of the network's default layer, of images at `size` pixels. Returns a
    DataFrame and {way: features (N, D)}. Columns: `way`, `images per second` (the fastest of
    `repeats` passes; one in bfloat16, which some processors only emulate), `speed-up` over the
    plain loop, `largest change` of a feature.
    """
    layer = network.default_layer
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)

    def plain_loop(images):
        with torch.inference_mode():
            batches = (plain.prepare(batch, size) for batch in images.split(32))
            return torch.cat([plain.features(b, [layer])[layer] for b in batches]).cpu()

    def extracted(images, **options):
        options = {"sizes": [size], "cache": False, "dtype": torch.float32} | options
        return features.extract(network, images, [layer], **options)[layer]

    ways = {
        "plain loop, batches of 32": plain_loop,
        "channels-last, folded, batches of 32": partial(extracted, batch_size=32),
        "channels-last, folded, batches for the device": extracted,
        "the same in bfloat16": partial(extracted, dtype=torch.bfloat16),
    }
    found, rates = {}, []
    for way, run in ways.items():
        run(images[:8])  # the first pass chooses kernels
        seconds = []
        for _ in range(1 if "bfloat16" in way else repeats):
            start = runtime.clock()
            found[way] = run(images)
            seconds.append(runtime.clock() - start)
        rates.append(len(images) / min(seconds))
    reference = found["plain loop, batches of 32"]
    table = pd.DataFrame({"way": [*ways], "images per second": rates})
    table["speed-up"] = table["images per second"] / rates[0]
    table["largest change"] = [(x - reference).abs().max().item() for x in found.values()]
    return table, found
