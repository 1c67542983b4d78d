"""Where figures and numbers go: figures/<profile>/, one PNG a figure, one JSON file a notebook.

Beside the numbers, in <notebook>.versions.json, lies what they were made with.
"""

import math
import re
import statistics
from numbers import Integral, Real

import numpy as np
from PIL import Image

from dlapps import runtime
from dlapps.files import atomic_path, write_json


class Artifacts:
    """The figures and numbers of one notebook, such as "1_transfer_learning".

    The first number that is saved replaces the file of an earlier run, so that the file never
    mixes two runs.
    """

    def __init__(self, notebook):
        if not re.fullmatch(r"\d+_\w+", notebook):
            raise ValueError(f"notebook is {notebook!r}, expected a name such as '1_transfer'")
        self.notebook = notebook
        self.folder = runtime.figures_root() / runtime.profile()
        self._metrics = {}

    def save_figure(self, figure, name):
        """Write a Matplotlib figure to <folder>/<notebook's number>_<name>.png; return the path."""
        path = self.folder / f"{self.notebook.split('_')[0]}_{_snake_case('name', name)}.png"
        with atomic_path(path) as temporary:
            # Without the version of Matplotlib in it, equal figures are equal files.
            figure.savefig(temporary, metadata={"Software": None})
        return path

    def save_animation(self, frames, name, milliseconds=120):
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
        path = self.folder / f"{self.notebook.split('_')[0]}_{_snake_case('name', name)}.gif"
        durations = [milliseconds] * len(others) + [10 * milliseconds]
        with atomic_path(path) as temporary:
            first.save(
                temporary, save_all=True, append_images=others, duration=durations, loop=0,
                optimize=True,
            )  # fmt: skip
        return path

    def save_metric(self, key, value, *, unit, data, model, seed):
        """Add one number, or one list of numbers over seeds, to <folder>/<notebook>.json.

        `value` None says that the number could not be had (weights unavailable, for instance).
        A list of seeds asks for one number each, and their mean and sample deviation are added.
        `data` and `model` name the data set and the network, or are None where there is none.
        Raises ValueError for a key that is not snake_case and TypeError or ValueError for a value
        that is not a finite number.
        """
        many = isinstance(value, list | tuple)
        numbers = [_number(key, v) for v in value] if many else _number(key, value)
        entry = {"value": numbers, "unit": unit, "data": data, "model": model, "seed": seed}
        if isinstance(seed, list):
            if not many or len(numbers) != len(seed):
                raise ValueError(
                    f"value of {key} is {value!r}, expected a number for each of {len(seed)} seeds"
                )
            entry["mean"] = statistics.fmean(numbers)
            entry["std"] = statistics.stdev(numbers) if len(numbers) > 1 else None
        key = _snake_case("key", key)
        if not self._metrics:
            write_json(self.folder / f"{self.notebook}.versions.json", runtime.versions())
        self._metrics[key] = entry
        write_json(self.folder / f"{self.notebook}.json", self._metrics)


def _snake_case(argument, text):
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", text):
        raise ValueError(f"{argument} is {text!r}, expected snake_case")
    return text


def _number(key, value):
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"value of {key} is {value!r}, expected a number")
    if not math.isfinite(value):
        raise ValueError(f"value of {key} is {value}, expected a finite number")
    return int(value) if isinstance(value, Integral) else float(value)
