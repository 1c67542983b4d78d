"""What counts as the code that computes something."""

import importlib.util
import itertools
import sys

import pytest

from dlapps.gans import variants
from dlapps.models import gan
from dlapps.sources import code_of

HELPERS = """
RATE = 0.5
KINDS = {{"one": ("a", 2)}}


def helper(x{hint}):
    {docstring}
    return RATE * x  {comment}


def unrelated(x):
    return {unrelated} * x
"""
MAIN = '''
from dlapps import {helpers} as helpers
from dlapps.{helpers} import KINDS


class Base:
    def run(self, x):
        return helpers.helper(x)


class Main(Base):
    """{words}"""

    def run(self, x):
        if x not in KINDS:
            raise ValueError(f"{words}: {{x}}")
        return super().run(x)
'''
PLAIN = {"docstring": '"""Half."""', "comment": "", "hint": "", "unrelated": 1, "words": "words"}
numbers = itertools.count()


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Return the function that gives the code of class Main, with some of the texts changed."""

    def build(helpers_edit=lambda text: text, **changed):
        name = f"sources_{next(numbers)}"
        texts = PLAIN | changed | {"helpers": name}
        found = []
        for module, text in ((name, helpers_edit(HELPERS.format(**texts))), (f"{name}_main", MAIN)):
            path = tmp_path / f"{module}.py"
            path.write_text(text if module == name else text.format(**texts))
            spec = importlib.util.spec_from_file_location(f"dlapps.{module}", path)
            found.append(importlib.util.module_from_spec(spec))
            monkeypatch.setitem(sys.modules, spec.name, found[-1])
            monkeypatch.setattr("dlapps." + module, found[-1], raising=False)
            spec.loader.exec_module(found[-1])
        return [part.replace(name, "helpers") for part in code_of(found[1].Main)]

    return build


@pytest.mark.parametrize(
    "prose",
    [
        {"docstring": '"""Half of it,\n    in two lines."""'},
        {"docstring": ""},
        {"comment": "# why"},
        {"words": "other words"},
        {"unrelated": 2},
        {"hint": ": float"},
    ],
)
def test_prose_and_what_is_not_called_do_not_count(code, prose):
    assert code() == code(**prose)


@pytest.mark.parametrize(
    ("old", "new"),
    [("RATE * x", "RATE + x"), ("RATE = 0.5", "RATE = 0.25"), ('("a", 2)', '("a", 3)')],
)
def test_functions_and_constants_count_through_modules_and_base_classes(code, old, new):
    assert code() != code(helpers_edit=lambda text: text.replace(old, new))


def test_classes_in_a_table_are_followed():
    found = "\n".join(code_of(variants.Variant))
    for kind in (gan.DCGANGenerator, gan.ConditionalGANDiscriminator):
        assert f"class {kind.__name__}(nn.Module)" in found
    assert "def _apply_joined" in found and "def init_weights" in found
    assert "def progress" not in found  # what shows or stores changes no number
