"""Figures that explain a prediction: images above maps of what matters in them."""

import numpy as np
from matplotlib.figure import Figure

from dlapps.plotting.images import image_axes, show_image, title_row

HEAT = "inferno"  # perceptually uniform, black where nothing matters


def saliency_maps(images, maps: dict, title: str, image_titles=None, map_titles=None) -> Figure:
    """Draw images (N, 3, H, W) above their maps, {row title: (N, H, W)}, values at least 0.

    Each map goes from black, 0, to light yellow, its own 99.5th percentile: single pixels would
    otherwise leave the rest dark. image_titles: N texts; map_titles: {row title: N texts}.
    """
    blank = [""] * len(images)
    figure, axes = image_axes(len(maps) + 1, len(images), 0.1, title)
    for ax, image, text in zip(axes[0], images, image_titles or blank, strict=True):
        show_image(ax, image)
        ax.set_title(text, fontsize="small")
    for row, (row_title, values) in zip(axes[1:], maps.items(), strict=True):
        texts = (map_titles or {}).get(row_title, blank)
        for ax, heat, text in zip(row, np.asarray(values), texts, strict=True):
            top = max(np.percentile(heat, 99.5), np.finfo(heat.dtype).tiny)
            show_image(ax, heat, cmap=HEAT, vmin=0, vmax=top)
            ax.set_title(text, fontsize="small")
        title_row(row[0], row_title)
    return figure
