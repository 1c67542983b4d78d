"""Features of the inner layers of a pretrained network, for many images."""

import torch

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models.checks import check_uint8_images


def extract(network, images, layers, batch_size=32, cache=True):
    """Return {layer: float32 (N, D)} on the CPU for uint8 images (N, 1 or 3, H, W), in order.

    All layers come from one pass a batch; convolutional maps are averaged over space. With `cache`
    the result is kept in <data>/cache/, under a name that stands for the images, the network's
    weights and code and the layers, and read from there the next time.
    Raises ValueError or TypeError for other images, unknown layers or a batch size below 1.
    """
    check_uint8_images(images)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    layers = list(layers)
    if not layers:
        raise ValueError(f"layers is empty, expected names from {', '.join(network.layers)}")
    made_from = path = None
    if cache:
        settings = [[layer, network.layer_modules.get(layer)] for layer in layers]
        settings += [network.name, network.input_size, network.interpolation.value]
        made_from = fingerprint(network.state_dict(), images, settings, type(network), extract)
        path = runtime.writable_data_root() / "cache" / f"features-{network.name}-{made_from}.pt"
        kept = load_checkpoint(path, made_from)
        if kept is not None:
            return kept

    parts = []
    with torch.inference_mode():
        for batch in runtime.progress(images.split(batch_size), f"features of {network.title}"):
            outputs = network.features(network.prepare(batch), layers)
            parts.append({layer: output.cpu() for layer, output in outputs.items()})
    features = {layer: torch.cat([part[layer] for part in parts]) for layer in layers}
    if cache:
        save_checkpoint(path, made_from, features)
    return features
