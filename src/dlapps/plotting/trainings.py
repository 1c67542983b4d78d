"""A GAN's training on one page."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dlapps.plotting import style
from dlapps.plotting.curves import draw_curves
from dlapps.plotting.images import mosaic, show_image


def training_sheet(snapshots: dict, panels: dict, title: str, columns: int = 10) -> Figure:
    """Draw {name: images (N, C, H, W)} as mosaics in a row, and curves below them.

    panels: {(panel title, y label): {label: (x, y)}}, x being the iteration.
    """
    pictures = {name: mosaic(images, columns) for name, images in snapshots.items()}
    rows, width = next(iter(pictures.values())).shape[-2:]
    heights = style.WIDTH / len(pictures) * rows / width + 0.3, 1.8
    figure = plt.figure(figsize=(style.WIDTH, sum(heights) + 0.5))
    above, below = figure.subfigures(2, height_ratios=heights)
    for ax, (name, picture) in zip(
        above.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True
    ):
        show_image(ax, picture, name)
    for ax, ((name, y_label), series) in zip(
        below.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        draw_curves(ax, series, "iteration", y_label, name, legend=False)
        # Below: in a panel as small there is no place that is free in every training.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=len(series))
    figure.suptitle(title)
    return figure
