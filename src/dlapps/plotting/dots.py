"""Figures of one number, or a few, for each of many things."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlapps.plotting import style

MARKERS = "osD^vP"
LOG_ERROR_TICKS = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)


def dots(labels, series: dict, x_label: str, title: str, errors=None, log_error=False) -> Figure:
    """Draw a row for each label with a dot for each of {series name: one number per label}.

    A NaN draws no dot. errors: {series name: one number per label}, drawn as a line to both sides.
    log_error: whether the numbers are accuracies of which those near 1 matter: the axis is then
    logarithmic in the distance from 1.
    """
    rows = np.arange(len(labels))
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.27 * len(labels) + 1.4))
    shifts = np.linspace(-0.22, 0.22, len(series)) if len(series) > 1 else [0]
    for number, (name, values) in enumerate(series.items()):
        axes.errorbar(
            np.asarray(values, dtype=float),
            rows + shifts[number],
            xerr=None if errors is None else errors[name],
            label=name,
            color=style.COLOURS[number % len(style.COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            linestyle="none",
        )
    if log_error:
        log_error_axis(axes)
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(series), 4))
    figure.suptitle(title)
    return figure


def log_error_axis(axes: Axes, which: str = "x") -> None:
    """Scale an axis ("x" or "y"), of shares below 1, by the logarithm of the distance from 1."""
    least = 1e-4  # of the distances: what is nearer to 1 is drawn there

    def forward(x):
        return -np.log10(np.maximum(1 - x, least))

    largest, smallest = (1 - bound for bound in getattr(axes.dataLim, f"interval{which}"))
    low, high = 1 - 1.15 * largest, 1 - max(smallest / 1.15, least)
    ticks = [tick for tick in LOG_ERROR_TICKS if low <= tick <= high]
    scale, limit, set_ticks = (
        getattr(axes, f"set_{which}{what}") for what in ("scale", "lim", "ticks")
    )
    scale("function", functions=(forward, lambda y: 1 - 10.0**-y))
    limit(low, high)
    set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def scatters(panels: dict, y: dict, y_label: str, title: str) -> Figure:
    """Draw a point for each run of each label, in a panel for each quantity that lies along x.

    panels: {x label: {label: a number per run}}; y: {label: a share below 1 per run}, on an axis
    that is logarithmic in the distance from 1. A label looks the same in all panels.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(style.WIDTH, 3.6), sharey=True, squeeze=False
    )
    for ax, (x_label, x) in zip(axes.flat, panels.items(), strict=True):
        for number, label in enumerate(y):
            ax.plot(
                x[label],
                y[label],
                linestyle="none",
                label=label,
                color=style.COLOURS[number % len(style.COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=6,
                alpha=0.8,
            )
        ax.set_xlabel(x_label)
    log_error_axis(axes[0, 0], "y")
    axes[0, 0].set_ylabel(y_label)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(len(y), 8))
    figure.suptitle(title)
    return figure


def spreads(labels, samples, fixed, names, x_label: str, title: str) -> Figure:
    """Draw a row for each label: its `samples` (P, N) as small marks, `fixed` (N,) as one line.

    names: what the legend calls the samples and the fixed value.
    """
    samples, rows = np.asarray(samples), np.arange(len(labels))
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.5 * len(labels) + 1.4))
    axes.plot(
        samples.T,
        np.broadcast_to(rows[:, None], samples.T.shape),
        "o",
        color=style.VERMILION,
        markersize=7,
        alpha=0.35,
        markeredgewidth=0,
        label=[names[0]] + ["_"] * (len(samples) - 1),
    )
    axes.plot(fixed, rows, "|", color=style.BLUE, markersize=20, markeredgewidth=3, label=names[1])
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)
    axes.set_xlim(-0.02, 1.02)
    figure.legend(loc="outside lower center", ncols=2)
    figure.suptitle(title)
    return figure
