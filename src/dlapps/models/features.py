"""Features of the inner layers of a pretrained network, for many images."""

import copy
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dlapps import runtime
from dlapps.checks import check_counts, check_sizes, check_uint8_images
from dlapps.files import fingerprint, load_checkpoint, save_checkpoint
from dlapps.models.pretrained import resize

# Images: at most so many are computed anew after an interruption, and lie on a GPU as features.
SAVED_EVERY = 512


def extract(
    network: nn.Module, images: Tensor, layers, *, sizes=None, mirrored=False, bands=1, dtype=None,
    batch_size=None, cache=True, quiet=False,
) -> dict[str, Tensor]:  # fmt: skip
    """Return {layer: float32 (N, D)} on the CPU for uint8 images (N, 1 or 3, H, W), in order.

    All layers come from one pass per batch; convolutional maps are averaged over space, or over
    each of `bands` horizontal bands, from top to bottom, whose means lie one after the other. An
    image is shown at each of `sizes` (pixels, by default the network's input size), with `mirrored`
    also flipped from left to right, and its features are the mean over these views.

    Batch norms are folded into their convolutions, which changes the features by rounding only.
    dtype: what the network computes in, float32, float16 or bfloat16; by default float16 on a GPU
    of compute capability 7 or above, float32 elsewhere. All means are of float32.
    batch_size: by default 4 on a CPU, whose caches hold the maps of few images, and on a GPU 256,
    or fewer of images above 224 pixels. It is halved, with a word, as often as the memory does not
    suffice.
    quiet: show no progress bar.
    With `cache` the features are kept in cache/ beside the archives, under a name that stands for
    the images, the network's weights and code, all settings and the versions of torch and
    torchvision. They are read from there the next time; an extraction that was interrupted goes on
    from the last `SAVED_EVERY` images.
    Raises ValueError or TypeError for other images, unknown layers, sizes or types, for sizes that
    are too small for the network, and for a batch size or a number of bands below 1;
    FloatingPointError where float16 is too narrow for the network's numbers.
    """
    device = network.mean.device
    views = _Views(
        network,
        list(layers),
        [network.input_size] if sizes is None else list(sizes),
        mirrored,
        bands,
        _fast_type(device) if dtype is None else dtype,
    )
    check_uint8_images(images)
    views.check()
    batch_size = _batch_size(device, max(views.sizes)) if batch_size is None else batch_size
    check_counts(batch_size=batch_size)

    parts, done = [], 0
    if cache:
        made_from = fingerprint(network.state_dict(), images, *views.made_from(batch_size))
        path = runtime.archives_root() / "cache" / f"features-{network.name}-{made_from}.pt"
        kept = load_checkpoint(path, made_from)
        if kept is not None:
            parts, done = [kept], len(kept[views.layers[0]])
    if done < len(images):
        for part in _computed(views, images, done, batch_size, quiet):
            parts.append(part)
            if cache:
                parts = [_joined(parts)]
                save_checkpoint(path, made_from, parts[0])
    return parts[0] if len(parts) == 1 else _joined(parts)


@dataclass(frozen=True)
class _Views:
    """What is asked of a network for each image."""

    network: nn.Module
    layers: list
    sizes: list
    mirrored: bool
    bands: int
    dtype: torch.dtype

    def check(self):
        check_sizes(self.sizes)
        if min(self.sizes) < self.network.smallest_size:
            raise ValueError(
                f"sizes is {self.sizes}, expected at least {self.network.smallest_size} pixels for "
                f"{self.network.title}"
            )
        check_counts(bands=self.bands)
        if not self.layers:
            known = ", ".join(self.network.layers)
            raise ValueError(f"layers is empty, expected names from {known}")
        if self.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is {self.dtype}, expected torch.float32, bfloat16 or float16")

    def made_from(self, batch_size):
        """Return what the features depend on beside the images and the weights."""
        network = self.network
        settings = [[layer, network.layer_modules.get(layer)] for layer in self.layers]
        settings += [network.name, network.interpolation.value, self.sizes, self.mirrored]
        settings += [self.bands, str(self.dtype), batch_size, network.mean.device.type]
        settings += [str(torch.__version__), torchvision.__version__]
        return settings, type(network), network.prepare, resize, extract

    def features(self, folded, images):
        """Return {layer: means (N, D)} over all views of a batch, by the network folded."""
        found = []
        with torch.inference_mode():
            for size in self.sizes:
                shown = folded.prepare(images, size)
                shown = shown.contiguous(memory_format=torch.channels_last)  # the faster layout
                for view in [shown, shown.flip(3)] if self.mirrored else [shown]:
                    found.append(folded.features(view.to(self.dtype), self.layers, self.bands))
            return {name: torch.stack([f[name] for f in found]).mean(0) for name in self.layers}


