"""Practical 2, what a few images can tell: means, shares and differences with their intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap

from dlapps.visualization.saliency_measures import MEASURES, MODES

UNITS = dict.fromkeys(MODES, "area under the curve, mean") | {
    "ROAD": "difference of probabilities, mean"
}


def mean_interval(values, confidence=0.95, seed=0) -> tuple[float, float, float]:
    """Return the mean of values (N,) and the ends of its bootstrap interval (percentiles)."""
    return _interval(np.mean, values, confidence, seed)


def median_interval(values, seed=0) -> tuple[float, float, float]:
    """Return the median of values (N,) and the ends of its bootstrap interval (95 %)."""
    return _interval(np.median, values, 0.95, seed)


def _interval(statistic, values, confidence, seed):
    values = np.asarray(values, dtype=float)
    if np.ptp(values) == 0:  # also of one value: there is nothing to draw anew
        return (float(values[0]),) * 3
    found = bootstrap(
        (values,), statistic, confidence_level=confidence, method="percentile", rng=seed
    ).confidence_interval
    return float(statistic(values)), float(found.low), float(found.high)


def share_interval(hits, confidence=0.95) -> tuple[float, float, float]:
    """Return the share of `hits` (N,) that are true, and the ends of Wilson's score interval."""
    hits = np.asarray(hits, dtype=bool)
    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(confidence, "wilson")
    return float(hits.mean()), float(found.low), float(found.high)


def said(found: Sequence[float], form=".2f") -> str:
    """Return a number and the ends of its interval (3 numbers) as a text: "0.28 (0.21 to 0.35)"."""
    value, low, high = (f"{number:{form}}" for number in found)
    return f"{value} ({low} to {high})"


def comparison(values: dict, seed=0) -> pd.DataFrame:
    """Return a table of what `saliency_measures.judge` measured, a row for each method.

    For each measure the mean over the images and its bootstrap interval (95 %), and the share of
    the images for which the method is better than the random map, with Wilson's interval (95 %).
    """
    rows = {method: {"map": method} for method in values["insertion"]}
    for measure, found in values.items():
        for method, scores in found.items():
            mean, *interval = mean_interval(scores, seed=seed)
            rows[method] |= {measure: mean, f"{measure}, 95 %": interval}
            better = _gain(measure, scores, found["random"]) > 0
            share, *ends = (None, None) if method == "random" else share_interval(better)
            column = f"{measure} beats random"
            rows[method] |= {column: share, f"{column}, 95 %": ends if share is not None else None}
    return pd.DataFrame(rows.values())


def advantages(values: dict, pairs: Sequence[tuple], seed=0) -> pd.DataFrame:
    """Return how much better the first method of each pair is than the second, image by image.

    values: what `saliency_measures.judge` measured; a row for each measure and pair: the mean over
    the images of the paired difference, above 0 where the first is better (also for "deletion"),
    its bootstrap interval (95 %), and a verdict: "better" or "worse" where that excludes 0, else
    "undecided".
    """
    rows = []
    for measure, found in values.items():
        for first, second in pairs:
            gain = _gain(measure, found[first], found[second])
            mean, low, high = mean_interval(gain, seed=seed)
            verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
            rows.append(
                {
                    "measure": measure,
                    "first": first,
                    "second": second,
                    "difference": mean,
                    "95 %": [low, high],
                    "verdict": verdict,
                }
            )
    return pd.DataFrame(rows)


def _gain(measure, scores, others):
    return others - scores if measure == "deletion" else scores - others


def measured(table: pd.DataFrame, ending="") -> dict[str, dict]:
    """Return "numbers" and "unit" for `Artifacts.record` of a table of `comparison`.

    Keys are such as "insertion auc <method>", "ROAD <method>" and "insertion beats random
    <method>", each also with "interval", and end as asked for.
    """
    found, unit = {}, {}
    for row in table.to_dict("records"):
        for measure in MEASURES:
            kinds = {measure: (f"{measure} auc" if measure in MODES else measure, UNITS[measure])}
            if row["map"] != "random":
                beats = f"{measure} beats random"
                kinds[beats] = beats, "share of the images"
            for column, (name, of) in kinds.items():
                key = f"{name} {row['map']}"
                found[key + ending], unit[key + ending] = row[column], of
                found[f"{key} interval{ending}"] = row[f"{column}, 95 %"]
                unit[f"{key} interval{ending}"] = f"{of}, 95 % interval"
    return {"numbers": found, "unit": unit}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `comparison` whose numbers are texts, each with its interval."""
    texts = {"map": table["map"]}
    for measure in MEASURES:
        for column in (measure, f"{measure} beats random"):
            form = "{:.0%} ({:.0%} – {:.0%})" if "beats" in column else "{:.3f} ({:.3f} – {:.3f})"
            texts[column] = [
                "" if ends is None else form.format(value, *ends)
                for value, ends in zip(table[column], table[f"{column}, 95 %"], strict=True)
            ]
    return pd.DataFrame(texts)


def bars(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return how far the interval of a column reaches below and above its numbers, (2, rows)."""
    low, high = np.array(table[f"{column}, 95 %"].tolist()).T
    return np.clip([table[column] - low, high - table[column]], 0, None)
