"""Figures made of lines."""

import matplotlib.pyplot as plt
import numpy as np

from dlapps.plotting import style


def draw_curves(axes, series, x_label, y_label, title=None):
    """Draw {label: (x, y)} with a colour and a line style each, labelled axes and a legend."""
    for number, (label, (x, y)) in enumerate(series.items()):
        axes.plot(
            x,
            y,
            label=label,
            color=style.COLOURS[number % len(style.COLOURS)],
            linestyle=style.LINE_STYLES[number % len(style.LINE_STYLES)],
        )
    axes.set(xlabel=x_label, ylabel=y_label)
    if title:
        axes.set_title(title)
    if len(series) > 1:
        axes.legend()


def curves(series, x_label, y_label, title, x_scale="linear"):
    """Draw {label: (x, y)} as one figure; x and y are sequences of the same length."""
    figure, axes = plt.subplots(figsize=(style.WIDTH, 3.6))
    draw_curves(axes, series, x_label, y_label)
    axes.set_xscale(x_scale)
    figure.suptitle(title)
    return figure


def curve_panels(panels, x_label, title, x_scale="linear"):
    """Draw {(panel title, y label): {label: (x, y)}} side by side, over the same x axis."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(style.WIDTH, 3.4), sharex=True, squeeze=False
    )
    for ax, ((name, y_label), series) in zip(axes.flat, panels.items(), strict=True):
        draw_curves(ax, series, x_label, y_label, name)
        ax.set_xscale(x_scale)
    figure.suptitle(title)
    return figure


def running_mean(values, window):
    """Return (x, means): the mean of each `window` successive values, at the last one's number.

    A window longer than the series is cut to it.
    """
    if window < 1 or not len(values):
        raise ValueError(f"window is {window} and values has {len(values)}, expected both >= 1")
    window = min(window, len(values))
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    return np.arange(window, len(values) + 1), means
