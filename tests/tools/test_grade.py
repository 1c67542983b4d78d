"""Grading: by hand-made records, and of a tiny notebook that the real runner executes."""

import json
import math
import os
import re
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dlapps import files, runtime
from dlapps.artifacts import CLAIM
from tools import grade

SHARE = {"unit": "share of the test images", "data": "MNIST test set", "model": "m", "seed": 0}
HERE = {"Python": "3.12.1", "torch": "2.9.0", "GPU": None, "processor": "A", "threads": 2}


def record(**values):
    return {key: {**SHARE, "value": value} for key, value in values.items()}


def verdicts(expected, obtained, exact=False):
    return {line.key: line.verdict for line in grade.compare(expected, obtained, exact)}


@pytest.mark.parametrize(
    ("unit", "data", "expected", "spread", "near", "far"),
    [
        ("share of the test images", "MNIST test set", 0.9, 0.01, 0.919, 0.921),
        ("share of the test images", "MNIST test set", 0.9, 0.0, 0.904, 0.906),
        ("accuracy", "7 photographs of scikit-image", 5 / 7, 0.0, 4 / 7, 3 / 7),
        ("share", "25 ImageNet validation images", 0.48, 0.0, 0.6, 0.68),
        ("share of 6 classes", None, 1.0, 0.0, 0.86, 0.83),
        ("nats", "MNIST training set", -2.0, 0.1, -2.19, -2.21),
        ("nats", "MNIST training set", -2.0, 0.0, -2.01, -2.03),
        ("Euclidean norm", "MNIST test set", 1.0, None, 0.91, 0.89),
        ("parameters", None, 1000, 5.0, 1000, 1001),
        ("images", "MNIST test set", 10_000, 0.0, 10_000, 9_999),
        (CLAIM, None, 1, 1.0, 1, 0),
    ],
)
def test_elsewhere_the_measured_spread_decides(unit, data, expected, spread, near, far):
    about = {"unit": unit, "data": data, "model": None, "seed": None}
    entry = {**about, "value": expected} | ({} if spread is None else {"spread": spread})
    for value, verdict in ((expected, "agrees"), (near, "agrees"), (far, "DIFFERS")):
        found = verdicts({"key": entry}, {"key": {**about, "value": value}})
        assert found == {"key": verdict}


def test_what_varies_by_itself_is_not_compared_but_on_the_same_machine():
    expected = {"key": {**SHARE, "unit": "distance", "value": 100.0, "spread": 60.0}}
    other = {"key": {**SHARE, "unit": "distance", "value": 900.0}}
    assert verdicts(expected, other) == {"key": "not compared"}
    assert verdicts(expected, other, exact=True) == {"key": "DIFFERS"}
    assert verdicts(expected, {"key": {**other["key"], "value": None}}) == {"key": "NOT A NUMBER"}


def test_the_spread_is_the_largest_difference_of_any_repetition():
    expected = record(one=0.5, many=[0.1, 0.2], none=None, gone=0.3)
    repetitions = [
        record(one=0.53, many=[0.1, 0.25], none=None, gone=None),
        record(one=0.49, many=[0.05, 0.2], none=None),
    ]
    found = grade.spreads(expected, repetitions)
    assert found["one"]["spread"] == pytest.approx(0.03)
    assert found["many"]["spread"] == pytest.approx([0.05, 0.05])
    assert found["none"]["spread"] == 0
    assert found["gone"]["spread"] > 1e300
    json.dumps(found, allow_nan=False)
    assert [entry["value"] for entry in found.values()] == [0.5, [0.1, 0.2], None, 0.3]


def test_on_the_same_machine_the_last_bit_counts():
    above = math.nextafter(0.9, 1)
    assert verdicts(record(key=0.9), record(key=above)) == {"key": "agrees"}
    assert verdicts(record(key=0.9), record(key=above), exact=True) == {"key": "DIFFERS"}
    assert verdicts(record(key=0.9), record(key=0.9), exact=True) == {"key": "agrees"}


