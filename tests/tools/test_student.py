"""The student's version of the notebooks, and a student's functions in the package's place."""

import ast
import io
import json
import linecache
import math
import re
from contextlib import contextmanager
from importlib import import_module
from itertools import count

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dlapps import adaptation, files, replacements, runtime, sources
from dlapps.models import dann
from dlapps.student import check, checks
from dlapps.student.comparison import NotYet
from tools import execute, grade, student

ROOT = runtime.project_root()
PATHS = execute.find_notebooks(ROOT / "notebooks")
SETTINGS = "DLAPPS_PROFILE", "DLAPPS_DATA", "DLAPPS_WEIGHTS", "DLAPPS_FIGURES"
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
cells = count()


def find(place):
    module, _, name = place.rpartition(".")
    return getattr(import_module(module), name)


@contextmanager
def restored():
    """Put the package's own functions back at the end."""
    before = {place: find(place) for place in checks()}
    try:
        yield
    finally:
        for place, function in before.items():
            replacements.install(place, function)


def write(source, name):
    """Return what a notebook's cell with this source defines by a name."""
    file = f"<cell {next(cells)}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    namespace = {"__name__": "__main__"}
    exec(compile(source, file, "exec"), namespace)
    return namespace[name]


def notebook(*shown, **more):
    """Return a small notebook with a blank cell that shows something of practical 3."""
    imports = "from dlapps import adaptation\nfrom dlapps.display import answer, show_source\n"
    imports += "from dlapps.models import dann"
    made = new_notebook(cells=[new_markdown_cell("# Title\n\nA badge."), new_code_cell(imports)])
    for text in shown:
        made.cells.append(new_code_cell(f"show_source({text})", metadata={"tags": ["blank"]}))
    made.cells += [new_code_cell(source) for source in more.get("code", ())]
    return made


# The version to fill in


def test_each_function_becomes_a_blank_and_a_check():
    version = student.student_version(
        notebook("adaptation.reversal_schedule, dann.GradientReversal"), "3_small"
    )
    _, _, schedule, check_schedule, reversal, check_reversal = version.cells
    assert check_schedule.source == "from dlapps.student import check\n\ncheck(reversal_schedule)"
    assert check_reversal.source.endswith("\ncheck(GradientReversal)")
    own = adaptation.reversal_schedule
    assert schedule.source.startswith("import math\n\n\ndef reversal_schedule(p")
    assert own.__doc__ in schedule.source
    assert schedule.source.endswith(
        '"""\n    # YOUR CODE\n    raise NotImplementedError("Write your code here.")'
    )
    assert "exp(-10 *" not in schedule.source, "no line of the solution is left"
    (definition,) = ast.parse(reversal.source).body[-1:]
    assert [len(part.body) for part in definition.body[1:]] == [1, 1]
    assert reversal.source.count("# YOUR CODE") == 2
    assert ast.get_docstring(definition) == ast.get_docstring(
        ast.parse(sources.source_of(dann.GradientReversal)).body[0]
    )
    nbformat.validate(version)


def test_answers_become_blanks_and_the_opening_says_so():
    made = notebook("adaptation.reversal_schedule")
    made.cells.append(new_markdown_cell("### Question 1\n\n**Answer.** Because.\n\nFor sure."))
    made.cells.append(new_code_cell('answer(f"{1 + 1}")', metadata={"tags": ["answer"]}))
    made.cells.append(new_markdown_cell("Some prose."))
    version = student.student_version(made, "3_small")
    sources_ = [cell.source for cell in version.cells]
    assert sources_[0].startswith("# Title\n\nA badge.\n\n> **This is the version to fill in.**")
    assert sources_[-3:] == ["### Question 1\n\n*Your answer:*", "*Your answer:*", "Some prose."]
    assert version.cells[-2].cell_type == "markdown"
    assert made.cells[0].source == "# Title\n\nA badge.", "the notebook itself stays"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("show_source(adaptation.dann_step)", r"3_small, cell 4: .* the solution of dann_step"),
        ("print(1)\nshow_source(adaptation.dann)", r"3_small, cell 4: .* solution of dann_step"),
        ("if True:\n    answer('Because.')", "3_small, cell 4: an answer without the tag"),
    ],
)
def test_solution_that_is_shown_elsewhere_is_an_error(code, words):
    made = notebook("adaptation.dann_step", code=[code])
    with pytest.raises(student.SolutionShown, match=words):
        student.student_version(made, "3_small")


def test_solution_of_another_notebook_counts_too():
    made = notebook(code=["show_source(adaptation.dann_step, adaptation.predict)"])
    assert student.student_version(made, "3_small")
    with pytest.raises(student.SolutionShown, match="dann_step"):
        student.student_version(made, "3_small", ["dlapps.adaptation.dann.dann_step"])


