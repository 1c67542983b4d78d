"""A GAN's training on one page."""

import matplotlib.pyplot as plt

from dlapps.plotting import style
from dlapps.plotting.curves import draw_curves
from dlapps.plotting.images import mosaic, show_image


def training_sheet(snapshots, panels, title, columns=8):
    """Draw {name: images (N, C, H, W)} as mosaics in a row, and curves below them.

    panels: {(panel title, y label): {label: (x, y)}}, x being the iteration, as many as mosaics or
    fewer.
    """
    width = len(snapshots)
    figure, axes = plt.subplots(
        2,
        width,
        figsize=(style.WIDTH, style.WIDTH / width + 2.4),
        height_ratios=[style.WIDTH / width, 1.8],
        squeeze=False,
    )
    for ax, (name, images) in zip(axes[0], snapshots.items(), strict=True):
        show_image(ax, mosaic(images[: columns * columns], columns), name)
    for ax in axes[1, len(panels) :]:
        ax.set_axis_off()
    for ax, ((name, y_label), series) in zip(axes[1], panels.items(), strict=False):
        draw_curves(ax, series, "iteration", y_label, name)
    figure.suptitle(title)
    return figure
