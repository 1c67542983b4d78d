"""Write the student's version of the notebooks: `python -m tools.student`.

It is made of notebooks/ and src/ alone. A code cell with the tag `blank` shows functions or classes
of the package: each becomes a cell with its signature, its docstring and a blank, and one that
checks what is written there (`dlapps.student.check`). Answers, in code cells with the tag `answer`
and in Markdown from "**Answer.**" on, become blanks as well.
"""

import argparse
import ast
import builtins
import copy
import inspect
import sys
from importlib import import_module
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell

from dlapps import runtime
from dlapps.files import atomic_path
from dlapps.sources import global_names
from tools.execute import find_notebooks

MARK = "**Answer.**"
ANSWER = "*Your answer:*"
NOTE = """\
> **This is the version to fill in.** Where a cell says `YOUR CODE`, write what its docstring asks
> for. The cell after it checks your function, and the rest of the notebook runs with it. Where a
> cell says *Your answer*, double-click it and write."""
BLANK = ["# YOUR CODE", 'raise NotImplementedError("Write your code here.")']


class SolutionShown(ValueError):
    """A notebook shows, or gives away in another form, what a student is to find."""


def student_version(notebook, name, places=()):
    """Return a notebook in which blanks and answers are to be filled in.

    name: what errors call the notebook; places: "module.name" of the blanks of all notebooks, whose
    solutions no cell may show. Raises SolutionShown for a cell that does, or that has an answer
    without a tag, and ValueError for a blank that cannot be made, or would not work.
    """
    places = {*places, *blanks(notebook)}
    version, namespace = copy.deepcopy(notebook), {}
    _check_names(blanks(notebook).values(), notebook, name)
    version.cells = []
    for number, cell in enumerate(copy.deepcopy(notebook.cells), start=1):
        if cell.cell_type == "markdown":
            cell.source = _without_answer(cell.source)
            if number == 1:
                cell.source += f"\n\n{NOTE}"
            if cell.source != ANSWER or version.cells[-1].source != ANSWER:  # one blank per answer
                version.cells.append(cell)
        elif _has_tag(cell, "answer"):
            version.cells.append(new_markdown_cell(ANSWER, id=cell.id))
        elif _has_tag(cell, "blank"):
            for thing in _shown(cell, namespace):
                version.cells += _blank_cells(cell, thing)
        else:
            _run_imports(cell, namespace)
            _check_cell(cell, namespace, places, f"{name}, cell {number}")
            version.cells.append(cell)
    return version


def blanks(notebook):
    """Return {"module.name": function or class} of what a notebook's blanks ask for."""
    found, namespace = {}, {}
    for cell in notebook.cells:
        if _has_tag(cell, "blank"):
            found |= {place_of(thing): thing for thing in _shown(cell, namespace)}
        elif cell.cell_type == "code":
            _run_imports(cell, namespace)
    return found


def fill(notebook, solutions=None):
    """Return a student's version with sources in place of blanks, by default those of src/.

    solutions: {"module.name" of a blank: its source, or None to leave it blank}.
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        place = cell.metadata.get("fills")
        solution = (solutions or {}).get(place, "src")
        if place and solution:
            thing = _find(place)
            source = inspect.getsource(thing) if solution == "src" else solution
            cell.source = f"{imports_of(thing)}{source.strip()}"
    return notebook


def blank_of(thing):
    """Return the source of a function, or of a class, whose functions' bodies are blanks."""
    source = inspect.getsource(thing)
    lines, (definition,) = source.splitlines(), ast.parse(source).body
    functions = [definition]
    if isinstance(definition, ast.ClassDef):
        functions = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
    for function in reversed(functions):
        first, last = function.body[0], function.end_lineno
        begin = first.lineno - 1
        if ast.get_docstring(function):
            begin = first.end_lineno
        indent = " " * first.col_offset
        lines[begin:last] = [indent + line for line in BLANK]
    return "\n".join(lines)


def imports_of(thing):
    """Return the imports, as text, of all that the source of a function or class names.

    They are its module's own; what the module defines is imported from there.
    """
    module = inspect.getmodule(thing)
    bindings = _bindings(ast.parse(inspect.getsource(module)))
    lines = {}  # {from where: {what}}, nothing for plain imports
    for name in sorted(global_names(inspect.getsource(thing)) - {thing.__name__}):
        node = bindings.get(name)
        if isinstance(node, ast.Import):
            lines[ast.unparse(node)] = []
        elif isinstance(node, ast.ImportFrom):
            lines.setdefault(node.module, []).append(ast.unparse(node.names[0]))
        elif node is not None:
            lines.setdefault(module.__name__, []).append(name)
        elif not hasattr(builtins, name):
            raise ValueError(f"{thing.__name__} names {name}, which its module does not know")
    if any(origin.partition(".")[0] == "torch" for origin in lines):
        lines["import torch"] = []  # other ways to the solution may need it
    texts = [_import_line(origin, names) if names else origin for origin, names in lines.items()]
    text, group = "", None
    for line in sorted(texts, key=lambda line: (_group(line), line)):
        text += "\n" * (group not in (None, _group(line))) + f"{line}\n"
        group = _group(line)
    return text + "\n\n" * bool(text)


def _import_line(origin, names):
    line = f"from {origin} import {', '.join(names)}"
    if len(line) > 100:
        line = f"from {origin} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
    return line


def _group(line):
    package = line.split()[1].partition(".")[0]
    return package not in sys.stdlib_module_names, package == "dlapps"


