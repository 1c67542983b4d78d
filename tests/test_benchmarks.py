"""What all benchmarks share: calls in turns, ratios of calls that follow each other, the page."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import compare

    yield compare
    del sys.modules["compare"]


def test_calls_take_turns(compare, monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(compare, "synchronised_clock", lambda: now[0])
    durations = {"ours": iter([1, 2, 4]), "theirs": iter([3, 8, 8])}

    def take(who):
        calls.append(who)
        now[0] += next(durations[who])

    ratios, times = compare.alternate(lambda: take("ours"), lambda: take("theirs"), rounds=3)
    assert calls == ["ours", "theirs"] * 3
    assert times == [(1, 3), (2, 8), (4, 8)]
    assert ratios == [3, 4, 2]


def test_a_row_has_the_median_ratio_and_its_range(compare, monkeypatch):
    monkeypatch.setattr(
        compare, "alternate", lambda *_: ([3, 4, 2], [(1.0, 3.0), (2.0, 8.0), (4.0, 8.0)])
    )
    row = compare.compare("work", "a peer", None, None, agreement="equal", target=2.5)
    assert (row["ratio"], row["lowest"], row["highest"], row["seconds"]) == (3, 2, 4, 2)
    line = compare.table([row]).splitlines()[-1]
    assert line == "| work | a peer | **3.00** | 2.00 to 4.00 | ≥ 2.5 | 2.00 | equal |"


def test_apart_is_a_share_of_the_largest_value(compare):
    one = torch.tensor([1.0, -4.0])
    assert compare.apart(one, one) == 0
    assert compare.apart(torch.tensor([1.0, -3.0]), one) == 0.25


@pytest.mark.parametrize("name", [path.stem for path in sorted(BENCHMARKS.glob("*.py"))])
def test_is_python_that_names_what_it_does(name):
    source = (BENCHMARKS / f"{name}.py").read_text("utf-8")
    code = compile(source, name, "exec")
    assert code.co_consts[0].rstrip(".")
