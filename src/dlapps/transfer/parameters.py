"""A network's layers, and how many parameters each has."""

import pandas as pd
import torch
from torch import nn

from dlapps.checks import check_counts

_KINDS = {
    nn.Conv2d: "convolution",
    nn.Linear: "fully connected",
    nn.BatchNorm2d: "batch norm",
    nn.MaxPool2d: "max pooling",
    nn.AdaptiveAvgPool2d: "average pooling",
}


def count_parameters(c_in: int, c_out: int, k: int = 1) -> int:
    """Return how many weights and biases lead from c_in to c_out channels or units.

        P = (k² c_in + 1) c_out

    for a convolution whose kernels have k x k pixels; a fully connected layer has k = 1. All are
    whole numbers of at least 1.
    """
    check_counts(c_in=c_in, c_out=c_out, k=k)
    return (k**2 * c_in + 1) * c_out


def parameter_table(network: nn.Module, input_size: int = 224) -> pd.DataFrame:
    """Return a DataFrame of the layers of `network`, in the order in which an image passes them.

    Columns: `layer` (its name in the module), `kind`, `output` (the shape for one RGB image of
    `input_size` pixels, without the batch), `parameters`, `share` (of all parameters, in [0, 1]).
    Layers without parameters, pooling excepted, are left out. Only shapes are computed, on
    PyTorch's meta device: `network` may have any weights, or none.
    """
    rows, handles = [], []

    def add(name, module, output):
        parameters = sum(p.numel() for p in module.parameters())
        kind = next((kind for type_, kind in _KINDS.items() if isinstance(module, type_)), None)
        if parameters or kind:
            row = {"layer": name, "kind": kind or type(module).__name__}
            rows.append(row | {"output": tuple(output.shape[1:]), "parameters": parameters})

    for name, module in _layers(network):
        handles.append(
            module.register_forward_hook(lambda m, _, output, name=name: add(name, m, output))
        )
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, input_size, input_size, device="meta")
            state = {key: value.to("meta") for key, value in network.state_dict().items()}
            torch.func.functional_call(network, state, image)
    finally:
        for handle in handles:
            handle.remove()
    table = pd.DataFrame(rows)
    return table.assign(share=table["parameters"] / table["parameters"].sum())


def _layers(module, name=""):
    """Yield the name and module of all that computes: with its own parameters, or no children."""
    if next(module.parameters(recurse=False), None) is not None or not any(module.children()):
        yield name, module
    else:
        for key, child in module.named_children():
            yield from _layers(child, f"{name}.{key}" if name else key)
