"""Intervals beside their formulas, and the tables made of them."""

import numpy as np
import pytest

from dlapps.visualization import intervals
from dlapps.visualization.saliency_measures import MEASURES


def test_interval_of_the_mean_has_its_width():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    mean, low, high = intervals.mean_interval(values)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / 20  # the normal approximation
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.03)
    assert intervals.mean_interval(values) == (mean, low, high)


def test_interval_of_a_share_is_wilsons():
    share, low, high = intervals.share_interval([True] * 20 + [False] * 5)
    n, z = 25, 1.959964
    middle, half = (share + z**2 / 2 / n), z * np.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2)
    assert share == 0.8
    assert (low, high) == pytest.approx(
        [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)], rel=1e-5
    )
    assert intervals.share_interval([True] * 25)[1:] == pytest.approx((25 / (25 + z**2), 1))


def test_advantage_is_above_0_for_the_better_method():
    generator = np.random.default_rng(0)
    worse = generator.random(25)
    values = {
        "insertion": {"a": worse + 0.1, "b": worse},
        "deletion": {"a": worse - 0.1, "b": worse},
    }
    table = intervals.advantages(values, [("a", "b"), ("b", "a"), ("a", "a")])
    assert table["measure"].tolist() == ["insertion"] * 3 + ["deletion"] * 3
    assert table["difference"].tolist() == pytest.approx([0.1, -0.1, 0] * 2)
    assert table["verdict"].tolist() == ["better", "worse", "undecided"] * 2
    noise = {"insertion": {"a": generator.normal(size=25), "b": generator.normal(size=25)}}
    row = intervals.advantages(noise, [("a", "b")]).iloc[0]
    assert row["95 %"][0] < row["difference"] < row["95 %"][1]


def judged():
    generator = np.random.default_rng(0)
    random = generator.random(20)
    of_all = {"knows": random + 0.2, "random": random, "centre": random + 0.1}
    turned = {method: 1 - scores for method, scores in of_all.items()}
    return {measure: turned if measure == "deletion" else of_all for measure in MEASURES}


def test_a_comparison_has_an_interval_beside_each_number():
    values = judged()
    table = intervals.comparison(values)
    assert table["map"].tolist() == ["knows", "random", "centre"]
    for measure in MEASURES:
        for row in table.to_dict("records"):
            assert row[measure] == pytest.approx(values[measure][row["map"]].mean())
            assert row[f"{measure}, 95 %"][0] < row[measure] < row[f"{measure}, 95 %"][1]
        assert table[f"{measure} beats random"].tolist()[::2] == [1, 1]
        assert table[f"{measure} beats random, 95 %"][0] == pytest.approx((20 / 23.841459, 1))
        assert table[f"{measure} beats random, 95 %"][1] is None


def test_numbers_and_texts_of_a_comparison():
    table = intervals.comparison(judged())
    named = intervals.measured(table, " of it")
    # Three measures of three methods and three shares of two, each with its interval.
    assert list(named["numbers"]) == list(named["unit"]) and len(named["unit"]) == 2 * (9 + 6)
    best = table.iloc[0]
    assert named["numbers"]["insertion auc knows of it"] == best["insertion"]
    assert named["numbers"]["deletion auc knows interval of it"] == best["deletion, 95 %"]
    assert named["numbers"]["ROAD beats random knows of it"] == 1
    texts = intervals.readable(table)
    assert texts["ROAD beats random"].tolist()[:2] == ["100% (84% – 100%)", ""]
    low, high = best["ROAD, 95 %"]
    assert texts["ROAD"][0] == f"{best['ROAD']:.3f} ({low:.3f} – {high:.3f})"
    below, above = intervals.bars(table, "ROAD")
    assert (below[0], above[0]) == pytest.approx((best["ROAD"] - low, high - best["ROAD"]))


def test_a_number_is_said_with_its_interval():
    assert intervals.said((0.284, 0.21, 0.35)) == "0.28 (0.21 to 0.35)"
    assert intervals.said((-0.5, -1, 0), "+.1f") == "-0.5 (-1.0 to +0.0)"


def test_values_that_are_all_the_same_have_no_width():
    assert intervals.mean_interval([2.0, 2.0]) == (2, 2, 2) == intervals.mean_interval([2.0])
