"""Figures of one number, or a few, for each of many things."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dlapps.plotting import style

MARKERS = "osD^vP"


def dots(labels, series: dict, x_label: str, title: str, errors=None) -> Figure:
    """Draw a row for each label with a dot for each of {series name: one number per label}.

    A NaN draws no dot. errors: {series name: one number per label}, drawn as a line to both sides.
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
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x_label)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(series), 4))
    figure.suptitle(title)
    return figure


def spreads(labels, samples, fixed, names, x_label: str, title: str) -> Figure:
    """Draw a row for each label: its `samples` (P, N) as small marks, `fixed` (N,) as one line.

    names: what the legend calls the samples and the fixed value.
    """
    samples, rows = np.asarray(samples), np.arange(len(labels))
    figure, axes = plt.subplots(figsize=(style.WIDTH, 0.4 * len(labels) + 1.4))
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
