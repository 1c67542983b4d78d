"""One look for all figures: sizes, the Okabe-Ito colours, a sequential and a diverging map."""

from textwrap import fill

import matplotlib as mpl
from cycler import cycler

# Okabe and Ito's palette, told apart with any colour vision; yellow is too faint for lines.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
SEQUENTIAL = "viridis"
DIVERGING = "PuOr"

WIDTH = 7.0  # inches, of every figure: the text keeps one size in the report
FONT = "STIXGeneral"  # the report's, too; it comes with Matplotlib


def wrapped(texts, inches: float) -> list[str]:
    """Return texts with line breaks, so that each fits a width, about 13 letters per inch."""
    letters = max(6, int(13 * inches))
    return [
        "\n".join(fill(line, letters, break_long_words=False) for line in text.split("\n"))
        for text in texts
    ]


def apply() -> None:
    """Set Matplotlib's defaults."""
    mpl.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "svg.hashsalt": "dlapps",  # equal figures are equal files
            "font.family": [FONT, "DejaVu Sans"],  # the second for signs that the first lacks
            "mathtext.fontset": "stix",
            "font.size": 11,
            "axes.titlesize": 11,
            "figure.titlesize": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#DDDDDD",
            "axes.prop_cycle": cycler(color=COLOURS),
            "legend.frameon": False,
            "image.interpolation": "antialiased",
            "image.cmap": SEQUENTIAL,
        }
    )