@pytest.mark.parametrize("unit", ["seconds", "images/s", "ratio of times", "seconds a step"])
def test_timings_are_shown_and_never_compared(unit):
    slow, fast = ({"key": {**SHARE, "unit": unit, "value": value}} for value in (1.0, 100.0))
    for exact in (True, False):
        assert verdicts(slow, fast, exact) == {"key": "not compared"}
    gone = {"key": {**SHARE, "unit": unit, "value": None}}
    assert verdicts(slow, gone) == {"key": "NOT A NUMBER"}


def test_what_is_missing_extra_or_no_number():
    expected = record(
        missing=0.1, no_number=0.1, nan=0.1, unavailable=None, now_there=None, gone=None
    )
    obtained = record(no_number=None, nan=math.nan, unavailable=None, now_there=0.1, new=0.1)
    assert verdicts(expected, obtained) == {
        "gone": "MISSING",
        "missing": "MISSING",
        "nan": "NOT A NUMBER",
        "new": "extra",
        "no_number": "NOT A NUMBER",
        "now_there": "extra",
        "unavailable": "agrees",
    }


def test_numbers_of_a_list_are_compared_one_by_one():
    found = verdicts(record(key=[0.1, 0.2, 0.3]), record(key=[0.1, 0.9]))
    assert found == {"key[0]": "agrees", "key[1]": "DIFFERS", "key[2]": "MISSING"}


def test_an_equal_number_of_something_else_is_no_agreement():
    other = {"key": {**SHARE, "data": "another test set", "value": 0.9}}
    assert verdicts(record(key=0.9), other) == {"key": "OTHER QUANTITY"}


def executed(*cells):
    """Return a notebook of Markdown (texts) and code cells (lists of what they displayed)."""
    return new_notebook(
        cells=[
            new_markdown_cell(cell)
            if isinstance(cell, str)
            else new_code_cell(
                "answer(...)",
                outputs=[new_output("display_data", {"text/markdown": text}) for text in cell],
            )
            for cell in cells
        ]
    )


def test_questions_without_an_answer_are_found():
    notebook = executed(
        "# Title",
        "### Question 1 ★ Displayed?\n\nTheory.",
        ["**Answer.** Yes."],
        "### Question 2 · Nothing but theory\n\nTheory.",
        [],
        "### Question 3 · Empty answer",
        ["**Answer.** "],
        "### Question 4 · Written\n\nTheory.\n\n**Answer.** Yes.",
        "### Question 5 · Later\n\nTheory.",
        "### Questions 5, 6 and 7 · In numbers",
        ["**Answer.** - 5. Yes."],
        "### Question 10 · Last",
    )
    assert grade.unanswered(notebook) == [
        "Question 2 · Nothing but theory",
        "Question 3 · Empty answer",
        "Question 10 · Last",
    ]


