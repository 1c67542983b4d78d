"""What all benchmarks share: calls in turns, ratios of calls that follow each other, the page."""

import importlib
import os
import sys
import types
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


@pytest.fixture
def turns(monkeypatch, tmp_path):
    """A benchmark, by its name, whose calls leave lines in `log`; theirs fail if `fail` exists."""
    (tmp_path / "turns.py").write_text(
        """
import os
from pathlib import Path
from compare import compare

HERE = Path(__file__).parent

def note(who):
    with (HERE / "log").open("a") as log:
        print(who, os.getpid(), file=log)

def theirs():
    note("theirs")
    if (HERE / "fail").exists():
        raise ValueError

def rows():
    return [compare("work", "a peer", lambda: note("ours"), theirs, agreement="equal", rounds=3)]
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("turns")
    del sys.modules["turns"]


def test_calls_take_turns_in_two_processes(compare, turns, tmp_path):
    with compare.peer_of("turns"):
        (row,) = turns.rows()
    assert 0 < row["lowest"] <= row["ratio"] <= row["highest"]
    calls = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [who for who, _ in calls] == ["ours", "theirs"] * 3
    assert {process for _, process in calls[::2]} == {str(os.getpid())}
    others = {process for _, process in calls[1::2]}
    assert len(others) == 1
    assert str(os.getpid()) not in others
    with pytest.raises(RuntimeError, match="call it within peer_of"):
        turns.rows()


def test_a_peer_that_fails_is_an_error_and_no_endless_wait(compare, turns, tmp_path):
    (tmp_path / "fail").touch()
    with pytest.raises(EOFError), compare.peer_of("turns"):
        turns.rows()


def test_a_row_has_the_median_ratio_and_its_range(compare, monkeypatch):
    now, theirs = [0.0], iter(["ready", 3.0, 8.0, 8.0])
    durations = iter([1.0, 2.0, 4.0])

    def ours():
        now[0] += next(durations)

    monkeypatch.setattr(compare, "synchronised_clock", lambda: now[0])
    other = types.SimpleNamespace(recv=lambda: next(theirs), send=lambda said: None)
    monkeypatch.setattr(compare, "_connection", other)
    row = compare.compare("work", "a peer", ours, None, agreement="equal", target=2.5, rounds=3)
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
