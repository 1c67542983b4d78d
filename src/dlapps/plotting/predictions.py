"""Figures of what a classifier says of images."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dlapps.plotting import style
from dlapps.plotting.images import show_image


def predictions(
    images, inputs, names, probabilities, title: str, truths=None, captions=None
) -> Figure:
    """Draw one row per image: the original, the network's input and bars of its top classes.

    images: N images (C, H, W), uint8 or in [0, 1].
    inputs: N images (3, S, S) as the network gets them, in any range, which is written above.
    names: N lists of k class names; probabilities: (N, k) in [0, 1].
    truths: N names of the true classes, marked where they are among the k.
    captions: N texts above the originals, by default `truths`.
    """
    count = len(images)
    captions = captions or truths
    figure, axes = plt.subplots(
        count,
        3,
        figsize=(style.WIDTH, 1.6 * count + 0.7),
        width_ratios=(1.2, 1, 1.9),
        squeeze=False,
    )
    for row, (original, given, bars) in enumerate(axes):
        show_image(original, images[row], captions[row] if captions else None)
        array = np.asarray(inputs[row])
        low, high = array.min(), array.max()
        show_image(given, (array - low) / max(high - low, 1e-12), _range(low, high))
        _draw_bars(bars, names[row], probabilities[row], truths[row] if truths else None)
    marked = " (true class: orange)" if truths else ""
    headings = "original", "network input", f"probability{marked}"
    for ax, heading in zip(axes[0], headings, strict=True):
        ax.set_title(f"{heading}\n{ax.get_title()}" if ax.get_title() else heading)
    figure.suptitle(title)
    return figure


def _range(low, high):
    return f"{low:.1f} to {high:.1f}".replace("-", "\N{MINUS SIGN}")


def _draw_bars(axes, names, probabilities, truth):
    right = [name == truth for name in names]
    colours = [style.VERMILION if r else style.BLUE for r in right]
    bars = axes.barh(range(len(names)), probabilities, color=colours, height=0.7)
    axes.bar_label(
        bars,
        [f"{p:.0%}" if p >= 0.005 else "<1%" for p in probabilities],
        padding=3,
        fontsize="small",
    )
    axes.set_yticks(range(len(names)), names, fontsize="small")
    for label, r in zip(axes.get_yticklabels(), right, strict=True):
        label.set_fontweight("bold" if r else "normal")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.15), xticks=[])
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
