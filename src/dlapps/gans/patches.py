"""Square patches of photographs: many small images in colour where there are only large ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlapps.checks import check_counts
from dlapps.datasets.image_set import resize

AT_ONCE = 500  # patches that are cut before they are resized


def cut_patches(
    photographs: Sequence[Tensor], count: int, *, side: int = 96, size: int = 32, seed: int = 0
) -> Tensor:
    """Return `count` random patches of photographs, uint8 (count, C, size, size).

    photographs: uint8 (C, H, W) each. Every patch is a square of `side` pixels of one of them, each
    as often, at a random place, resized to `size`.
    Raises ValueError for no photographs and for one that is smaller than a patch.
    """
    check_counts(count=count, side=side, size=size)
    smallest = min((min(photograph.shape[1:]) for photograph in photographs), default=0)
    if smallest < side:
        raise ValueError(
            f"side is {side}, expected at most {smallest}, the shortest side of the "
            f"{len(photographs)} photographs"
        )
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 2, generator=generator)
    patches = []
    for number, place in enumerate(places):
        photograph = photographs[number % len(photographs)]
        room = torch.tensor(photograph.shape[1:]) - side + 1
        top, left = (place * room).long().tolist()
        patches.append(photograph[:, top : top + side, left : left + side])
    parts = (patches[i : i + AT_ONCE] for i in range(0, count, AT_ONCE))
    return torch.cat([resize(torch.stack(part), size) for part in parts])
