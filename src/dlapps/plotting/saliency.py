"""Figures that explain a prediction: images above maps of what matters in them."""

import matplotlib.pyplot as plt
import numpy as np

from dlapps.plotting import style
from dlapps.plotting.images import show_image

HEAT = "inferno"  # perceptually uniform, black where nothing matters


def saliency_maps(images, maps, title, image_titles=None, map_titles=None):
    """Draw images (N, 3, H, W) above their maps, {row title: (N, H, W)}, values at least 0.

    Each map goes from black, 0, to light yellow, its own 99.5th percentile: single pixels would
    otherwise leave the rest dark. image_titles: N texts; map_titles: {row title: N texts}.
    """
    blank = [""] * len(images)
    figure, axes = image_axes(len(maps) + 1, len(images), 0.1, title)
    for ax, image, text in zip(axes[0], images, image_titles or blank, strict=True):
        show_image(ax, image)
        ax.set_title(text, fontsize=8)
    for row, (row_title, values) in zip(axes[1:], maps.items(), strict=True):
        texts = (map_titles or {}).get(row_title, blank)
        for ax, heat, text in zip(row, np.asarray(values), texts, strict=True):
            top = max(np.percentile(heat, 99.5), np.finfo(heat.dtype).tiny)
            show_image(ax, heat, cmap=HEAT, vmin=0, vmax=top)
            ax.set_title(text, fontsize=8)
        title_row(row[0], row_title)
    return figure


def image_table(rows, row_titles, column_titles, title):
    """Draw images rows[i][j], (C, H, W), with titles beside the rows and above the columns."""
    figure, axes = image_axes(len(row_titles), len(column_titles), -0.05, title)
    for row, row_images, row_title in zip(axes, rows, row_titles, strict=True):
        for ax, image in zip(row, row_images, strict=True):
            show_image(ax, image)
        title_row(row[0], row_title)
    for ax, text in zip(axes[0], column_titles, strict=True):
        ax.set_title(text, fontsize=9)
    return figure


def image_axes(rows, columns, gap, title):
    """Return a figure and its axes (rows, columns) for square images, `gap` inches above each."""
    cell = (style.WIDTH - 0.4) / columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(style.WIDTH, rows * (cell + gap) + 0.7), squeeze=False
    )
    figure.suptitle(title)
    return figure, axes


def title_row(axes, text):
    """Write `text` upwards at the left of the first image of a row."""
    axes.text(
        -0.05,
        0.5,
        text,
        transform=axes.transAxes,
        rotation=90,
        ha="right",
        va="center",
        multialignment="center",
        fontsize=9,
    )
