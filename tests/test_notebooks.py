"""The four notebooks: how they are committed, and that each runs from top to bottom."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

from tools import execute, grade

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["1_transfer_learning", "2_visualization", "3_domain_adaptation", "4_gans"]
SETTING = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["dlapps"]

each_notebook = pytest.mark.parametrize("name", NAMES)


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def test_there_are_four():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


@each_notebook
def test_is_valid_and_committed_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@each_notebook
def test_begins_with_title_durations_and_badge(name):
    cells = read(name).cells
    first_code = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    opening = "\n".join(cell.source for cell in cells[:first_code])
    assert opening.startswith("# ")
    assert re.search(r"\d+\s*(s|seconds?|min|minutes?|h|hours?)\b", opening)
    assert "runtime.start(" in cells[first_code].source, "the set-up cell is the first code cell"
    badge = SETTING["repository"].replace("https://github.com", "/github")
    badge = f"colab.research.google.com{badge}/blob/{SETTING['revision']}/notebooks/{name}.ipynb"
    assert badge in opening


@each_notebook
def test_has_no_absolute_path(name):
    absolute = re.compile(r"(?<![\w:/.])/(home|root|Users|tmp|mnt|usr|work|content)\b|\b[A-Z]:\\")
    for cell in read(name).cells:
        assert not absolute.search(cell.source)


@pytest.mark.notebooks
@each_notebook
def test_runs_in_the_quick_profile(name, tmp_path, monkeypatch, capsys):
    for setting in ("DLAPPS_PROFILE", "DLAPPS_DATA", "DLAPPS_WEIGHTS", "DLAPPS_FIGURES"):
        monkeypatch.delenv(setting, raising=False)
    figures = ROOT / "figures" / "quick"
    before = {path: path.stat().st_mtime_ns for path in figures.glob(f"{name[0]}_*")}

    arguments = ["--profile", "quick", "--notebook", name, "--output", str(tmp_path)]
    assert execute.main(arguments) == 0, capsys.readouterr().out

    written = {
        path for path in figures.glob(f"{name[0]}_*") if path.stat().st_mtime_ns != before.get(path)
    }
    assert any(path.suffix == ".png" for path in written)
    assert figures / f"{name}.json" in written
    check_numbers(json.loads((figures / f"{name}.json").read_text("utf-8")))

    executed = nbformat.read(tmp_path / "quick" / f"{name}.ipynb", as_version=4)
    assert (tmp_path / "quick" / f"{name}.html").stat().st_size > 0
    assert not grade.unanswered(executed)
    for output in (output for cell in executed.cells for output in cell.get("outputs", [])):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", f"a warning: {output.text}"


def check_numbers(numbers):
    """Check the flat form that the report and the README read."""
    assert numbers
    for key, entry in numbers.items():
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", key)
        of_seeds = {"mean", "std"} if isinstance(entry["seed"], list) else set()
        assert set(entry) == {"value", "unit", "data", "model", "seed"} | of_seeds, key
        values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
        assert all(value is None or isinstance(value, int | float) for value in values), key
