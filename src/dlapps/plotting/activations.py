"""Figures of what the layers of a network compute."""

import math

import matplotlib.pyplot as plt
import numpy as np

from dlapps.plotting import style
from dlapps.plotting.images import show_image


def activation_maps(image, maps, title, labels=None, columns=8):
    """Draw an image (C, H, W) and beside it its maps (F, h, w), named by F labels.

    Each map is drawn as its difference from its median, which is white, over its own range: orange
    is below, purple above. A constant map is white.
    """
    maps = np.asarray(maps)
    floor = 1e-3 * max(maps.std((1, 2)).max(), 1e-12)  # rounding errors are not to be magnified
    rows = math.ceil(len(maps) / columns)
    cell = style.WIDTH / (columns + 2)
    extra = 0.0 if labels is None else 0.17
    height = rows * (cell + extra) + 0.5
    figure = plt.figure(figsize=(style.WIDTH, height))
    left, right = figure.subfigures(1, 2, width_ratios=(2, columns))
    ax = left.subplots()
    show_image(ax, image, "image")
    ax.set_anchor("N")
    for index, ax in enumerate(right.subplots(rows, columns, squeeze=False).flat):
        ax.set_axis_off()
        if index < len(maps):
            change = maps[index] - np.median(maps[index])
            limit = max(np.quantile(np.abs(change), 0.99), floor)
            ax.imshow(change, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
            if labels is not None:
                ax.set_title(labels[index], fontsize=8, pad=2)
    figure.suptitle(title)
    return figure
