"""A student's functions in the place of the package's own, here and in other processes."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module

from dlapps.sources import PACKAGE, keep_source

_own = {}  # {place: the package's function}, a place being such as "dlapps.gans.losses.gan_step"
_installed = {}  # {place: the student's function}


def install(place: str, function: Callable | type) -> None:
    """Put a function in a place of the package, and wherever else the one there was imported.

    Modules that are imported later take it over from there. The package's own puts itself back.
    """
    module, _, name = place.rpartition(".")
    before = getattr(import_module(module), name)
    own = _own.setdefault(place, before)
    for holder_name, holder in list(sys.modules.items()):
        if holder_name.partition(".")[0] in (PACKAGE, "__main__"):
            for attribute, value in list(vars(holder).items()):
                if value is before:
                    setattr(holder, attribute, function)
    _installed[place] = function
    if function is own:
        del _installed[place]


@contextmanager
def installed(functions: Mapping[str, Callable | type]) -> Iterator[None]:
    """Have functions, {place: function}, in their places for a while."""
    before = {}
    try:
        for place, function in functions.items():
            module, _, name = place.rpartition(".")
            before[place] = getattr(import_module(module), name)
            install(place, function)
        yield
    finally:
        for place, function in before.items():
            install(place, function)


def carrying(function: Callable) -> Callable:
    """Return a function for another process, which has the student's functions with it there."""
    for own in _installed.values():
        keep_source(own)
    return partial(_call, dict(_installed), function) if _installed else function


def _call(functions, function, *arguments, **options):
    with installed(functions):
        return function(*arguments, **options)
