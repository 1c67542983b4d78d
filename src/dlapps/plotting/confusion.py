"""Figures of confusion matrices."""

import matplotlib.pyplot as plt
import numpy as np

from dlapps.plotting import style


def confusion_matrix(counts, classes, title):
    """Draw counts (K, K), a row a true class, a column a predicted one, for K class names.

    The colour is the share of the true class's images; the numbers are counts, zeros left out.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.92 * style.WIDTH))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class's images")
    bar.outline.set_visible(False)
    figure.suptitle(title)
    return figure
