"""Figures made of images."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlapps.plotting import style


def to_array(image) -> np.ndarray:
    """Return an image (C, H, W) or (H, W), uint8 or float in [0, 1], as imshow wants it."""
    image = np.asarray(image)
    if image.ndim == 3:
        image = image.transpose(1, 2, 0)
        image = image[..., 0] if image.shape[-1] == 1 else image
    return image


def show_image(axes: Axes, image, title: str | None = None, **options) -> None:
    """Draw one image without axes; grey images in grey, over the full range of their type."""
    array = to_array(image)
    if array.ndim == 2:
        top = 255 if array.dtype == np.uint8 else 1
        options = {"cmap": "gray", "vmin": 0, "vmax": top} | options
    axes.imshow(array, **options)
    axes.set_axis_off()
    if title is not None:
        axes.set_title(title)


def image_grid(images, titles=None, columns: int = 8, title: str | None = None) -> Figure:
    """Draw images (N, C, H, W), uint8 or float in [0, 1], in rows of `columns`."""
    if not len(images):
        raise ValueError("images is empty, expected at least one")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles has {len(titles)} entries for {len(images)} images")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    cell = style.WIDTH / columns
    extra = 0.0 if titles is None else 0.25
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(style.WIDTH, rows * (cell + extra) + (0.4 if title else 0)),
        squeeze=False,
    )
    for index, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if index < len(images):
            show_image(ax, images[index], None if titles is None else titles[index])
    if title:
        figure.suptitle(title)
    return figure


def mosaic(images, columns: int, gap: int = 2) -> np.ndarray:
    """Join images (N, C, H, W), uint8 or float in [0, 1], into one (C, H', W'), white between."""
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or columns < 1:
        raise ValueError(
            f"images has shape {images.shape} and columns is {columns}, "
            "expected (N, C, H, W) with N at least 1, and at least one column"
        )
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    white = 255 if images.dtype == np.uint8 else 1
    shape = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    joined = np.full(shape, white, images.dtype)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        joined[:, top : top + height, left : left + width] = image
    return joined


def mosaics(panels: dict, columns: int, title: str, panel_columns: int = 2) -> Figure:
    """Draw {panel title: images (N, C, H, W)}, each as a mosaic with `columns` images per row."""
    joined = {name: mosaic(images, columns) for name, images in panels.items()}
    panel_columns = min(panel_columns, len(joined))
    rows = math.ceil(len(joined) / panel_columns)
    height = max(image.shape[1] / image.shape[2] for image in joined.values())
    figure, axes = plt.subplots(
        rows,
        panel_columns,
        figsize=(style.WIDTH, rows * (height * style.WIDTH / panel_columns + 0.3) + 0.4),
        squeeze=False,
    )
    for ax in axes.flat[len(joined) :]:
        ax.set_axis_off()
    for ax, (name, image) in zip(axes.flat, joined.items(), strict=False):
        show_image(ax, image, name)
    figure.suptitle(title)
    return figure


def labelled_mosaic(
    images, row_labels, column_labels, title: str, x_label=None, y_label=None
) -> Figure:
    """Draw images (rows * columns, C, H, W), row by row, with a label for each row and column."""
    columns, gap = len(column_labels), 2
    if len(images) != len(row_labels) * columns:
        raise ValueError(
            f"images has {len(images)} rows, expected {len(row_labels)} x {columns} of them"
        )
    array = mosaic(images, columns, gap)
    height, width = np.asarray(images).shape[-2:]
    size = style.WIDTH * 0.75
    size = size, size * array.shape[1] / array.shape[2] + 0.8
    figure, axes = plt.subplots(figsize=size, layout="compressed")
    show_image(axes, array)
    axes.set_axis_on()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(columns) * (width + gap) + width / 2, column_labels)
    axes.set_yticks(np.arange(len(row_labels)) * (height + gap) + height / 2, row_labels)
    axes.set(xlabel=x_label, ylabel=y_label)
    figure.suptitle(title)
    return figure


def image_table(rows, row_titles, column_titles, title: str) -> Figure:
    """Draw images rows[i][j], (C, H, W), with titles beside the rows and above the columns."""
    figure, axes = image_axes(len(row_titles), len(column_titles), -0.05, title)
    for row, row_images, row_title in zip(axes, rows, row_titles, strict=True):
        for ax, image in zip(row, row_images, strict=True):
            show_image(ax, image)
        title_row(row[0], row_title)
    titles = style.wrapped(column_titles, style.WIDTH / len(column_titles))
    for ax, text in zip(axes[0], titles, strict=True):
        ax.set_title(text, fontsize="small")
    return figure


def image_axes(rows: int, columns: int, gap: float, title: str) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns) for square images, `gap` inches above each."""
    cell = (style.WIDTH - 0.4) / columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(style.WIDTH, rows * (cell + gap) + 0.7), squeeze=False
    )
    figure.suptitle(title)
    return figure, axes


def title_row(axes: Axes, text: str) -> None:
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
        fontsize="small",
    )
