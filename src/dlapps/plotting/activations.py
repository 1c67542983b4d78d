"""Figures of what the layers of a network compute."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dlapps.plotting import style
from dlapps.plotting.images import show_image


def activation_maps(images, maps, filters, title: str, labels, columns: int = 4) -> Figure:
    """Draw each filter of a first layer beside its maps of several images.

    images: N images (C, H, W). maps: (N, F, h, w). filters: (F, 3, k, k), each drawn in its own
    colours, grey being 0. labels: F texts. A map is drawn as its difference from its median, which
    is white, over its own range: orange is below, purple above. A constant map is white.
    """
    maps, filters = np.asarray(maps), np.asarray(filters)
    floor = 1e-3 * max(maps.std((2, 3)).max(), 1e-12)  # rounding errors are not to be magnified
    rows = math.ceil(len(filters) / columns)
    width = 1 + len(images)
    cell = style.WIDTH / (columns * (width + 0.3))
    figure = plt.figure(figsize=(style.WIDTH, rows * (cell + 0.2) + 2.2))
    top, below = figure.subfigures(2, 1, height_ratios=(1.5, rows * (cell + 0.2)))
    for number, (ax, image) in enumerate(zip(top.subplots(1, len(images)), images, strict=True)):
        show_image(ax, image, f"image {number + 1}")
    groups = [
        group.subplots(rows, width, squeeze=False)
        for group in below.subfigures(1, columns, squeeze=False).flat
    ]
    for index in range(rows * columns):
        axes = groups[index % columns][index // columns]
        for ax in axes:
            ax.set_axis_off()
        if index >= len(filters):
            continue
        scale = max(np.abs(filters[index]).max(), 1e-12)
        show_image(axes[0], 0.5 + filters[index] / (2 * scale))
        axes[0].set_title(labels[index], fontsize="small", pad=2, loc="left")
        for ax, image_maps in zip(axes[1:], maps, strict=True):
            change = image_maps[index] - np.median(image_maps[index])
            limit = max(np.quantile(np.abs(change), 0.99), floor)
            ax.imshow(change, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    figure.suptitle(title)
    return figure
