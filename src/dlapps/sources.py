"""The code that computes something, as text: what a checkpoint was made by."""

import ast
import inspect
import linecache
import symtable
import sys
import textwrap
from collections.abc import Iterator

PACKAGE = __name__.partition(".")[0]
# What these do changes when and where something is computed, never what.
APART = "artifacts", "display", "files", "runtime", "sources", "replacements", "training"


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
        source = source_of(item)
        tree = _Prose().visit(ast.parse(textwrap.dedent(source)))
        yield ast.unparse(tree)
        for name, value in _named(tree, _names_of(item, source)):
            for part in _leaves(value):
                if isinstance(part, bool | int | float | str | None):
                    yield f"{name}: {part!r}"
                elif (inspect.isfunction(part) or inspect.isclass(part)) and _is_ours(part):
                    waiting.append(part)


def source_of(item) -> str:
    """Return the source of a function, class or module, those of a notebook included."""
    if _is_written(item):
        if "__source__" in vars(item):
            return vars(item)["__source__"]
        if inspect.isclass(item):  # Python looks for the file of its module, and there is none
            for file in {function.__code__.co_filename for function in functions_of(item)}:
                cell = "".join(linecache.getlines(file))
                for node in ast.parse(cell).body:
                    if isinstance(node, ast.ClassDef) and node.name == item.__name__:
                        return ast.get_source_segment(cell, node)
    return inspect.getsource(item)


def keep_source(item) -> None:
    """Keep in a function or class of a notebook its source, for processes without the notebook.

    And in all that it names there.
    """
    if _is_written(item) and "__source__" not in vars(item):
        item.__source__ = source_of(item)
        for value in _names_of(item, item.__source__).values():
            if inspect.isfunction(value) or inspect.isclass(value):
                keep_source(value)


def global_names(source: str) -> set[str]:
    """Return the names in a source that are no local variables of its functions."""
    tables, found = [symtable.symtable(textwrap.dedent(source), "source", "exec")], set()
    for table in tables:
        tables.extend(table.get_children())
        found |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return found


def functions_of(item) -> list:
    """Return a function in a list, or the methods of a class."""
    values = vars(item).values() if inspect.isclass(item) else [item]
    return [f for f in (getattr(v, "__func__", v) for v in values) if inspect.isfunction(f)]


def _names_of(item, source):
    """Return {name: what it means} where an item was defined."""
    if not _is_written(item):
        return vars(item if inspect.ismodule(item) else sys.modules[item.__module__])
    # In a notebook a name may mean many things: only those that are not local count.
    known = {name: value for f in functions_of(item) for name, value in f.__globals__.items()}
    return {name: known[name] for name in global_names(source) & known.keys()}


def _is_written(thing):
    """Return whether a function or class comes from a notebook: it is a student's."""
    return not inspect.ismodule(thing) and thing.__module__ == "__main__"


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
    package, _, rest = module.partition(".")
    return _is_written(thing) or (package == PACKAGE and rest != "" and rest not in APART)


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
