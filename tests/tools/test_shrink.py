"""Committed figures become smaller and look the same."""

import numpy as np
import pytest
from PIL import Image

from tools import shrink


@pytest.fixture
def photograph(tmp_path):
    """A PNG file of smooth colours with noise on a white page; return its path."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 120)
    pixels = np.full((160, 200, 3), 255.0)
    pixels[20:140, 20:140] = np.stack(np.broadcast_arrays(ramp[:, None], ramp, 90.0), axis=2)
    pixels[20:140, 20:140] += rng.normal(0, 4, (120, 120, 3))
    path = tmp_path / "1_photograph.png"
    image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).convert("RGBA")
    image.save(path)
    return path


def read(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image.convert("RGB"), float)


def test_a_figure_is_half_as_large_and_differs_by_little(photograph):
    _, before = read(photograph)
    size = photograph.stat().st_size
    saved = shrink.shrink(photograph)
    mode, after = read(photograph)
    assert mode == "P"
    assert saved == size - photograph.stat().st_size > size / 2
    assert np.abs(after - before).mean() < 6
    assert (after[0] == 255).all(), "the page stays white"
    assert [path.name for path in photograph.parent.iterdir()] == [photograph.name]


def test_a_second_time_changes_nothing(photograph):
    shrink.shrink(photograph)
    content = photograph.read_bytes()
    assert shrink.shrink(photograph) == 0
    assert photograph.read_bytes() == content


def test_a_figure_that_would_grow_stays(tmp_path):
    path = tmp_path / "1_tiny.png"
    Image.new("RGB", (2, 2), "white").save(path, optimize=True)
    content = path.read_bytes()
    assert shrink.shrink(path) == 0
    assert path.read_bytes() == content
