"""Features of scenes, beside the practical's plain loop and torchvision's feature extractor."""

import torch
from compare import apart, by_device, compare
from torch.utils.data import DataLoader
from torchvision.models.feature_extraction import create_feature_extractor

from dlapps import datasets, runtime
from dlapps.models import features, pretrained

# The target beside either peer on a CPU; ResNet-50 is for a GPU alone.
TARGETS = {"efficientnet_lite0": 4.0, "squeezenet1_1": 1.8, "vgg16": 1.8}
PLAIN, TORCHVISIONS = "one pass per layer (NCHW, float32)", "torchvision's create_feature_extractor"
GPU_TARGETS = {PLAIN: 1.5, TORCHVISIONS: 1.2}


class Photographs(torch.utils.data.Dataset):
    """Images resized and normalised one by one, as a DataLoader is usually fed.

    They lie on the device of the network, which `prepare` brings them to.
    """

    def __init__(self, network, images):
        self.network, self.images = network, images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.network.prepare(self.images[index : index + 1])
        return ((image - self.network.mean) / self.network.std)[0]


def pooled(output):
    return output.mean((2, 3)) if output.ndim == 4 else output


def rows():
    """Return a row for each network and peer. Weights do not matter to speed: they are random."""
    count = by_device(cpu=runtime.pick(quick=48, full=96), gpu=1024)
    photographs = datasets.load(runtime.pick(quick="photo-patches", full="15-scene"), "test")
    images = photographs.images[:: max(1, len(photographs) // count)][:count]
    found = []
    for name in by_device(cpu=[*TARGETS], gpu=[*TARGETS, "resnet50"]):
        torch.manual_seed(0)
        network = pretrained.build(name).to(runtime.device())
        layers = list(network.layers[1:])
        wanted = [network.layer_modules[layer] for layer in layers]
        plain = network.to(memory_format=torch.contiguous_format)
        loader = DataLoader(Photographs(plain, images), batch_size=32)

        def ours(network=network, layers=layers):
            return features.extract(network, images, layers, cache=False, quiet=True)

        def one_layer_a_pass(plain=plain, loader=loader, layers=layers):
            results = {}
            with torch.no_grad():
                for layer in layers:
                    parts = []
                    for batch in loader:
                        kept = []
                        handle = plain.module_of(layer).register_forward_hook(
                            lambda module, inputs, output, kept=kept: kept.append(output)
                        )
                        plain.body(batch)
                        handle.remove()
                        parts.append(pooled(kept[-1]))
                    results[layer] = torch.cat(parts).cpu()
            return results

        def torchvisions(plain=plain, loader=loader, layers=layers, wanted=wanted):
            extractor = create_feature_extractor(
                plain.body, dict(zip(wanted, layers, strict=True))
            ).eval()
            parts = []
            with torch.inference_mode():
                for batch in loader:
                    parts.append({k: pooled(v) for k, v in extractor(batch).items()})
            return {layer: torch.cat([part[layer] for part in parts]).cpu() for layer in layers}

        peers = {PLAIN: one_layer_a_pass}
        if "efficientnet" not in name:  # whose code torch.fx, on which the extractor rests, refuses
            peers[TORCHVISIONS] = torchvisions
        mine = ours()
        for peer, theirs in peers.items():
            expected = theirs()
            difference = max(apart(mine[layer], expected[layer]) for layer in layers)
            found.append(
                compare(
                    f"{len(layers)} layers of {network.title}, {len(images)} of {photographs.name}",
                    peer,
                    ours,
                    theirs,
                    agreement=f"differ by {difference:.1e} of the largest value",
                    target=by_device(cpu=TARGETS.get(name), gpu=GPU_TARGETS[peer]),
                    rounds=3,
                )
            )
    return found