@pytest.mark.parametrize(
    ("code", "fits"),
    [
        ("steps = 3", False),
        ("for steps in range(3):\n    pass", False),
        ("def features_of_both():\n    pass", False),
        ("from dlapps.models import features as F", False),
        ("from dlapps import steps, training", True),
        ("from dlapps.adaptation import features_of_both", True),
        ("print([steps for steps in range(3)])", True),
        ("def f(steps):\n    F = steps\n    return F", True),
    ],
)
def test_name_that_means_something_else_in_the_notebook_is_an_error(code, fits):
    made = notebook("adaptation.dann_step", code=[code])
    if fits:
        student.student_version(made, "3_small")
        return
    with pytest.raises(ValueError, match=r"cell 4: .* is not what the student's dann_step means"):
        student.student_version(made, "3_small")


def test_blank_cell_with_more_than_one_call_is_an_error():
    made = notebook("adaptation.dann_step)\nprint(1")
    with pytest.raises(ValueError, match="one call of show_source"):
        student.student_version(made, "3_small")


@each_path
def test_notebook_gives_nothing_away(path):
    made = nbformat.read(path, 4)
    version = student.student_version(made, path.stem)
    nbformat.validate(version)
    text = "\n".join(cell.source for cell in version.cells)
    assert "**Answer.**" not in text and not re.search(r"^answer\(", text, re.MULTILINE)
    for place in student.blanks(made):
        body = sources.source_of(find(place)).splitlines()[-1].strip()
        assert body not in text, f"the last line of {place}"
    assert text.count("# YOUR CODE") >= len(student.blanks(made)) >= 4


