"""The first convolution: what its filters respond to, and how it takes grey images."""

import copy

import torch
from torch import Tensor, nn

from dlapps.checks import check_image_form

PARTS = ("light", "pattern", "colour", "dead")


def contrasting_images(images: Tensor) -> list[int]:
    """Return the indices of three images: most colourful, least colourful, of finest texture.

    `images` is (N, 3, H, W). Colourfulness is the mean standard deviation over the channels;
    texture the mean difference of neighbouring columns.
    """
    colour = images.float().std(1).mean((1, 2))
    texture = images.float().mean(1).diff(dim=2).abs().mean((1, 2))
    chosen = [colour.argmax().item(), colour.argmin().item()]
    finest = texture.argsort(descending=True).tolist()
    return [*chosen, next(i for i in finest if i not in chosen)]


def filter_shares(w: Tensor, images: Tensor) -> Tensor:
    """Return how much of each filter's map comes from light, from a pattern and from a colour.

    A filter w (3, h, w) is the sum of three orthogonal parts: its mean (which responds to light),
    the rest of its mean over the channels (an edge or a texture, the same in each channel), and
    what differs between channels (a colour). `w` is (F, 3, h, w), `images` (N, 3, H, W). The result
    (F, 3) holds the variances of the parts' maps, divided by their sum; a filter of zeros has
    zeros.
    """
    w = w.to(images)
    light = w.mean((1, 2, 3), keepdim=True).expand_as(w)
    grey = w.mean(1, keepdim=True).expand_as(w)
    parts = (light, grey - light, w - grey)
    variances = [nn.functional.conv2d(images, part).var((0, 2, 3)) for part in parts]
    variances = torch.stack(variances, 1)
    return variances / variances.sum(1, keepdim=True).clamp_min(torch.finfo(images.dtype).tiny)


def largest_parts(shares: Tensor, maps: Tensor) -> Tensor:
    """Return the index in PARTS (F,) of what each filter mostly responds to.

    shares: (F, 3), see `filter_shares`. maps: (N, F, h, w); a filter whose maps hardly vary beside
    those of the others is dead.
    """
    spread = maps.std((0, 2, 3))
    dead = torch.tensor(PARTS.index("dead"))
    return shares.argmax(1).where(spread > 1e-3 * spread.max(), dead)


def grey_filters(w: Tensor, μ: Tensor, σ: Tensor) -> Tensor:
    """Return filters (F, 2, h, w) for (g, 1) that respond as w (F, 3, h, w) to grey images g.

        Σ_c w_c (g - μ_c) / σ_c  =  (Σ_c w_c / σ_c) g  -  (Σ_c w_c μ_c / σ_c) 1,

    with μ and σ the means and standard deviations of the three channels c, (1, 3, 1, 1). The second
    channel of the input is an image of ones: padded with zeros as g is, it keeps the borders right.
    """
    scaled = w / σ
    return torch.stack([scaled.sum(1), -(scaled * μ).sum(1)], 1)


class GreyNetwork(nn.Module):
    """A copy of a `PretrainedNetwork` that takes one channel: `grey_filters` in its first layer."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.body = copy.deepcopy(network.body)
        first = next(m for m in self.body.modules() if isinstance(m, nn.Conv2d))
        weight = grey_filters(first.weight.detach(), network.mean, network.std)
        first.weight = nn.Parameter(weight, requires_grad=first.weight.requires_grad)
        first.in_channels = 2

    def forward(self, grey: Tensor) -> Tensor:
        """Return the class scores (N, 1000) of grey images (N, 1, H, W) in [0, 1].

        Raises TypeError or ValueError for another type or shape, as a `PretrainedNetwork` does.
        """
        check_image_form(grey, channels=1, name="grey")
        grey = grey.to(next(self.body.parameters()).dtype)
        return self.body(torch.cat([grey, torch.ones_like(grey)], 1))
