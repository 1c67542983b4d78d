"""The exercises that end the notebooks: one changed line each, with the effect that it names."""

import ast
import io
import json
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tools import execute

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["1_transfer_learning", "2_visualization", "3_domain_adaptation", "4_gans"]
TITLE = "## Try it yourself\n"
CHANGE = re.compile(r"^```diff\n-(?P<old>.+)\n\+(?P<new>.+)\n```$", re.MULTILINE)
EFFECT = re.compile(r"`(\w+)` (falls|rises|stays)(?: (below|above) (\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Exercise:
    """A line to replace by another one, and what that does to numbers that the notebook saves.

    effects: (key, "falls", "rises" or "stays", "below", "above" or "", the bound or "") each.
    """

    notebook: str
    number: int
    old: str
    new: str
    effects: tuple

    def __str__(self):
        return f"{self.notebook}-{self.number}"


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def exercises(name):
    """Return the exercises of a notebook, all that follow its title "Try it yourself"."""
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    found = []
    for number, part in enumerate(text.partition(TITLE)[2].split("**Exercise ")[1:], start=1):
        change = CHANGE.search(part) or {"old": "", "new": ""}
        effects = tuple(EFFECT.findall(part.replace("\n", " ")))
        found.append(Exercise(name, number, change["old"], change["new"], effects))
    return found


EXERCISES = [exercise for name in NAMES for exercise in exercises(name)]

each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=str)


def change(notebook, exercise):
    """Make the change of an exercise in a notebook, as a student would."""
    for cell in code_cells(notebook):
        lines = cell.source.split("\n")
        cell.source = "\n".join(exercise.new if line == exercise.old else line for line in lines)


def key_patterns(name):
    """Return patterns of what a notebook's code may save: its strings and f-strings as slugs."""
    source = "\n".join(cell.source for cell in code_cells(read(name)))
    tree = ast.parse(TransformerManager().transform_cell(source))
    slugs = {
        node: re.sub("[^a-z0-9]+", "_", node.value.lower())
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    words = "|".join({slug.strip("_") for slug in slugs.values()})
    patterns = set(slugs.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            patterns.add("".join(slugs.get(part, f"(?:{words})") for part in node.values))
    return patterns


@pytest.mark.parametrize("name", NAMES)
def test_notebook_ends_with_three(name):
    markdown = [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]
    last = [source for source in markdown if re.search("^#", source, re.MULTILINE)][-1]
    assert last.startswith(TITLE)
    assert last.count("**Exercise ") == len(exercises(name)) == 3


@each_exercise
def test_replaces_a_line_that_occurs_once(exercise):
    cells = code_cells(read(exercise.notebook))
    lines = [line for cell in cells for line in cell.source.split("\n")]
    assert exercise.old and lines.count(exercise.old) == 1
    assert exercise.new != exercise.old


@each_exercise
def test_changed_notebook_is_python(exercise):
    notebook = read(exercise.notebook)
    change(notebook, exercise)
    for cell in code_cells(notebook):
        ast.parse(TransformerManager().transform_cell(cell.source))


@each_exercise
def test_names_numbers_that_the_notebook_saves(exercise):
    patterns = key_patterns(exercise.notebook)
    assert exercise.effects
    for key, verb, side, _ in exercise.effects:
        assert any(re.fullmatch(pattern, key) for pattern in patterns), key
        assert side or verb != "stays", f"{key} stays, but not where"


def run(folder, notebook, name):
    """Execute a notebook in a copy of the repository; return {key: number}, means over seeds."""
    path = folder / "notebooks" / f"{name}.ipynb"
    nbformat.write(notebook, path)
    with pytest.MonkeyPatch.context() as patch:
        for setting in ("DLAPPS_DATA", "DLAPPS_WEIGHTS", "DLAPPS_FIGURES"):
            patch.delenv(setting, raising=False)
        patch.setenv("PYTHONPATH", str(folder / "src"))  # so that workers import the copy as well
        execute.execute(path, folder / "build", execute.Options("quick"), io.StringIO())
    numbers = json.loads((folder / "figures" / "quick" / f"{name}.json").read_text("utf-8"))
    return {key: entry.get("mean", entry["value"]) for key, entry in numbers.items()}


@pytest.fixture(scope="session")
def unchanged(tmp_path_factory):
    """Return a function that runs a notebook in a copy of the repository, once for all its tests.

    It returns the copy's folder and {key: number}.
    """

    @cache
    def run_unchanged(name):
        folder = tmp_path_factory.mktemp(name) / "repository"
        shutil.copytree(ROOT / "src", folder / "src")
        (folder / "notebooks").mkdir()
        for file in ("pyproject.toml", "requirements.txt"):
            shutil.copy(ROOT / file, folder)
        return folder, run(folder, read(name), name)

    return run_unchanged


@pytest.mark.slow
@each_exercise
def test_has_the_effect_that_it_names(exercise, unchanged, tmp_path):
    folder, before = unchanged(exercise.notebook)
    # With its checkpoints and features: a student has run the notebook before, too.
    shutil.copytree(folder, tmp_path / "repository")
    notebook = read(exercise.notebook)
    change(notebook, exercise)
    after = run(tmp_path / "repository", notebook, exercise.notebook)
    print({key: (before[key], after[key]) for key, *_ in exercise.effects})
    for key, verb, side, bound in exercise.effects:
        assert verb != "falls" or after[key] < before[key], key
        assert verb != "rises" or after[key] > before[key], key
        assert side != "below" or after[key] < float(bound), key
        assert side != "above" or after[key] > float(bound), key