NOTEBOOK = """
import matplotlib.pyplot as plt
from dlapps.artifacts import Artifacts
from dlapps.display import answer
results = Artifacts("1_tiny")
about = {"unit": "share", "data": "toy", "model": None, "seed": 0}
results.record({"one": 0.5}, **about)
results.record({"two": [0.25, 0.75]}, **about)
from dlapps import runtime, training, steps
import torch
folder = runtime.checkpoints_root()
results.record({"checkpoints": len([*folder.glob("*")])}, **about)
def weight(value):
    network = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, value)
    state = training.State({"network": network}, {})
    plan = training.Plan(1, ("loss",), {"learning_rate": lambda t: 0.1})
    step = lambda at: {"loss": network.weight.sum()}
    training.run(step, state, plan, checkpoint=folder / "own.pt")
    return network.weight.item()
results.record({"weight": runtime.run_each(weight, [0.5, 0.5], "weights")[0]}, **about)
figure, axes = plt.subplots()
results.save_figure(figure, "line")
answer("Half.")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one notebook with one question; return its folder."""
    monkeypatch.setattr(runtime, "project_root", lambda: tmp_path)
    # Also so that the setting is as it was after the test.
    monkeypatch.setenv("DLAPPS_FIGURES", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (tmp_path / "notebooks").mkdir()
    cells = [new_markdown_cell("### Question 1 · How much?"), new_code_cell(NOTEBOOK)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "1_tiny.ipynb")
    return tmp_path


def test_a_run_is_recorded_then_agrees_and_what_changes_is_found(project, capsys):
    run = ["--profile", "quick"]
    assert grade.main(run) == 1
    assert "no expected numbers. If this run is right, record it: make expected" in out(capsys)

    assert grade.main([*run, "--record"]) == 0
    assert f"Repetition {len(grade.REPETITIONS)} of" in out(capsys)
    file = project / "figures" / "expected" / "quick" / "1_tiny.json"
    content = json.loads(file.read_text("utf-8"))
    assert content["figures"] == ["1_line.svg"]
    assert content["versions"] == runtime.versions()
    assert content["numbers"]["two"]["value"] == [0.25, 0.75]
    assert content["numbers"]["two"]["spread"] == [0, 0]
    moved = content["numbers"]["weight"]["spread"]
    assert 0 < moved < 1e-5, "a weight is perturbed, here and in another process"

    assert grade.main(run) == 0
    text = out(capsys)
    assert "must be the same to the bit" in text
    assert "5 agrees\n" in text and "missing: none" in text and "answer: none" in text
    assert "1 of 1 notebooks agree" in text
    committed = [path.name for path in (project / "figures").rglob("*") if path.is_file()]
    assert committed == ["1_tiny.json"], "a grading run writes to build/ only"
    assert not (project / "elsewhere").exists()

    content["versions"]["processor"] = "another"
    content["numbers"]["one"] |= {"value": 0.515, "spread": 0.01}
    content["figures"] += ["1_gone.svg"]
    files.write_json(file, content)
    assert grade.main(run) == 1
    text = out(capsys)
    assert "processor another, here " in text
    assert "must lie within their spread" in text
    assert re.search(r"agrees +one +0\.515 +0\.5  ± 0\.02\n", text)
    assert "missing: 1_gone.svg" in text and "0 of 1 notebooks agree" in text


def test_a_finished_training_is_not_read_when_graded(project, capsys):
    for _ in range(2):
        grade.main(["--profile", "quick"])
        record = json.loads((project / "build/grade/figures/quick/1_tiny.json").read_text("utf-8"))
        assert record["checkpoints"]["value"] == 0


def test_a_notebook_that_fails_does_not_agree_and_is_not_recorded(project, capsys):
    path = project / "notebooks" / "1_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "1 / 0"
    nbformat.write(notebook, path)
    assert grade.main(["--profile", "quick"]) == 1
    assert grade.main(["--profile", "quick", "--record"]) == 1
    assert "Nothing is recorded: 1_tiny failed" in out(capsys)
    assert not (project / "figures").exists()


def test_the_committed_figures_are_what_full_is_compared_with(project, capsys):
    folder = project / "figures" / "full"
    files.write_json(folder / "1_tiny.json", record(one=0.5))
    (folder / "1_line.svg").touch()
    expected = grade.read_expected("full", "1_tiny")
    assert (expected.numbers, expected.versions) == (record(one=0.5), {})
    assert expected.figures == ["1_line.svg"]
    with pytest.raises(SystemExit, match="2"):
        grade.main(["--profile", "full", "--record"])
    assert "make notebooks PROFILE=full" in capsys.readouterr().err


def out(capsys):
    return capsys.readouterr().out


@pytest.mark.parametrize("missing", sorted(HERE))
def test_numbers_are_exact_only_where_everything_is_the_same(missing, capsys):
    above = math.nextafter(0.9, 1)
    results = {
        "here": grade.Results(record(key=above), HERE, []),
        "same": grade.Results(record(key=0.9), HERE, []),
        "other": grade.Results(record(key=0.9), {**HERE, missing: "other"}, []),
    }
    assert not grade.grade("1_tiny", results["same"], results["here"], [])
    assert grade.grade("1_tiny", results["other"], results["here"], [])
    assert f"{missing} other, here {HERE[missing]}" in out(capsys)
    assert not grade.grade("1_tiny", results["other"], results["here"], ["Question 3"])
    assert grade.grade("1_tiny", grade.Results(record(key=0.9), {}, []), results["here"], [])
    assert "not recorded what the expected numbers were made with" in out(capsys)
    gpu = {**HERE, "GPU": "T4"}
    results = (grade.Results(record(key=value), gpu, []) for value in (0.9, above))
    assert grade.grade("1_tiny", *results, []), "on a GPU not even the same versions are exact"
