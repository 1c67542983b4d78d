"""Figures of fooled networks: what was changed in an image, and what it did."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dlapps.plotting import style
from dlapps.plotting.curves import draw_curves
from dlapps.plotting.images import image_axes, show_image


def fooled_images(
    originals, fooled, before, after, changes, title: str, magnifications=(1, 10, 100)
) -> Figure:
    """Draw one row per image: original, fooled, and their difference, more and more magnified.

    originals, fooled: (N, 3, H, W) in [0, 1]; before, after, changes: N texts each, what was
    predicted and how large the change is. A pixel's difference is that of its most changed channel.
    It is white at 0; a column's colours reach from -1 to 1 divided by its magnification.
    """
    originals, fooled = np.asarray(originals), np.asarray(fooled)
    differences = fooled - originals
    largest = np.abs(differences).argmax(1, keepdims=True)
    differences = np.take_along_axis(differences, largest, 1)[:, 0]

    figure, axes = image_axes(len(originals), 2 + len(magnifications), 0.32, title)
    for number, row in enumerate(axes):
        show_image(row[0], originals[number], before[number])
        show_image(row[1], fooled[number], after[number])
        for ax, times in zip(row[2:], magnifications, strict=True):
            show_image(ax, differences[number] * times, cmap=style.DIVERGING, vmin=-1, vmax=1)
            ax.set_title(f"× {times}\nscale ±{1 / times:g}")
        row[2].set_title(f"difference, scale ±1\n{changes[number]}")
        for ax in row:
            ax.title.set_fontsize("small")
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), style.DIVERGING),
        ax=axes,
        location="bottom",
        ticks=[-1, 0, 1],
        format=lambda value, _: {-1: "−scale", 0: "0", 1: "+scale"}[value],
        shrink=0.4,
        aspect=30,
        pad=0.01,
    )
    bar.set_label("difference of pixel values in [0, 1]", fontsize="small")
    bar.outline.set_visible(False)
    return figure


def confidences(panels: dict, title: str) -> Figure:
    """Draw {panel title: (T + 1, 2)}: the probabilities of the first class and of the target."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(style.WIDTH, 3), sharey=True, squeeze=False
    )
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=True):
        steps = np.arange(len(values))
        series = zip(("predicted at first", "target"), np.asarray(values).T, strict=True)
        draw_curves(ax, {label: (steps, curve) for label, curve in series}, "step", None, name)
        ax.get_legend().remove()
        ax.set_ylim(0, 1)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0, 0].set_ylabel("probability")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(title)
    return figure
