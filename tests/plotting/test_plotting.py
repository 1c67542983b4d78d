"""Figures say what they show, and show the numbers that they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from dlapps import plotting


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_mosaic_holds_every_image_at_its_place():
    images = torch.arange(5 * 3 * 4 * 6, dtype=torch.uint8).reshape(5, 3, 4, 6)
    joined = plotting.mosaic(images, columns=2, gap=1)
    assert joined.shape == (3, 3 * 4 + 2, 2 * 6 + 1)
    for index, image in enumerate(images):
        top, left = index // 2 * 5, index % 2 * 7
        np.testing.assert_array_equal(joined[:, top : top + 4, left : left + 6], image)
    assert (joined[:, 4] == 255).all()
    assert (joined[:, 10:, 7:] == 255).all()


@pytest.mark.parametrize(
    ("images", "columns"),
    [(np.zeros((0, 1, 4, 4)), 2), (np.zeros((4, 4)), 2), (np.ones((2, 1, 4, 4)), 0)],
)
def test_a_mosaic_of_nothing_is_refused(images, columns):
    with pytest.raises(ValueError, match="images has shape"):
        plotting.mosaic(images, columns)


def test_grey_images_are_drawn_over_the_full_range_of_their_type():
    _, axes = plt.subplots()
    plotting.show_image(axes, np.full((1, 4, 4), 100, np.uint8))
    assert axes.images[0].get_clim() == (0, 255)
    _, axes = plt.subplots()
    plotting.show_image(axes, np.full((4, 4), 0.4))
    assert axes.images[0].get_clim() == (0, 1)


def test_colours_reach_the_figure_in_their_order():
    _, axes = plt.subplots()
    red = np.zeros((3, 2, 2))
    red[0] = 1
    plotting.show_image(axes, red)
    np.testing.assert_array_equal(axes.images[0].get_array()[0, 0], [1, 0, 0])


def test_a_grid_has_every_image_and_title():
    figure = plotting.image_grid(torch.rand(5, 3, 8, 8), list("abcde"), columns=3, title="toy data")
    assert figure.get_suptitle() == "toy data"
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == list("abcde")
    assert figure.get_size_inches()[0] == plotting.style.WIDTH
    with pytest.raises(ValueError, match="titles has 2 entries for 5 images"):
        plotting.image_grid(torch.rand(5, 3, 8, 8), ["a", "b"])
    with pytest.raises(ValueError, match="images is empty"):
        plotting.image_grid(torch.rand(0, 3, 8, 8))


def test_mosaics_are_one_panel_each():
    panels = {"start": torch.rand(4, 1, 8, 8), "end": torch.rand(4, 1, 8, 8)}
    figure = plotting.mosaics(panels, columns=2, title="toy")
    assert [axes.get_title() for axes in figure.axes] == ["start", "end"]
    for axes, images in zip(figure.axes, panels.values(), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), plotting.mosaic(images, 2)[0])


def test_rows_and_columns_are_labelled_at_their_middle():
    figure = plotting.labelled_mosaic(torch.rand(6, 1, 8, 8), "ab", "xyz", "toy", "noise", "label")
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["x", "y", "z"]
    assert axes.get_xticks().tolist() == [4, 14, 24]
    assert axes.get_yticks().tolist() == [4, 14]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("noise", "label")
    with pytest.raises(ValueError, match="images has 5 rows, expected 2 x 3"):
        plotting.labelled_mosaic(torch.rand(5, 1, 8, 8), "ab", "xyz", "toy")


def test_curves_have_labels_units_and_more_than_colour_to_tell_them_apart():
    series = {"one": ([0, 1], [0, 1]), "two": ([0, 1], [1, 0])}
    figure = plotting.curves(series, "epoch", "accuracy", "toy")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "accuracy")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    one, two = axes.lines
    assert one.get_color() != two.get_color()
    assert one.get_linestyle() != two.get_linestyle()
    np.testing.assert_array_equal(two.get_ydata(), [1, 0])


def test_panels_share_the_axis():
    figure = plotting.curve_panels(
        {("Losses", "nats"): {"a": ([1, 2], [3, 4])}, ("Shares", "1"): {"b": ([1, 2], [0, 1])}},
        "iteration",
        "toy",
    )
    assert [axes.get_title() for axes in figure.axes] == ["Losses", "Shares"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["nats", "1"]
    assert figure.axes[0].get_shared_x_axes().joined(*figure.axes)
    assert not figure.legends

    series = {"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}
    figure = plotting.curve_panels(
        {("One", "nats"): series, ("Two", "nats"): series}, "epoch", "toy", legend_columns=2
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_several_runs_are_their_mean_in_a_band_from_the_least_to_the_largest():
    runs = [[0.1, 0.5], [0.3, 0.6], [0.8, 0.7]]
    figure = plotting.curves({"a": ([1, 2], runs), "b": ([1, 2], [0.2, 0.3])}, "x", "y", "title")
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.4, 0.6])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.2, 0.3])
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert corners == {(1, 0.1), (1, 0.8), (2, 0.5), (2, 0.7)}


def test_points_in_the_plane_are_drawn_as_their_classes_in_the_colour_of_their_group():
    groups = {
        "source": (np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), ["7", "3", "7"]),
        "target": (np.array([[6.0, 7.0]]), ["3"]),
    }
    figure = plotting.planes({"before": groups, "after": groups}, "title")
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    three, seven, _, other, _ = figure.axes[0].collections  # and two empty ones for the legend
    np.testing.assert_allclose(three.get_offsets(), [[2, 3]])
    np.testing.assert_allclose(seven.get_offsets(), [[0, 1], [4, 5]])
    np.testing.assert_allclose(other.get_offsets(), [[6, 7]])
    assert (three.get_facecolor() == seven.get_facecolor()).all()
    assert (three.get_facecolor() != other.get_facecolor()).any()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["source", "target"]


def test_running_means_are_the_means_of_their_windows():
    values = np.random.default_rng(0).normal(size=20)
    x, means = plotting.running_mean(values, 5)
    assert x.tolist() == list(range(5, 21))
    np.testing.assert_allclose(means, [values[i - 5 : i].mean() for i in range(5, 21)])
    x, means = plotting.running_mean([1.0, 3.0], 50)
    assert (x.tolist(), means.tolist()) == ([2], [2.0])
    with pytest.raises(ValueError, match="window is 0"):
        plotting.running_mean([1.0], 0)


def test_dots_stand_at_their_values_and_errors_reach_to_both_sides():
    figure = plotting.dots(
        ["a", "b"], {"l2": [0.1, 0.2], "raw": [0.3, np.nan]}, "accuracy", "title",
        errors={"l2": [0.01, 0.02], "raw": [0.03, 0.04]},
    )  # fmt: skip
    (axes,) = figure.axes
    points = [container.lines[0] for container in axes.containers]
    np.testing.assert_allclose(points[0].get_xdata(), [0.1, 0.2])
    bars = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 0] for bar in bars], [[0.09, 0.11], [0.18, 0.22]])
    assert len({line.get_marker() for line in points}) == 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top


def test_an_axis_of_errors_gives_each_tenth_of_them_the_same_room():
    figure = plotting.dots(["a", "b", "c"], {"x": [0.9, 0.99, 0.999]}, "x", "t", log_error=True)
    axes = figure.axes[0]
    places = [axes.transData.transform((x, 0))[0] for x in (0.9, 0.99, 0.999)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])
    low, high = axes.get_xlim()
    assert 0.8 < low < 0.9 and 0.999 < high < 1
    assert [text.get_text() for text in axes.get_xticklabels()][:2] == ["0.9", "0.95"]


def test_scatters_have_a_point_per_run_and_one_look_per_label():
    x = {"score": {"a": [1, 2], "b": [3, 4]}, "other": {"a": [5, 6], "b": [7, 8]}}
    figure = plotting.scatters(x, {"a": [0.5, 0.6], "b": [0.9, 0.99]}, "accuracy", "t")
    assert [axes.get_xlabel() for axes in figure.axes] == ["score", "other"]
    for axes, values in zip(figure.axes, x.values(), strict=True):
        drawn = {line.get_label(): line for line in axes.get_lines()}
        assert {label: list(line.get_xdata()) for label, line in drawn.items()} == values
        assert drawn["a"].get_color() != drawn["b"].get_color()
    assert len(figure.legends[0].get_texts()) == 2


def test_spreads_show_every_sample_and_the_fixed_value():
    samples = np.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7]])
    figure = plotting.spreads(["a", "b"], samples, [0.9, 0.8], ("20", "1"), "p", "title")
    (axes,) = figure.axes
    *passes, fixed = axes.lines
    shown = np.stack([line.get_xdata() for line in passes])
    np.testing.assert_allclose(shown, samples)
    np.testing.assert_allclose(fixed.get_xdata(), [0.9, 0.8])


def test_each_filter_is_beside_its_maps_of_every_image():
    images, filters = np.ones((2, 3, 8, 8)), np.zeros((5, 3, 3, 3))
    maps = np.arange(2 * 5 * 4).reshape(2, 5, 2, 2).astype(float)
    filters[1, 0, 0, 0], filters[1, 1, 1, 1] = 2, -2
    figure = plotting.activation_maps(images, maps, filters, "title", list("abcde"))
    shown = {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left")}
    assert list(sorted(shown)) == list("abcde")
    array = shown["b"].images[0].get_array()
    assert array[0, 0].tolist() == [1, 0.5, 0.5]  # the largest weight, in red
    assert array[1, 1].tolist() == [0.5, 0, 0.5]
    assert (shown["a"].images[0].get_array() == 0.5).all()
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 2 + 5 * (1 + 2)


def test_shares_are_written_and_coloured_where_they_belong():
    values = [[0.0, 0.25, 1.0], [0.6, 0.5, 0.1]]
    figure = plotting.shares(values, ["a", "b"], ["x", "y", "z"], "by", "seen by", "share", "Title")
    axes = figure.axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[2, 0] == "100%" and texts[0, 1] == "60%" and len(texts) == 6
    np.testing.assert_array_equal(axes.images[0].get_array(), values)
    assert axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    assert axes.get_ylabel() == "by" and axes.get_xlabel() == "seen by"
    with pytest.raises(ValueError, match="values has shape"):
        plotting.shares(values, ["a"], ["x", "y", "z"], "by", "seen by", "share", "Title")


def test_a_confusion_matrix_counts_and_leaves_zeros_out():
    figure = plotting.confusion_matrix([[3, 1], [0, 2]], ["cat", "dog"], "Title")
    axes = figure.axes[0]
    assert {t.get_position(): t.get_text() for t in axes.texts if t.get_text()} == {
        (0, 0): "3", (1, 0): "1", (1, 1): "2",
    }  # fmt: skip
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])


def test_merits_stand_beside_a_line_of_real_images():
    series, errors = {"coverage": [0.2, 0.4]}, {"coverage": [0.05, 0]}
    real = {"coverage": 0.9, "frechet": 2}
    figure = plotting.merits(["a", "b"], series, "share", "title", errors=errors, real=real)
    (axes,) = figure.axes
    ((line,),) = [[line for line in axes.lines if line.get_linestyle() == "--"]]
    assert line.get_xdata() == [0.9, 0.9]
    assert "real images" in [text.get_text() for text in axes.texts]
    ends = axes.collections[0].get_segments()[0][:, 0]
    np.testing.assert_allclose(ends, [0.15, 0.25])
    scaled = plotting.merits(["a"], {"x": [1]}, "x", "t", errors={"x": [0]}, real={}, scale="log")
    assert scaled.axes[0].get_xscale() == "log"


def test_a_training_sheet_has_its_images_above_and_its_curves_below():
    images = np.zeros((64, 1, 4, 4), np.uint8)
    series = {"D": [[3, 5, 7], [0, 0, 0]], "G": [[4, 3, 2], [1, 1, 3]]}
    panels = {("Losses", "nats"): series}
    snapshots = {"after 0": images, "after 2": images + 255}
    figure = plotting.training_sheet(snapshots, panels, "title", window=2)
    first, last, curves = figure.axes
    assert (first.get_title(), last.get_title()) == ("after 0", "after 2")
    assert last.images[0].get_array().min() == 255
    d, g, *faint = curves.lines
    assert (d.get_label(), g.get_label()) == ("D", "G")
    assert [line.get_ydata().tolist() for line in (d, g)] == [[4, 6], [3.5, 2.5]]
    assert [line.get_ydata().tolist() for line in faint] == [[0, 0], [1, 2]]
    assert [line.get_color() for line in faint] == [d.get_color(), g.get_color()]
    assert all(line.get_alpha() < 1 for line in faint) and d.get_xdata().tolist() == [2, 3]
    assert curves.get_xlabel() == "iteration"
