"""Figures and numbers land where the report looks for them."""

import base64
import io
import json
import re

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
    results.record({"accuracy": np.float32(0.5)}, **about())
    results.record({"rows": np.int64(1500)}, unit="images", data="toy", model=None, seed=None)
    results.record({"over_seeds": [0.1, 0.2]}, **about())
    results.record({"unavailable": None}, **about())
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert written == {
        "accuracy": {"value": 0.5, **about()},
        "rows": {"value": 1500, "unit": "images", "data": "toy", "model": None, "seed": None},
        "over_seeds": {"value": [0.1, 0.2], **about()},
        "unavailable": {"value": None, **about()},
    }


def test_numbers_over_seeds_come_with_their_mean_and_deviation(results, tmp_path):
    results.record({"over_seeds": [0.1, 0.2, 0.6]}, **about() | {"seed": [0, 1, 2]})
    results.record({"one": [0.1]}, **about() | {"seed": [0]})
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert written["over_seeds"]["mean"] == pytest.approx(0.3)
    assert written["over_seeds"]["std"] == pytest.approx(np.sqrt(0.07))
    assert (written["one"]["mean"], written["one"]["std"]) == (0.1, None)
    for value in (0.1, [0.1]):
        with pytest.raises(ValueError, match="a number for each of 2 seeds"):
            results.record({"over_seeds": value}, **about() | {"seed": [0, 1]})


def test_beside_the_numbers_lies_what_made_them(results, tmp_path):
    results.record({"one": 1}, **about())
    folder = tmp_path / "figures" / "quick"
    versions = json.loads((folder / "1_transfer_learning.versions.json").read_text())
    assert versions == runtime.versions()


def test_a_new_run_does_not_mix_with_the_numbers_of_the_last(results, tmp_path):
    results.record({"old": 1}, **about())
    Artifacts("1_transfer_learning").record({"new": 2}, **about())
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert list(written) == ["new"]


@pytest.mark.parametrize("value", ["0.5", True, object(), [0.5, "x"]])
def test_what_is_no_number_is_refused_by_name(results, value):
    with pytest.raises(TypeError, match="accuracy"):
        results.record({"accuracy": value}, **about())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")]])
def test_what_is_not_finite_is_refused(results, value, tmp_path):
    with pytest.raises(ValueError, match="finite"):
        results.record({"accuracy": value}, **about())
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Accuracy", "accuracy"),
        ("top-5", "top_5"),
        ("target accuracy factor -1", "target_accuracy_factor_minus_1"),
        ("β₁ = 0.9", "beta1_0_9"),
        ("rate × 10", "rate_times_10"),
        ("rate ÷ 10", "rate_divided_by_10"),
        ("../a", "a"),
    ],
)
def test_names_become_keys_in_snake_case(results, tmp_path, name, key):
    results.record({name: 1}, **about())
    written = json.loads((tmp_path / "figures/quick/1_transfer_learning.json").read_text())
    assert list(written) == [key]
    assert results.save_figure(plt.figure(), name).name == f"1_{key}.png"


@pytest.mark.parametrize("name", ["", "_", "../"])
def test_a_name_needs_letters_or_digits(results, name):
    with pytest.raises(ValueError, match="expected letters or digits"):
        results.record({name: 1}, **about())
    with pytest.raises(ValueError, match="expected letters or digits"):
        results.save_figure(plt.figure(), name)


def test_one_call_records_a_table_or_nothing(results, tmp_path):
    file = tmp_path / "figures/quick/1_transfer_learning.json"
    with pytest.raises(ValueError, match="value of second"):
        results.record({"first": 1, "second": float("nan")}, **about())
    with pytest.raises(ValueError, match="two names for rate_times_10"):
        results.record({"rate × 10": 1, "rate times 10": 2}, **about())
    assert not file.exists()
    results.record({"a": 1, "b": [2]}, **about() | {"model": {"a": "one", "b": "two"}})
    written = json.loads(file.read_text())
    assert {key: entry["model"] for key, entry in written.items()} == {"a": "one", "b": "two"}


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
        contents.append((path.read_bytes(), path.with_suffix(".svg").read_text("utf-8")))
    assert path == tmp_path / "figures/quick/1_line.png"
    assert contents[0] == contents[1]
    assert contents[0][0].startswith(b"\x89PNG")


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
    with pytest.raises(ValueError, match="name is '!', expected letters or digits"):
        results.save_animation(frames, "!")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def texts_in(svg):
    """Return the texts of an SVG of Matplotlib, which says in a comment what it draws as paths."""
    return re.findall("<!-- (.*?) -->", svg)


def test_beside_a_figure_lies_a_drawing_without_its_title(results):
    figure, axes = plt.subplots(2)
    figure.suptitle("the title")
    axes[0].set_xlabel("the axis")
    rng = np.random.default_rng(0)
    axes[0].imshow(rng.random((60, 60, 3)))
    axes[1].imshow(rng.random((60, 60)) > 0.5, cmap="gray")
    svg = results.save_figure(figure, "drawn").with_suffix(".svg").read_text("utf-8")
    assert "the axis" in texts_in(svg) and "the title" not in texts_in(svg)
    assert figure.get_suptitle() == "the title"  # where the notebook shows it
    kinds = re.findall('data:image/([a-z]+);base64,([^"]+)', svg)
    assert [kind for kind, _ in kinds] == ["jpeg", "png"]
    with Image.open(io.BytesIO(base64.b64decode(kinds[1][1]))) as image:
        assert {colour for _, colour in image.convert("RGB").getcolors()} == {(0,) * 3, (255,) * 3}
    with Image.open(io.BytesIO(base64.b64decode(kinds[0][1]))) as image:
        assert image.mode == "RGB"
