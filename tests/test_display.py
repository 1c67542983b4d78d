"""What notebooks display beside figures."""

import numpy as np
import pytest

from dlapps import display


@pytest.fixture
def shown(monkeypatch):
    """The list of what would be displayed."""
    objects = []
    monkeypatch.setattr(display, "display", objects.append)
    return objects


def test_source_is_that_of_every_object(shown):
    display.show_source(display.answer, display.show_table)
    (code,) = shown
    assert code.data.startswith("```python\ndef answer(text: str")
    assert "\n\n\ndef show_table(" in code.data
    assert code.data.endswith("\n```") and code.data.count("```") == 2


def test_table_formats_and_says_where_there_is_no_value(shown):
    rows = [{"network": "a", "accuracy": 0.91234, "n": 1234567}, {"network": "b", "accuracy": None}]
    display.show_table(rows, accuracy="{:.1%}")
    html = shown[0].to_html()
    for text in ("accuracy", "91.2%", "1,234,567"):
        assert text in html
    assert html.count("n/a") == 2
    display.show_table(np.array([[0.123456]]))
    assert "0.123<" in shown[1].to_html()


def test_answer_is_marked_as_one(shown):
    display.answer("\nForty-two.\n")
    assert shown[0].data == "**Answer.** Forty-two."
