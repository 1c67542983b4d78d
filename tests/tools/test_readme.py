"""The README's results are those of figures/full, and its pictures are there."""

import json
import re
import sys
from pathlib import Path

import pytest

from tools import readme

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")
ABOUT = {"unit": "share", "data": "data", "model": "network", "seed": 0}


def test_results_and_pictures_are_up_to_date():
    assert readme.render(TEXT, ROOT) == TEXT, "README.md is not what `make readme` writes"


def test_every_picture_and_file_that_it_names_is_there():
    targets = re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', TEXT)
    local = [target for pair in targets for target in pair if target and "://" not in target]
    assert sum(target.endswith((".png", ".svg", ".gif")) for target in local) >= 6
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_the_badges_are_those_of_the_setting():
    setting = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["dlapps"]
    place = setting["repository"].removeprefix("https://github.com/")
    place = f"https://colab.research.google.com/github/{place}/blob/{setting['revision']}/"
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    found = re.findall(r"\((https://colab\.research\.google\.com/github/[^)]+)\)", TEXT)
    assert found == [f"{place}notebooks/{name}" for name in notebooks]


def test_the_committed_figures_take_at_most_20_megabytes():
    drawings = [path for path in (ROOT / "figures" / "full").iterdir() if path.suffix != ".png"]
    assert sum(path.stat().st_size for path in drawings) <= 20e6


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (None, "not run"),
        ({"value": None}, "not available"),
        ({"value": 0.95008}, "0.950"),
        ({"value": 12.345}, "12.3"),
        ({"value": 138357544}, "138,357,544"),
        ({"value": [0.1, 0.2, 0.6], "mean": 0.3, "std": 0.2646}, "0.300 ± 0.265"),
        ({"value": [0.9, 0.9004, 0.9], "mean": 0.90013, "std": 0.00023}, "0.9001 ± 0.0002"),
        ({"value": [0.9, 0.9], "mean": 0.9, "std": 0.0}, "0.900 ± 0.000"),
        ({"value": [0.1], "mean": 0.1, "std": None}, "0.100"),
    ],
)
def test_a_number_is_shown_with_its_deviation_or_as_not_run(entry, shown):
    assert readme.cell(entry) == shown


@pytest.fixture
def project(tmp_path):
    """A README with marks, one number and one picture; return the folder."""
    folder = tmp_path / "figures" / "full"
    folder.mkdir(parents=True)
    key = {"scene_accuracy_best": {"value": 0.95, **ABOUT}}
    (folder / "1_transfer_learning.json").write_text(json.dumps(key), "utf-8")
    (folder / "2_fooling.svg").touch()
    return tmp_path


MARKED = f"Before\n{readme.BEGIN}\nold {readme.END}\nafter"


def test_only_what_stands_between_the_marks_is_replaced(project):
    text = readme.render(MARKED, project)
    assert text.startswith(f"Before\n{readme.BEGIN}\n") and text.endswith(f"{readme.END}\nafter")
    assert "old" not in text
    (row,) = (line for line in text.splitlines() if "`scene_accuracy_best`" in line)
    assert "| 0.950 | data; network |" in row
    assert text.count("not run") == len(readme.ROWS) - 1
    assert text.count("<img") == 1 and 'src="figures/full/2_fooling.svg"' in text
    assert "Not run: `1_confusion_best.png`" in text
    assert readme.render(text, project) == text


def test_another_number_or_a_lost_picture_changes_the_text(project):
    text = readme.render(MARKED, project)
    file = project / "figures" / "full" / "1_transfer_learning.json"
    file.write_text(file.read_text("utf-8").replace("0.95", "0.94"), "utf-8")
    assert readme.render(text, project) != text
    text = readme.render(text, project)
    (project / "figures" / "full" / "2_fooling.svg").unlink()
    assert readme.render(text, project) != text


@pytest.mark.parametrize("text", ["", readme.BEGIN, f"{readme.END} {readme.BEGIN}"])
def test_a_text_without_the_marks_is_refused(project, text):
    with pytest.raises(ValueError, match="lacks the marks"):
        readme.render(text, project)
