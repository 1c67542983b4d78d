"""Points in the plane, each drawn as the character that says its class."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dlapps.plotting import style


def planes(panels: dict, title: str) -> Figure:
    """Draw {panel title: {group: (points (N, 2), labels, one character per point)}} side by side.

    A group has one colour in all panels. Of different panels, neither axes nor positions can be
    compared, so the axes have no numbers.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.2), squeeze=False)
    for ax, (name, groups) in zip(axes.flat, panels.items(), strict=True):
        for number, (group, (points, labels)) in enumerate(groups.items()):
            colour = style.COLOURS[number % len(style.COLOURS)]
            for label in sorted(set(labels)):
                chosen = [other == label for other in labels]
                ax.scatter(
                    *points[chosen].T, s=34, marker=f"${label}$", color=colour, linewidth=0.4,
                    alpha=0.75,
                )  # fmt: skip
            ax.scatter([], [], s=34, marker="s", color=colour, label=group)
        ax.set(title=name, xticks=[], yticks=[])
        ax.grid(visible=False)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    figure.suptitle(title)
    return figure
