"""Features of the inner layers of a pretrained network, for many images."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dlapps import runtime
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models.checks import check_counts, check_sizes, check_uint8_images

SAVED_EVERY = 512  # images: at most so many are computed anew after an interruption


def extract(
    network,
    images,
    layers,
    *,
    sizes=None,
    mirrored=False,
    bands=1,
    dtype=torch.float32,
    batch_size=None,
    cache=True,
    quiet=False,
):
    """Return {layer: float32 (N, D)} on the CPU for uint8 images (N, 1 or 3, H, W), in order.

    All layers come from one pass a batch; convolutional maps are averaged over space, or over each
    of `bands` horizontal bands, from top to bottom, whose means lie one after the other. An image
    is shown at each of `sizes` (pixels, by default the network's input size), with `mirrored` also
    flipped from left to right, and its features are the mean over these views.

    Batch norms are folded into their convolutions, which changes the features by rounding only.
    dtype: float32, or bfloat16 or float16 to run the network under autocast.
    batch_size: by default 4 on a CPU, whose caches hold the maps of few images, 64 on a GPU. It is
    halved, with a word, as often as the memory does not suffice.
    quiet: show no progress bar.
    With `cache` the features are kept in <data>/cache/, under a name that stands for the images,
    the network's weights and code and all settings. They are read from there the next time; an
    extraction that was interrupted goes on from the last `SAVED_EVERY` images.
    Raises ValueError or TypeError for other images, unknown layers, sizes or types, or for a
    batch size or a number of bands below 1.
    """
    check_uint8_images(images)
    device = network.mean.device
    if batch_size is None:
        batch_size = runtime.images_at_once(device)
    check_counts(batch_size=batch_size, bands=bands)
    layers = list(layers)
    if not layers:
        raise ValueError(f"layers is empty, expected names from {', '.join(network.layers)}")
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is {dtype}, expected torch.float32, bfloat16 or float16")
    sizes = [network.input_size] if sizes is None else list(sizes)
    check_sizes(sizes)

    made_from = path = None
    parts, done = [], 0
    if cache:
        settings = [[layer, network.layer_modules.get(layer)] for layer in layers]
        settings += [network.name, network.interpolation.value, sizes, mirrored, bands]
        settings += [str(dtype), batch_size, device.type]
        made_from = fingerprint(
            network.state_dict(), images, settings, type(network), extract, _views, fold_batch_norms
        )
        path = runtime.writable_data_root() / "cache" / f"features-{network.name}-{made_from}.pt"
        kept = load_checkpoint(path, made_from)
        if kept is not None:
            done = len(kept[layers[0]])
            if done == len(images):
                return kept
            parts.append(kept)

    folded = fold_batch_norms(network, layers)
    bar = runtime.progress(
        None, f"features of {network.title}", len(images), initial=done, disable=quiet
    )
    unsaved = 0
    half = None if dtype == torch.float32 else dtype
    with bar, torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
        while done < len(images):
            batch = images[done : done + batch_size]
            try:
                with runtime.naming_memory("batch_size", batch_size):
                    views = [
                        folded.features(view, layers, bands)
                        for size in sizes
                        for view in _views(folded, batch, size, mirrored)
                    ]
            except MemoryError as error:
                if batch_size == 1:
                    raise MemoryError(f"sizes is {sizes}: out of memory for one image") from error
                batch_size //= 2
                print(f"Out of memory: going on with batch_size {batch_size}.")
                continue
            done += len(batch)
            means = {
                layer: torch.stack([view[layer].float() for view in views]).mean(0).cpu()
                for layer in layers
            }
            parts.append(means)
            bar.update(len(batch))
            unsaved += len(batch)
            if cache and unsaved >= SAVED_EVERY:
                parts, unsaved = [_joined(parts)], 0
                save_checkpoint(path, made_from, parts[0])
    features = _joined(parts)
    if cache:
        save_checkpoint(path, made_from, features)
    return features


def _views(network, images, size, mirrored):
    images = network.prepare(images, size)
    images = images.contiguous(memory_format=torch.channels_last)  # the faster layout
    return [images, images.flip(3)] if mirrored else [images]


def _joined(parts):
    return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}


def fold_batch_norms(network, layers=()):
    """Return a copy of a `PretrainedNetwork` in eval mode without the batch norms after a conv.

    In eval mode a batch norm multiplies each channel by a number and adds another, which the
    weights and bias of the convolution before it can do at no cost: w' = w g / s and
    b' = (b - m) g / s + h, for the running mean m and deviation s, the gain g and the shift h.
    Convolutions that `layers` names stay as they are, for their output is asked for.
    """
    folded = copy.deepcopy(network).eval()
    asked = [folded.module_of(layer) for layer in layers]
    for module in list(folded.body.modules()):
        previous = name = None
        for child_name, child in list(module.named_children()):
            if (
                isinstance(child, nn.BatchNorm2d)
                and isinstance(previous, nn.Conv2d)
                and previous.out_channels == child.num_features
                and previous not in asked
            ):
                setattr(module, name, fuse_conv_bn_eval(previous, child))
                setattr(module, child_name, nn.Identity())
            previous, name = child, child_name
    return folded
