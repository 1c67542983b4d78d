"""Figures and numbers land where the report looks for them."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from dlapps import runtime
from dlapps.artifacts import Artifacts


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "project_root", lambda: tmp_path)
    monkeypatch.setenv("DLAPPS_PROFILE", "quick")
    return Artifacts("1_transfer_learning")


def about():
    return {"unit": "share", "data": "toy", "model": "none", "seed": 0}


def test_numbers_are_written_as_one_flat_object(results, tmp_path):
    results.save_metric("accuracy", np.float32(0.5), **about())
    results.save_metric("rows", np.int64(1500), unit="images", data="toy", model=None, seed=None)
    results.save_metric("over_seeds", [0.1, 0.2], **about())
    results.save_metric("unavailable", None, **about())
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert written == {
        "accuracy": {"value": 0.5, **about()},
        "rows": {"value": 1500, "unit": "images", "data": "toy", "model": None, "seed": None},
        "over_seeds": {"value": [0.1, 0.2], **about()},
        "unavailable": {"value": None, **about()},
    }


def test_numbers_over_seeds_come_with_their_mean_and_deviation(results, tmp_path):
    results.save_metric("over_seeds", [0.1, 0.2, 0.6], **about() | {"seed": [0, 1, 2]})
    results.save_metric("one", [0.1], **about() | {"seed": [0]})
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert written["over_seeds"]["mean"] == pytest.approx(0.3)
    assert written["over_seeds"]["std"] == pytest.approx(np.sqrt(0.07))
    assert (written["one"]["mean"], written["one"]["std"]) == (0.1, None)
    for value in (0.1, [0.1]):
        with pytest.raises(ValueError, match="a number for each of 2 seeds"):
            results.save_metric("over_seeds", value, **about() | {"seed": [0, 1]})


def test_beside_the_numbers_lies_what_made_them(results, tmp_path):
    results.save_metric("one", 1, **about())
    folder = tmp_path / "figures" / "quick"
    versions = json.loads((folder / "1_transfer_learning.versions.json").read_text())
    assert versions == runtime.versions()


def test_a_new_run_does_not_mix_with_the_numbers_of_the_last(results, tmp_path):
    results.save_metric("old", 1, **about())
    Artifacts("1_transfer_learning").save_metric("new", 2, **about())
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert list(written) == ["new"]


@pytest.mark.parametrize("value", ["0.5", True, object(), [0.5, "x"]])
def test_what_is_no_number_is_refused_by_name(results, value):
    with pytest.raises(TypeError, match="accuracy"):
        results.save_metric("accuracy", value, **about())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")]])
def test_what_is_not_finite_is_refused(results, value, tmp_path):
    with pytest.raises(ValueError, match="finite"):
        results.save_metric("accuracy", value, **about())
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("key", ["Accuracy", "top-5", "a b", "", "_a", "../a"])
def test_keys_and_names_are_snake_case(results, key):
    with pytest.raises(ValueError, match="snake_case"):
        results.save_metric(key, 1, **about())
    with pytest.raises(ValueError, match="snake_case"):
        results.save_figure(plt.figure(), key)


def test_notebooks_are_named_with_their_number():
    with pytest.raises(ValueError, match="notebook is 'transfer'"):
        Artifacts("transfer")


def test_equal_figures_are_equal_files(results, tmp_path):
    contents = []
    for _ in range(2):
        figure, axes = plt.subplots()
        axes.plot([0, 1], [1, 0])
        path = results.save_figure(figure, "line")
        plt.close(figure)
        contents.append(path.read_bytes())
    assert path == tmp_path / "figures/quick/1_line.png"
    assert contents[0] == contents[1]
    assert contents[0].startswith(b"\x89PNG")


def test_an_animation_holds_its_frames_and_repeats(results):
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    frames = np.broadcast_to(colours[:, :, None, None], (3, 3, 6, 8))
    path = results.save_animation(frames, "colours", milliseconds=50)
    assert path.name == "1_colours.gif"
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (3, (8, 6), 0)
        for number, colour in enumerate(colours):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB"))
            assert (shown == 255 * colour).all()
            assert gif.info["duration"] == (500 if number == 2 else 50)
    with pytest.raises(ValueError, match=r"frames has shape \(3, 6, 8\), expected \(T, 3, H, W\)"):
        results.save_animation(frames[0], "colours")
    with pytest.raises(ValueError, match="name is 'No!', expected snake_case"):
        results.save_animation(frames, "No!")
    assert [p.name for p in path.parent.iterdir()] == [path.name]
