"""The code that computes something, as text: what a checkpoint was made by."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator

PACKAGE = __name__.partition(".")[0]
# What these do changes when and where something is computed, never what.
APART = {
    f"{PACKAGE}.{name}"
    for name in ("artifacts", "display", "files", "runtime", "sources", "training")
}


def code_of(*objects) -> Iterator[str]:
    """Yield the code of functions, classes and modules, and of all of this package that they name.

    Without comments, docstrings, type hints, line breaks and the words of errors: an edit of prose
    leaves it as it is. A name counts wherever it stands in the code; what is reached in another
    way, such as the class of a network that is handed over, has to be among `objects`.
    Raises TypeError or OSError where Python has no source, as `inspect.getsource` does.
    """
    waiting, seen = list(objects), set()
    while waiting:
        item = waiting.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        tree = _Prose().visit(ast.parse(textwrap.dedent(inspect.getsource(item))))
        yield ast.unparse(tree)
        names = vars(item if inspect.ismodule(item) else sys.modules[item.__module__])
        for name, value in _named(tree, names):
            for part in _leaves(value):
                if isinstance(part, bool | int | float | str | None):
                    yield f"{name}: {part!r}"
                elif (inspect.isfunction(part) or inspect.isclass(part)) and _is_ours(part):
                    waiting.append(part)


def _named(tree, names):
    """Return [(a name in the code, what it means)], dotted names of our modules among them."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            found[node.id] = names[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id)
            if inspect.ismodule(owner) and _is_ours(owner) and hasattr(owner, node.attr):
                found[f"{node.value.id}.{node.attr}"] = getattr(owner, node.attr)
    return sorted(found.items(), key=lambda item: item[0])


def _leaves(value):
    """Yield what a constant holds, however its tuples, lists and dictionaries are nested."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _is_ours(thing):
    module = thing.__name__ if inspect.ismodule(thing) else thing.__module__
    return module.startswith(f"{PACKAGE}.") and module not in APART


class _Prose(ast.NodeTransformer):
    """Takes out docstrings, type hints of functions and the words of errors."""

    def _without_docstring(self, node):
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _without_docstring

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_Raise(self, node):
        return ast.Raise()
