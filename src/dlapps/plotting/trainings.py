"""GANs' trainings: one on a page, and many beside each other."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dlapps.plotting import style
from dlapps.plotting.curves import draw_curves, running_mean
from dlapps.plotting.dots import dots
from dlapps.plotting.images import mosaic, show_image


def training_sheet(
    snapshots: dict, panels: dict, title: str, *, window: int = 1, columns: int = 10
) -> Figure:
    """Draw {name: images (N, C, H, W)} as mosaics in a row, and curves below them.

    panels: {(panel title, y label): {label: a list of numbers, one per iteration, for each run}}.
    Curves are means over `window` iterations, that of the first run in full colour, others faint.
    """
    gap = max(2, next(iter(snapshots.values())).shape[-1] // 16)  # of large images, too, to be seen
    pictures = {name: mosaic(images, columns, gap) for name, images in snapshots.items()}
    rows, width = next(iter(pictures.values())).shape[-2:]
    heights = style.WIDTH / len(pictures) * rows / width + 0.3, 1.8
    figure = plt.figure(figsize=(style.WIDTH, sum(heights) + 0.5))
    above, below = figure.subfigures(2, height_ratios=heights)
    for ax, (name, picture) in zip(
        above.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True
    ):
        show_image(ax, picture, name)
    # With room for the y labels, which would touch the panel before.
    axes = below.subplots(1, len(panels), squeeze=False, gridspec_kw={"wspace": 0.15})[0]
    for ax, ((name, y_label), series) in zip(axes, panels.items(), strict=True):
        first = {label: running_mean(runs[0], window) for label, runs in series.items()}
        draw_curves(ax, first, "iteration", y_label, name, legend=False)
        for colour, (_, *others) in zip(style.COLOURS, series.values(), strict=False):
            for run in others:
                ax.plot(*running_mean(run, window), color=colour, alpha=0.3, lw=0.7, zorder=1)
        # Below: in a panel as small there is no place that is free in every training.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42), ncols=len(series))
    figure.suptitle(title)
    return figure


def merits(
    labels, series: dict, x_label: str, title: str, *, errors: dict, real: dict, scale="linear"
) -> Figure:
    """Draw `dots` with `errors`, and a vertical line where real images are.

    real: {a series' name: the value of real images}; scale: of the x axis, such as "log".
    """
    figure = dots(labels, series, x_label, title, errors)
    axes = figure.axes[0]
    axes.set_xscale(scale)
    lines = {name: real[name] for name in series if name in real}
    for colour, name in zip(style.COLOURS, series, strict=False):
        if name in lines:
            axes.axvline(lines[name], color=colour, linestyle="--", linewidth=1)
    if lines:
        at, above = next(iter(lines.values())), axes.get_xaxis_transform()
        axes.text(at, 1, "real images", transform=above, ha="center", va="bottom", size="small")
    return figure
