"""Figures made of lines."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlapps.plotting import style


def draw_curves(axes: Axes, series: dict, x_label, y_label, title=None, legend=True) -> None:
    """Draw {label: (x, y)} with a colour and a line style each, labelled axes and a legend.

    y has one number for each of x, or one row of them per run: then the line is the mean of the
    runs, and a band reaches from the least to the largest.
    """
    for number, (label, (x, y)) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(y, float))
        colour = style.COLOURS[number % len(style.COLOURS)]
        axes.plot(
            x,
            runs.mean(0),
            label=label,
            color=colour,
            linestyle=style.LINE_STYLES[number % len(style.LINE_STYLES)],
        )
        if len(runs) > 1:
            axes.fill_between(x, runs.min(0), runs.max(0), color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel=x_label, ylabel=y_label)
    if title:
        axes.set_title(title)
    if legend and len(series) > 1:
        axes.legend()


def curves(series: dict, x_label: str, y_label: str, title: str, x_scale="linear") -> Figure:
    """Draw {label: (x, y)} as one figure; x and y are sequences of the same length."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 3.6))
    draw_curves(axes, series, x_label, y_label)
    axes.set_xscale(x_scale)
    figure.suptitle(title)
    return figure


def curve_panels(
    panels: dict, x_label: str, title: str, x_scale="linear", legend_columns=None
) -> Figure:
    """Draw {(panel title, y label): {label: (x, y)}} side by side, over the same x axis.

    legend_columns: if given, the panels have the same labels, said once below them in so many
    columns.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(style.WIDTH, 3.4), sharex=True, squeeze=False
    )
    for ax, ((name, y_label), series) in zip(axes.flat, panels.items(), strict=True):
        draw_curves(ax, series, x_label, y_label, name, legend=legend_columns is None)
        ax.set_xscale(x_scale)
    if legend_columns:
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=legend_columns)
    figure.suptitle(title)
    return figure


def running_mean(values, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, means): the mean of each `window` successive values, at the last one's number.

    A window longer than the series is cut to it.
    """
    if window < 1 or not len(values):
        raise ValueError(f"window is {window} and values has {len(values)}, expected both >= 1")
    window = min(window, len(values))
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    return np.arange(window, len(values) + 1), means
