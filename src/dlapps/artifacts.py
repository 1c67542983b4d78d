"""Where figures and numbers go: figures/<profile>/, two files per figure, one per notebook.

A figure is a PNG, and an SVG without its title; the numbers are JSON. Beside them, in
<notebook>.versions.json, lies what they were made with.
"""

import math
import re
import statistics
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dlapps import runtime
from dlapps.files import atomic_path, write_json
from dlapps.plotting import vector

CLAIM = "claim: 1 if it holds, else 0"  # the unit of what `Artifacts.claim` records


class Artifacts:
    """The figures and numbers of one notebook, such as "1_transfer_learning".

    The first number that is saved replaces the file of an earlier run, so that the file never
    mixes two runs.
    """

    def __init__(self, notebook: str):
        if not re.fullmatch(r"\d+_\w+", notebook):
            raise ValueError(f"notebook is {notebook!r}, expected a name such as '1_transfer'")
        self.notebook = notebook
        self.folder = runtime.figures_root() / runtime.profile()
        self._metrics = {}

    def save_figure(self, figure: Figure, name: str) -> Path:
        """Write a Matplotlib figure to <folder>/<notebook's number>_<name>.png; return the path.

        Beside it, as .svg, lies the figure without its title, for pages whose captions say it.
        """
        path = self._path(name, ".png")
        with atomic_path(path) as temporary:
            # Without the version of Matplotlib in it, equal figures are equal files.
            figure.savefig(temporary, metadata={"Software": None})
        with atomic_path(path.with_suffix(".svg")) as temporary:
            temporary.write_text(vector.untitled_svg(figure), "utf-8")
        return path

    def save_animation(self, frames, name: str, milliseconds: int = 120) -> Path:
        """Write frames (T, 3, H, W) in [0, 1] to <folder>/<notebook's number>_<name>.gif.

        It repeats for ever; each frame is shown for `milliseconds`, the last one for ten times as
        long. Returns the path.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
            raise ValueError(
                f"frames has shape {frames.shape}, expected (T, 3, H, W), T at least 1"
            )
        pixels = (255 * frames.clip(0, 1)).round().astype(np.uint8).transpose(0, 2, 3, 1)
        first, *others = [Image.fromarray(frame) for frame in pixels]
        path = self._path(name, ".gif")
        durations = [milliseconds] * len(others) + [10 * milliseconds]
        with atomic_path(path) as temporary:
            first.save(
                temporary, save_all=True, append_images=others, duration=durations, loop=0,
                optimize=True,
            )  # fmt: skip
        return path

    def _path(self, name, suffix):
        return self.folder / f"{self.notebook.split('_')[0]}_{snake_case(name)}{suffix}"

    def record(self, numbers: dict, *, unit, data=None, model=None, seed=None) -> None:
        """Add numbers, {name: value}, to <folder>/<notebook>.json: all of them, or none.

        A name becomes a key in snake_case (see `snake_case`). A value is a number, a list of them,
        or None if it could not be had (weights unavailable, for instance). `seed` is a whole number
        or None; a list of seeds asks for a number each, or None for all, and their mean and sample
        standard deviation are added. `unit`, `data` and `model` say what is counted, of which data
        set and network, as one text (or None) for all or as {name: text}.
        Raises TypeError or ValueError for a value that is no finite number, for a seed that is no
        whole number, a unit, data or model that is no text, and for two names of one key.
        """
        added = {}
        for name, value in numbers.items():
            about = {"unit": unit, "data": data, "model": model}
            about = {k: _text(k, v[name] if isinstance(v, dict) else v) for k, v in about.items()}
            key = snake_case(name)
            if key in added:
                raise ValueError(f"numbers holds two names for {key}, {name!r} among them")
            added[key] = _entry(name, value, seed) | about
        if not self._metrics:
            write_json(self.folder / f"{self.notebook}.versions.json", runtime.versions())
        self._metrics |= added
        write_json(self.folder / f"{self.notebook}.json", self._metrics)

    def claim(self, claims: dict, *, data=None, model=None, seed=None) -> None:
        """Add claims, {what is claimed: whether it holds}, as numbers: 1 for what holds, else 0.

        For what can be said of numbers that rounding alone may change; see `record`. Raises
        TypeError for anything but a Boolean.
        """
        for name, holds in claims.items():
            if not isinstance(holds, bool | np.bool_):
                raise TypeError(f"claim {name!r} is {holds!r}, expected True or False")
        numbers = {name: int(holds) for name, holds in claims.items()}
        self.record(numbers, unit=CLAIM, data=data, model=model, seed=seed)


def snake_case(name: str) -> str:
    """Return a name as a key or part of a file's name: "β₁ = -0.5" becomes "beta1_minus_0_5".

    Raises ValueError for a name without letters and digits.
    """
    words = {"×": "times", "÷": "divided by", "β₁": "beta1", "β₂": "beta2", " -": " minus "}
    text = f" {name}".lower()
    for sign, word in words.items():
        text = text.replace(sign, word)
    key = re.sub("[^a-z0-9]+", "_", text).strip("_")
    if not key:
        raise ValueError(f"name is {name!r}, expected letters or digits")
    return key


def _entry(name, value, seed):
    many = isinstance(value, list | tuple)
    numbers = [_number(name, v) for v in value] if many else _number(name, value)
    if not isinstance(seed, list):
        return {"value": numbers, "seed": _seed(seed)}
    if numbers is not None and (not many or len(numbers) != len(seed)):
        raise ValueError(
            f"value of {name} is {value!r}, expected a number for each of {len(seed)} seeds"
        )
    there = many and None not in numbers
    return {
        "value": numbers,
        "seed": [_seed(one) for one in seed],
        "mean": statistics.fmean(numbers) if there else None,
        "std": statistics.stdev(numbers) if there and len(numbers) > 1 else None,
    }


def _seed(seed):
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise TypeError(f"seed is {seed!r}, expected a whole number, a list of them, or None")
    return seed if seed is None else int(seed)


def _text(name, text):
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}, expected a text or None")
    return text


def _number(name, value):
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"value of {name} is {value!r}, expected a number")
    if not math.isfinite(value):
        raise ValueError(f"value of {name} is {value}, expected a finite number")
    return int(value) if isinstance(value, Integral) else float(value)
