"""A GAN's training on one page."""

import matplotlib.pyplot as plt

from dlapps.plotting import style
from dlapps.plotting.curves import draw_curves
from dlapps.plotting.images import mosaic, show_image


def training_sheet(snapshots, panels, title, columns=10):
    """Draw {name: images (N, C, H, W)} as mosaics in a row, and curves below them.

    panels: {(panel title, y label): {label: (x, y)}}, x being the iteration.
    """
    heights = style.WIDTH / len(snapshots) + 0.2, 1.8
    figure = plt.figure(figsize=(style.WIDTH, sum(heights) + 0.6))
    above, below = figure.subfigures(2, height_ratios=heights)
    for ax, (name, images) in zip(
        above.subplots(1, len(snapshots), squeeze=False)[0], snapshots.items(), strict=True
    ):
        show_image(ax, mosaic(images, columns), name)
    for ax, ((name, y_label), series) in zip(
        below.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        draw_curves(ax, series, "iteration", y_label, name)
    figure.suptitle(title)
    return figure