def _computed(views, images, done, batch_size, quiet):
    """Yield {layer: features on the CPU} of about `SAVED_EVERY` images each, from `done` on."""
    network = views.network
    folded = fold_batch_norms(network, views.layers).to(views.dtype)
    feed = _Prefetcher(images, network.mean.device)
    name = f"features of {network.title}"
    bar = runtime.progress(None, name, len(images), initial=done, disable=quiet)
    waiting, count = [], 0  # what is on the network's device, and of how many images
    with bar, runtime.keep_freed_memory(), runtime.chosen_kernels(network.mean.device):
        while done < len(images):
            try:
                with runtime.naming_memory("batch_size", batch_size):
                    batch = feed.batch(done, batch_size)
                    waiting.append(views.features(folded, batch))
            except MemoryError as error:
                if batch_size == 1:
                    raise MemoryError(
                        f"sizes is {views.sizes}: out of memory for one image"
                    ) from error
                batch_size //= 2
                print(f"Out of memory: going on with batch_size {batch_size}.")
                continue
            done += len(batch)
            count += len(batch)
            bar.update(len(batch))
            if count >= SAVED_EVERY or done == len(images):
                yield _fetched(waiting, views.dtype)
                waiting, count = [], 0


def _batch_size(device, size):
    """Return how many images of `size` pixels the network takes at once, if the memory suffices."""
    if device.type == "cpu":
        return runtime.images_at_once(device)
    return max(1, 256 * 224**2 // max(size, 224) ** 2)


def _fast_type(device):
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.float16 if fast else torch.float32


class _Prefetcher:
    """Batches of images (N, C, H, W) on a device.

    On a GPU the next batch is copied there, by a stream of its own, while this one is computed.
    """

    def __init__(self, images, device):
        self.images, self.device = images, device
        ahead = device.type == "cuda" and not images.is_cuda
        self.stream = torch.cuda.Stream(device) if ahead else None
        self.ahead = None  # (first, count) and the batch on its way

    def batch(self, first, count):
        """Return `count` images from `first` on, on the device; on a GPU, send for those after."""
        if self.stream is None:
            return self.images[first : first + count].to(self.device)
        if self.ahead is None or self.ahead[0] != (first, count):
            self._send_for(first, count)
        batch, current = self.ahead[1], torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        batch.record_stream(current)  # its memory is not the copies' before this stream is done
        self._send_for(first + count, count)
        return batch

    def _send_for(self, first, count):
        self.ahead, part = None, self.images[first : first + count]
        with torch.cuda.stream(self.stream):
            part = part.pin_memory().to(self.device, non_blocking=True) if len(part) else None
        self.ahead = (first, count), part


def _fetched(parts, dtype):
    """Return parts joined on the CPU; raise FloatingPointError for what float16 cannot hold."""
    features = {layer: values.cpu() for layer, values in _joined(parts).items()}
    for layer, values in features.items():
        if dtype == torch.float16 and not values.isfinite().all():
            raise FloatingPointError(
                f"dtype is {dtype}, whose range {layer} exceeds: expected torch.float32 or bfloat16"
            )
    return features


def _joined(parts):
    return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}


def fold_batch_norms(network: nn.Module, layers=()) -> nn.Module:
    """Return a copy of a `PretrainedNetwork` in eval mode without the batch norms after a conv.

    In eval mode a batch norm multiplies each channel by a number and adds another, which the
    weights and bias of the convolution before it can do at no cost: w' = w g / s and
    b' = (b - m) g / s + h, for the running mean m and deviation s, the gain g and the shift h.
    Convolutions that `layers` names stay as they are, for their output is asked for.
    All other weights lie in the memory of those of `network`: to change them in place there changes
    them here.
    """
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in network.parameters()}
    shared |= {id(buffer): buffer for buffer in network.buffers()}
    folded = copy.deepcopy(network, shared).eval()
    asked = [folded.module_of(layer) for layer in layers]
    for module in list(folded.body.modules()):
        previous = None
        for name, child in list(module.named_children()):
            if (
                isinstance(child, nn.BatchNorm2d)
                and isinstance(previous, nn.Conv2d)
                and previous.out_channels == child.num_features
                and previous not in asked
            ):
                previous.weight, previous.bias = fuse_conv_bn_weights(
                    previous.weight, previous.bias, child.running_mean, child.running_var,
                    child.eps, child.weight, child.bias,
                )  # fmt: skip
                setattr(module, name, nn.Identity())
            previous = child
    return folded
