"""Figures of confusion matrices."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dlapps.plotting import style


def confusion_matrix(counts, classes, title: str) -> Figure:
    """Draw counts (K, K): a row per true class, a column per predicted one, of K class names.

    The colour is the share of the true class's images; the numbers are counts, zeros left out.
    """
    counts = np.asarray(counts)
    values = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    texts = [[count or "" for count in row] for row in counts.tolist()]
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.92 * style.WIDTH))
    _draw(figure, axes, values, texts, classes, classes, "share of the true class's images")
    plt.setp(axes.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted class", ylabel="true class")
    figure.suptitle(title)
    return figure


def shares(
    values, rows, columns, row_label: str, column_label: str, value_label: str, title: str
) -> Figure:
    """Draw shares (R, C) in [0, 1] as a matrix with names for its rows and columns."""
    values = np.asarray(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values has shape {values.shape}, expected {(len(rows), len(columns))} as named"
        )
    texts = [[f"{value:.0%}" for value in row] for row in values]
    size = style.WIDTH, 2.0 + 0.55 * len(rows)
    figure, axes = plt.subplots(figsize=size)
    names = style.wrapped(columns, 0.5 * style.WIDTH / len(columns))  # rows and bar take the rest
    _draw(figure, axes, values, texts, rows, names, value_label)
    axes.set(xlabel=column_label, ylabel=row_label, aspect="auto")
    figure.suptitle(title)
    return figure


def _draw(figure, axes, values, texts, rows, columns, value_label):
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.5 else "black"
        text = texts[row][column]
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, label=value_label)
    bar.outline.set_visible(False)