def _bindings(tree):
    """Return {a module's name: the node that binds it, of an import this name's part alone}."""
    found = {}

    class Bindings(ast.NodeVisitor):
        def visit_Import(self, node):
            for alias in node.names:
                alone = copy.copy(node)
                alone.names = [alias]
                found[alias.asname or alias.name.partition(".")[0]] = alone

        visit_ImportFrom = visit_Import

        def visit_FunctionDef(self, node):
            found[node.name] = node

        visit_ClassDef = visit_FunctionDef

        def visit_Name(self, node):
            if isinstance(node.ctx, ast.Store):
                found[node.id] = node

        def visit_ListComp(self, node):  # its variables are its own
            pass

        visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_Lambda = visit_ListComp

    Bindings().visit(tree)
    return found


def place_of(thing):
    """Return "module.name" of a function or class."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _find(place):
    module, _, name = place.rpartition(".")
    return getattr(import_module(module), name)


def _blank_cells(cell, thing):
    """Return the cell with the blank of a function or class, and the one that checks it."""
    name = thing.__name__
    write = new_code_cell(f"{imports_of(thing)}{blank_of(thing)}", id=f"{cell.id}-{name}"[:64])
    write.metadata = {"tags": ["blank"], "fills": place_of(thing)}
    check = f"from dlapps.student import check\n\ncheck({name})"
    return [write, new_code_cell(check, id=f"check-{cell.id}-{name}"[:64])]


def _check_names(things, notebook, name):
    """Raise ValueError if a notebook means something else by a name that blanks use."""
    needed = {}  # {name: (what it means, the function that needs it)}
    for thing in things:
        module = inspect.getmodule(thing)
        for word in global_names(inspect.getsource(thing)) | {thing.__name__}:
            meaning = vars(module).get(word)
            other, user = needed.setdefault(word, (meaning, thing.__name__))
            if other is not meaning:
                raise ValueError(f"{name}: {user} and {thing.__name__} both use a name {word}")
    for number, cell in enumerate(notebook.cells, start=1):
        for word, node in _bindings(_tree(cell)).items() if cell.cell_type == "code" else ():
            meaning, user = needed.get(word, (None, None))
            if user and _imported(node) is not meaning:
                raise ValueError(
                    f"{name}, cell {number}: {word} is not what the student's {user} means by it; "
                    "it needs another name here"
                )


def _imported(node):
    """Return what an import of one name gives; None for another way to bind a name."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return None
    namespace = {}
    exec(compile(ast.Module([node], []), "<import>", "exec"), namespace)
    return namespace[node.names[0].asname or node.names[0].name.partition(".")[0]]


def _shown(cell, namespace):
    """Return the objects that the one call of a blank cell shows."""
    body = _tree(cell).body
    calls = _calls(cell, "show_source")
    if len(body) != 1 or len(calls) != 1 or not calls[0].args:
        raise ValueError(f"a blank is a cell with one call of show_source, not {cell.source!r}")
    return [_evaluate(argument, namespace) for argument in calls[0].args]


def _check_cell(cell, namespace, places, where):
    """Raise SolutionShown for an untagged cell that shows a solution or an answer."""
    if _calls(cell, "answer") or _calls(cell, "in_numbers"):
        raise SolutionShown(f"{where}: an answer without the tag `answer`")
    for call in _calls(cell, "show_source"):
        for argument in call.args:
            thing = _evaluate(argument, namespace)
            inside = thing.__name__ if inspect.ismodule(thing) else place_of(thing)
            for place in places:
                if f"{place}.".startswith(f"{inside}."):
                    raise SolutionShown(
                        f"{where}: show_source({ast.unparse(argument)}) shows the solution of "
                        f"{place.rpartition('.')[2]}, which is a blank"
                    )


def _without_answer(source):
    before, mark, _ = source.partition(MARK)
    return before + ANSWER if mark else source


def _has_tag(cell, tag):
    return tag in cell.metadata.get("tags", ())


def _tree(cell):
    return ast.parse(TransformerManager().transform_cell(cell.source))


def _calls(cell, name):
    calls = [node for node in ast.walk(_tree(cell)) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]


def _run_imports(cell, namespace):
    """Import, into a namespace, what a cell imports from the package."""
    for node in _tree(cell).body:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "dlapps":
            exec(compile(ast.Module([node], []), "<imports>", "exec"), namespace)


def _evaluate(expression, namespace):
    try:
        return eval(compile(ast.Expression(expression), "<shown>", "eval"), namespace)
    except (NameError, SyntaxError, TypeError):
        text = ast.unparse(expression)
        raise ValueError(f"show_source shows {text}, expected names of the package") from None


def main(arguments=None, folder=None):
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.student", description=__doc__)
    root = runtime.project_root()
    parser.add_argument("--output", type=Path, default=root / "build" / "student")
    options = parser.parse_args(arguments)
    notebooks = {
        path: nbformat.read(path, 4) for path in find_notebooks(folder or root / "notebooks")
    }
    places = {place for notebook in notebooks.values() for place in blanks(notebook)}
    for path, notebook in notebooks.items():
        version = student_version(notebook, path.stem, places)
        nbformat.validate(version)
        with atomic_path(options.output / path.name) as temporary:
            nbformat.write(version, temporary)
        answers = sum(ANSWER in cell.source for cell in version.cells)
        print(f"{path.stem}: {len(blanks(notebook))} functions and {answers} answers to fill in")
    print(f"Written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
