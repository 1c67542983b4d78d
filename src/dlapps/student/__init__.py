"""A student's own functions: checked against independent expectations, then used in the notebook.

The checks, a module for each practical, are loaded when the first function is checked. A function
that passes takes the place of the package's own, see `dlapps.replacements`.
"""

import traceback
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from inspect import isclass

import torch

from dlapps.replacements import install
from dlapps.sources import functions_of
from dlapps.student.comparison import NotYet

PRACTICALS = "transfer", "visualization", "adaptation", "gans"


def check(function: Callable | type) -> None:
    """Compare a function or class of the notebook with what its docstring asks for.

    It is found by its name. What differs is said in a `NotYet`. Otherwise the function takes the
    place of the package's own, in this process and in those that `runtime` starts.
    """
    name = getattr(function, "__name__", None)
    place = next((place for place in checks() if place.rpartition(".")[2] == name), None)
    if place is None:
        raise NotYet(f"check({function!r}): expected one of the functions to fill in, by its name.")
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            checks()[place](function if isclass(function) else _returning(function))
    except NotYet as difference:
        raise NotYet(f"✗ {name}: {difference}") from None
    except Exception as error:
        raise NotYet(f"✗ {name} {_told(error, function)}") from None
    install(place, function)
    print(f"✓ {name} does what it should. The rest of the notebook runs with it.")


@cache
def checks() -> dict[str, Callable]:
    """Return {where a function of the package is: the check of a student's}."""
    modules = [import_module(f"{__name__}.{practical}") for practical in PRACTICALS]
    return {place: one for module in modules for place, one in module.CHECKS.items()}


def _returning(function):
    """Return the function, which then complains instead of returning None."""

    @wraps(function)
    def call(*arguments, **options):
        found = function(*arguments, **options)
        if found is None:
            raise NotYet("it returns None. Is a `return` missing?")
        return found

    return call


def _told(error, function):
    """Say what a function raised, and in which of its own lines."""
    if isinstance(error, NotImplementedError):
        return "is still a blank: write its code, run that cell, then this one."
    files = {own.__code__.co_filename for own in functions_of(function)}
    lines = [line for line in traceback.extract_tb(error.__traceback__) if line.filename in files]
    where = f" in line {lines[-1].lineno} of its cell, `{lines[-1].line}`" if lines else ""
    return f"raises {type(error).__name__}{where}: {error}"
