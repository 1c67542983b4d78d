"""Practical 2, ROAD: maps judged by images whose pixels are removed without leaving a hole."""

from functools import lru_cache

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import linalg
from torch import Tensor, nn

from dlapps import runtime
from dlapps.checks import check_images
from dlapps.models.gradients import check_labels, class_count
from dlapps.visualization.attacks import scores_of

SHARES = (0.2, 0.4, 0.6, 0.8)


def road(
    network: nn.Module, images: Tensor, labels: Tensor, maps: Tensor, shares=SHARES, noise=0.01,
    seed=0,
) -> np.ndarray:  # fmt: skip
    """Return how much more it costs to remove what a map calls important than the rest (N,).

        mean over shares a of p(without the a least important) - p(without the a most important),

    p the probability of an image's label and pixels removed by `impute`. About 0 is a map that
    orders the pixels in no useful way; 1 would be one whose first pixels carry all of the
    prediction and whose last ones carry nothing. Blurring or blackening pixels leaves the shape of
    what was removed to be seen, and a network may know a class by it; imputed pixels show no edge.

    images: float (N, 3, H, W) in [0, 1]; labels: integers (N,); maps: (N, H, W), larger where it
    matters more; equal values keep the order of the pixels; shares: of the pixels, within (0, 1).
    Raises TypeError or ValueError for others.

    Rong et al.: "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML
    2022, section 5 (removal of the most and of the least relevant first; noisy linear imputation).
    """
    check_images(images)
    labels = check_labels(labels, len(images), class_count(network, images)).tolist()
    maps = torch.as_tensor(maps).cpu()
    if maps.shape != (len(images), *images.shape[2:]) or not maps.isfinite().all():
        raise ValueError(
            f"maps has shape {tuple(maps.shape)}, expected "
            f"{(len(images), *images.shape[2:])}, finite"
        )
    for share in shares:
        if not 0 < share < 1:
            raise ValueError(f"shares holds {share}, expected numbers between 0 and 1")
    found = []
    for image, label, heat in runtime.progress(
        zip(images, labels, maps, strict=True), "ROAD", len(images)
    ):
        changed = torch.stack(list(_removals(image, heat, shares, noise, seed)))
        p = scores_of(network, changed).softmax(1)[:, label]
        least, most = p.view(len(shares), 2).mean(0).tolist()
        found.append(least - most)
    return np.array(found)


def _removals(image, heat, shares, noise, seed):
    """Yield an image without the least, then without the most important pixels, for each share."""
    order = heat.flatten().argsort(descending=True, stable=True)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on any device
    for share in shares:
        count = round(share * len(order))
        for removed in (order[len(order) - count :], order[:count]):
            missing = torch.zeros(len(order), dtype=torch.bool)
            missing[removed] = True
            yield impute(image, missing.view_as(heat), noise, generator)


def impute(image: Tensor, missing: Tensor, noise=0.01, generator=None) -> Tensor:
    """Return an image (3, H, W) in [0, 1] whose `missing` pixels, Booleans (H, W), are made up.

    A missing pixel is the weighted mean of its neighbours, 1/6 for each of the four beside it and
    1/12 for each of the four at its corners (at the border, of those that there are), plus Gaussian
    noise with standard deviation `noise`, clipped to [0, 1]. As neighbours may be missing too, that
    is a system of linear equations, solved exactly. Where no pixel is left, all are 1/2.
    Rong et al., ICML 2022, section 5.2 and appendix.
    """
    gone = missing.cpu().numpy().ravel()
    pixels = image.detach().cpu().flatten(1).double().numpy().T.copy()  # (H W, 3)
    if gone.all():
        pixels[:] = 0.5
    elif gone.any():
        rows = _laplacian(*missing.shape)[gone]
        known = rows[:, ~gone] @ pixels[~gone]
        solver = linalg.splu(
            rows[:, gone].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )  # fmt: skip
        pixels[gone] = solver.solve(-known)
    made_up = torch.from_numpy(pixels.T.copy()).view(image.shape)
    change = noise * torch.randn(image.shape, generator=generator) * missing.cpu()
    return (made_up + change).clamp(0, 1).to(image)


@lru_cache(maxsize=4)
def _laplacian(height, width):
    """Return D - W (H W, H W), W the weights of each pixel's neighbours and D their sums."""

    def along(size, step):
        return sparse.eye_array(size, k=step)

    near, far = 1 / 6, 1 / 12
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    weights = sum(
        (far if i and j else near) * sparse.kron(along(height, i), along(width, j))
        for i, j in steps
    )
    sums = np.asarray(weights.sum(1)).ravel()
    return (sparse.diags_array(sums) - weights).tocsr()