def test_command_writes_all_four(tmp_path, capsys):
    assert student.main(["--output", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.glob("*")) == [path.name for path in PATHS]
    assert "3_domain_adaptation: 6 functions and " in capsys.readouterr().out


@pytest.mark.parametrize("place", checks())
def test_solution_passes_as_a_student_would_write_it(place):
    name = place.rpartition(".")[2]
    empty = new_code_cell("", metadata={"fills": place})
    (cell,) = student.fill(new_notebook(cells=[empty])).cells
    with restored():
        own, mine = find(place), write(cell.source, name)
        before = [*sources.code_of(own)]
        check(mine)
        assert find(place) is mine is not own
        assert [*sources.code_of(mine)] == before, "the same code, the same checkpoints"
    assert find(place) is own


# In the place of the package's own

SCHEDULE = (
    "import math\n\nSLOPE = {slope}\n\n\ndef reversal_schedule(p):\n    return math.tanh({at})\n"
)


def test_function_is_replaced_wherever_it_was_imported():
    with restored():
        mine = write(SCHEDULE.format(slope=5, at="SLOPE * p"), "reversal_schedule")
        check(mine)
        for module in (adaptation, adaptation.dann, adaptation.trainer):
            assert module.reversal_schedule is mine
        better = write(SCHEDULE.format(slope=5.0, at="p * SLOPE"), "reversal_schedule")
        check(better)
        assert adaptation.trainer.reversal_schedule is better
        wrong = write(SCHEDULE.format(slope=4, at="p * SLOPE"), "reversal_schedule")
        with pytest.raises(NotYet):
            check(wrong)
        assert adaptation.trainer.reversal_schedule is better
    assert adaptation.trainer.reversal_schedule.__module__ == "dlapps.adaptation.dann"


def test_fingerprint_follows_the_student_s_code_and_all_that_it_names_in_the_notebook():
    helper = "import math\n\nSLOPE = {slope}\nother = 7\n\n\ndef helper(p):\n    return {of}\n\n\n"
    helper += "def reversal_schedule(p):\n    other = math.tanh(helper(p))\n    return other\n"
    found = [files.fingerprint(adaptation.train)]
    with restored():
        for slope, of in ((5, "SLOPE * p"), (5.0, "SLOPE * p"), (5, "p * SLOPE")):
            check(write(helper.format(slope=slope, of=of), "reversal_schedule"))
            found.append(files.fingerprint(adaptation.train))
        assert len(set(found)) == len(found)
        same = helper.format(slope=5, of="SLOPE * p").replace("other = 7", "other = 8")
        check(write(same, "reversal_schedule"))
        assert files.fingerprint(adaptation.train) == found[1], "a local name, not the notebook's"
    assert files.fingerprint(adaptation.train) == found[0]


REVERSAL = """
import torch


class GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f, λ):
        ctx.λ = λ
        return f.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -(ctx.λ * gradient), None
"""


def seen(number):
    """Return what a process has in the places of two functions, and what it would call them."""
    x = torch.ones(2, requires_grad=True)
    dann.GradientReversal.apply(x, 2.0).sum().backward()
    return {
        "module": adaptation.trainer.reversal_schedule.__module__,
        "value": adaptation.trainer.reversal_schedule(number),
        "gradient": x.grad.tolist(),
        "forward": dann.GradientReversal.__module__,
        "fingerprint": files.fingerprint(adaptation.train, dann.DANN),
    }


def test_every_job_takes_them_along():
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py")}
    places = [name for name, text in texts.items() if "delayed(" in text]
    assert {"runtime.py", "studies.py", "variants.py"} <= {*places}
    assert not [name for name in places if "carrying(" not in texts[name]]


def test_functions_reach_other_processes_and_leave_them_again():
    source = SCHEDULE.format(slope=5, at="scaled(p)")
    source = source.replace("\n\n\ndef", "\n\n\ndef scaled(p):\n    return SLOPE * p\n\n\ndef")
    plain = runtime.run_each(seen, [0.1, 0.2], "numbers")
    with restored():
        check(write(source, "reversal_schedule"))
        check(write(REVERSAL, "GradientReversal"))
        here, there = seen(0.1), runtime.run_each(seen, [0.1, 0.2], "numbers")
    assert here["module"] == here["forward"] == "__main__"
    assert there[0] == here and there[0]["fingerprint"] != plain[0]["fingerprint"]
    assert there[1]["value"] == pytest.approx(math.tanh(1))
    assert there[1]["gradient"] == [-2, -2]
    assert runtime.run_each(seen, [0.1, 0.2], "numbers") == plain


# In a kernel


def run(made, folder, name="3_small.ipynb"):
    """Execute a notebook in a folder; return its failure as text or None, and the executed copy."""
    path = folder / name
    nbformat.write(made, path)
    failure = None
    try:
        execute.execute(path, folder / "executed", execute.Options("quick"), io.StringIO())
    except execute.NotebookFailure as error:
        failure = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    return failure, nbformat.read(folder / "executed" / name, 4)


def test_blanks_stop_the_notebook_at_the_first_check_and_not_before(tmp_path):
    version = student.student_version(notebook("adaptation.reversal_schedule"), "3_small")
    version.cells.insert(2, new_code_cell('print("before")'))
    failure, executed = run(version, tmp_path)
    assert "cell 5 (code cell 4) failed" in failure
    message = "✗ reversal_schedule is still a blank: write its code, run that cell, then this one."
    assert failure.endswith(message) and "Traceback" not in failure
    assert executed.cells[2].outputs[0].text == "before\n"
    assert executed.cells[3].outputs == [], "a blank itself is no error"


def test_student_s_own_functions_run_the_rest_of_a_notebook_and_its_processes(tmp_path):
    made = notebook("adaptation.reversal_schedule, dann.GradientReversal")
    made.cells.append(
        new_code_cell(
            "from dlapps import files, runtime\n\n\ndef seen(p):\n"
            "    import dlapps.adaptation.trainer as trainer\n"
            "    place = trainer.reversal_schedule.__module__, dann.GradientReversal.__module__\n"
            "    code = files.fingerprint(adaptation.train, dann.DANN)\n"
            "    return *place, code, trainer.reversal_schedule(p)\n\n\n"
            "here, there = seen(0.1), runtime.run_each(seen, [0.1, 0.2], 'numbers')\n"
            "assert here == there[0] and here[:2] == ('__main__', '__main__')"
        )
    )
    solutions = {
        "dlapps.adaptation.dann.reversal_schedule": SCHEDULE.format(slope=5, at="SLOPE * p"),
        "dlapps.models.dann.GradientReversal": REVERSAL,
    }
    version = student.fill(student.student_version(made, "3_small"), solutions)
    failure, executed = run(version, tmp_path)
    assert failure is None, failure
    assert executed.cells[3].outputs[0].text.startswith("✓ reversal_schedule")


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Have figures and numbers written to a folder of the test; return the folder."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    monkeypatch.setenv("DLAPPS_FIGURES", str(tmp_path / "figures"))
    return tmp_path


@pytest.mark.slow
@each_path
def test_version_to_fill_in_stops_at_its_first_check(path, quick):
    version = student.student_version(nbformat.read(path, 4), path.stem)
    failure, executed = run(version, quick, path.name)
    first = next(i for i, cell in enumerate(version.cells) if "fills" in cell.metadata)
    assert f"cell {first + 2} " in failure and "is still a blank" in failure
    assert executed.cells[first].execution_count and not executed.cells[first].outputs


@pytest.mark.slow
@each_path
def test_filled_with_the_solutions_it_gives_the_notebook_s_numbers(path, quick):
    made = nbformat.read(path, 4)
    filled = student.fill(student.student_version(made, path.stem))
    numbers = []
    for version in (made, filled):
        failure, executed = run(version, quick, path.name)
        assert failure is None, failure
        numbers.append(json.loads((quick / "figures/quick" / f"{path.stem}.json").read_text()))
    passed = [
        o.text for c in executed.cells for o in c.get("outputs", []) if "✓ " in o.get("text", "")
    ]
    assert len(passed) == len(student.blanks(made))
    lines = grade.compare(*numbers, exact=True)
    assert not [line for line in lines if line.verdict not in ("agrees", "not compared")]
