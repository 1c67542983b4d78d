"""What a student's function returns beside what it should: the difference in a sentence."""

import textwrap
from collections.abc import Mapping, Sequence
from numbers import Number

import numpy as np
import torch

KINDS = {"b": "True or False", "i": "whole numbers", "u": "whole numbers", "f": "floats"}


class NotYet(Exception):
    """What is still missing or wrong, in words. A notebook shows these alone, no traceback."""

    def _render_traceback_(self):
        return textwrap.wrap(str(self), 96, break_long_words=False)


def compare(found, expected, what: str, mistakes: Mapping | None = None, tolerance=1e-4) -> None:
    """Raise `NotYet` unless `found` has the type, the shape and the values of `expected`.

    A tensor, an array or a number. mistakes: {a sentence that names one: what it would give}; the
    first that agrees is told. tolerance: relative to the largest expected value.
    """
    compare_form(found, expected, what)
    found, expected = _array(found), _array(expected)
    if not np.isfinite(found).all():
        raise NotYet(f"{what}: infinite, or not a number.{_where(found, expected)}")
    if _agree(found, expected, tolerance):
        return
    general = {"The sign is wrong.": -1 * expected} | _ratio(found, expected)
    for sentence, value in ((mistakes or {}) | general).items():
        value = _array(value)
        if not _agree(value, expected, tolerance) and _agree(found, value, tolerance):
            raise NotYet(f"{what}: not right yet. {sentence}{_where(found, expected)}")
    raise NotYet(f"{what}: not right yet.{_where(found, expected)}")


def compare_all(found, expected: Mapping, case: str = "", **mistakes: Mapping) -> None:
    """Raise `NotYet` unless `found` is a dictionary with the keys and values of `expected`.

    mistakes: {a key: the mistakes of its value, as in `compare`}.
    """
    if not isinstance(found, dict) or set(found) != set(expected):
        keys = f" with {', '.join(map(str, found))}" if isinstance(found, dict) else ""
        wanted = f"a dictionary with {', '.join(expected)}"
        raise NotYet(f"it returns {_named(found)}{keys}, expected {wanted}.")
    for name, value in expected.items():
        compare(found[name], value, f"{name!r}{case}", mistakes.get(name))


def parts(found, count: int, what: str) -> Sequence:
    """Return the parts of a tuple; raise `NotYet` unless there are `count`."""
    if not isinstance(found, tuple | list) or len(found) != count:
        raise NotYet(f"it returns {_named(found)}, expected {what}.")
    return found


def compare_form(found, expected, what: str) -> None:
    """Raise `NotYet` unless `found` has the type, the shape and the kind of numbers expected."""
    if isinstance(expected, Number):
        alike = isinstance(found, Number) and not isinstance(found, bool)
        wanted = "a number"
    else:
        alike = isinstance(found, type(expected))
        wanted = "a tensor" if isinstance(expected, torch.Tensor) else "a NumPy array"
    if not alike:
        raise NotYet(f"{what}: {_named(found)}, expected {wanted}.")
    if isinstance(expected, Number):
        return
    if found.shape != expected.shape:
        swapped = found.ndim > 1 and found.shape == expected.shape[::-1]
        raise NotYet(
            f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}."
            + " The axes are swapped." * swapped
        )
    if isinstance(expected, torch.Tensor) and found.device.type != expected.device.type:
        raise NotYet(f"{what}: a tensor on {found.device}, expected one on {expected.device}.")
    kind, wanted = (_array(value).dtype.kind for value in (found, expected))
    if kind != wanted:
        raise NotYet(f"{what}: {KINDS.get(kind, kind)}, expected {KINDS[wanted]}.")


def _agree(a, b, tolerance):
    if a.shape != b.shape:
        return False
    if a.dtype.kind == b.dtype.kind == "b":
        return bool((a == b).all())
    scale = np.abs(b).max(initial=0)
    return np.allclose(np.float64(a), np.float64(b), rtol=0, atol=tolerance * scale + 1e-7)


def _ratio(found, expected):
    """Return the mistake that each number is the same multiple of the expected one."""
    size = np.square(np.float64(expected)).sum()
    ratio = (np.float64(found) * expected).sum() / size if size else 0.0
    if expected.size < 2 or abs(ratio) < 1e-6:
        return {}
    return {f"It is {ratio:.4g} times what it should be, everywhere.": ratio * expected}


def _where(found, expected):
    if not found.ndim:
        return f" It is {_number(found)}, expected {_number(expected)}."
    differences = np.abs(np.float64(found) - np.float64(expected))
    differences[np.isnan(differences)] = np.inf
    index = np.unravel_index(differences.argmax(), found.shape)
    place = ", ".join(map(str, index))
    numbers = f"{_number(found[index])}, expected {_number(expected[index])}"
    return f" The largest difference is at [{place}]: {numbers}."


def _number(value):
    return f"{value:.6g}" if value.dtype.kind == "f" else f"{value}"


def _array(value):
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _named(value):
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value}" if value is None or isinstance(value, bool) else f"a {type(value).__name__}"
