"""The runner of the notebooks, on tiny notebooks made here."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import execute


def write_notebook(path, *sources):
    """Write a notebook of a title and code cells; return its path."""
    cells = [new_markdown_cell("# Title"), *map(new_code_cell, sources)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run three notebooks, the first of which fails, and return (exit code, output, folder)."""
    folder = tmp_path_factory.mktemp("run")
    notebooks = folder / "notebooks"
    write_notebook(
        notebooks / "1_bad.ipynb",
        "value = 0",
        "print('before')\n1 / value  # the culprit",
        "print('after')",
    )
    write_notebook(
        notebooks / "2_settings.ipynb",
        "import os, sys\nfrom pathlib import Path\nprint(sys.executable)\nprint(Path.cwd())",
        "for name in ('PROFILE', 'DATA', 'WEIGHTS'):\n    print(os.environ.get(f'DLAPPS_{name}'))",
    )
    write_notebook(
        notebooks / "3_progress.ipynb",
        "import sys\nfrom tqdm import tqdm\nlist(tqdm(range(3), 'steps', file=sys.stdout))",
        "print('one')\nprint('two')",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DLAPPS_DATA", "somewhere/data")
        patch.setenv("DLAPPS_WEIGHTS", "")
        patch.setattr(sys, "stdout", io.StringIO())
        code = execute.main(["--profile", "full", "--output", "out"], folder=notebooks)
        output = sys.stdout.getvalue()
    return code, output, folder


def cells(folder, name):
    """Return what each code cell of an executed notebook printed."""
    notebook = nbformat.read(folder / "out" / "full" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in code]


def test_failure_names_notebook_cell_source_and_traceback(run):
    code, output, _ = run
    assert code == 1
    assert "1_bad.ipynb: cell 3 (code cell 2) failed" in output
    assert "    1 / value  # the culprit" in output
    assert "ZeroDivisionError: division by zero" in output
    assert "\x1b" not in output, "colours belong to a terminal, not to a log"
    assert output.rstrip().endswith("1 of 3 notebooks failed: 1_bad")


def test_other_notebooks_run_after_a_failure(run):
    _, output, folder = run
    for name in ("2_settings", "3_progress"):
        assert f"{name}: done, full profile" in output
        assert "<html" in (folder / "out" / "full" / f"{name}.html").read_text("utf-8")


def test_failed_notebook_leaves_a_whole_copy_that_ends_at_the_failure(run):
    _, _, folder = run
    assert cells(folder, "1_bad") == ["", "before\n", ""]
    assert "ZeroDivisionError" in (folder / "out" / "full" / "1_bad.html").read_text("utf-8")
    names = {path.stem for path in (folder / "out" / "full").iterdir()}
    assert names == {"1_bad", "2_settings", "3_progress"}, "no temporary file is left"


def test_kernel_is_this_python_in_the_notebooks_folder(run):
    _, _, folder = run
    python, directory = cells(folder, "2_settings")[0].split("\n")[:2]
    assert python == sys.executable
    assert Path(directory) == (folder / "notebooks").resolve()


def test_relative_folders_are_the_callers(run):
    _, _, folder = run
    profile, data, weights = cells(folder, "2_settings")[1].split("\n")[:3]
    assert profile == "full"
    assert Path(data) == (folder / "somewhere" / "data").resolve()
    assert weights == "", "a setting that is empty stays empty"


def test_progress_is_left_at_its_last_state(run):
    _, _, folder = run
    steps, lines = cells(folder, "3_progress")
    assert steps.startswith("steps: 100%") and steps.count("steps") == 1
    assert lines == "one\ntwo\n"


def test_success_and_choice_by_number(tmp_path, capfd):
    for name in ("1_one", "2_two", "3_three"):
        write_notebook(tmp_path / f"{name}.ipynb", "1")
    arguments = [
        "--profile",
        "quick",
        "--notebook",
        "3",
        "1_one",
        "--output",
        str(tmp_path / "out"),
    ]
    assert execute.main(arguments, folder=tmp_path) == 0
    out, err = capfd.readouterr()
    assert err == "", "a run without warnings"
    assert "1_one: done" in out and "3_three: done" in out and "2_two" not in out
    assert "Executed 2 in" in out


def test_unknown_notebook_names_the_choices(tmp_path, capsys):
    write_notebook(tmp_path / "1_one.ipynb")
    with pytest.raises(SystemExit, match="2"):
        execute.main(["--notebook", "7"], folder=tmp_path)
    message = capsys.readouterr().err
    assert "'7'" in message and "1_one" in message


def test_folder_without_notebooks(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook"):
        execute.find_notebooks(tmp_path)


def test_bad_profile_in_the_environment(tmp_path, monkeypatch, capsys):
    write_notebook(tmp_path / "1_one.ipynb")
    monkeypatch.setenv("DLAPPS_PROFILE", "fast")
    with pytest.raises(SystemExit, match="2"):
        execute.main([], folder=tmp_path)
    assert "DLAPPS_PROFILE is 'fast'" in capsys.readouterr().err


def test_bar_shows_what_the_running_cell_prints(tmp_path):
    source = """
        import sys, time
        for step in range(3):
            print(f"\\rsteps:  {step}%|###   | {step}/3", end="")
            sys.stdout.flush()
            time.sleep(0.3)
    """
    path = write_notebook(tmp_path / "1_one.ipynb", textwrap.dedent(source))
    terminal = Terminal()
    execute.execute(path, tmp_path / "out", execute.Options("quick"), stream=terminal)
    shown = terminal.getvalue()
    assert "steps:  1% 1/3" in shown, "the numbers without the inner bar"
    assert "0/1 cells" in shown


def test_a_cell_that_hangs_is_named_at_the_time_limit(tmp_path, capsys):
    write_notebook(tmp_path / "1_one.ipynb", "1", "import time\ntime.sleep(600)  # hangs")
    write_notebook(tmp_path / "2_two.ipynb", "2")
    arguments = ["--profile", "quick", "--output", str(tmp_path / "out"), "--timeout", "2"]
    begin = time.monotonic()
    assert execute.main(arguments, tmp_path) == 1
    assert time.monotonic() - begin < 60
    output = capsys.readouterr().out
    assert "1_one.ipynb: cell 3 (code cell 2) failed" in output and "# hangs" in output
    assert "it took more than 2 seconds" in output
    assert "2_two: done" in output


def test_side_by_side_they_run_at_the_same_time_with_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    meet = """
        import os, time
        from pathlib import Path
        Path("here-{0}").touch()
        while not Path("here-{1}").exists():
            time.sleep(0.05)
        print(os.environ["OMP_NUM_THREADS"], os.environ["LOKY_MAX_CPU_COUNT"])
    """
    names = "1_one", "2_two"
    for name, other in (names, names[::-1]):
        write_notebook(tmp_path / f"{name}.ipynb", textwrap.dedent(meet).format(name, other))
    out = ["--output", str(tmp_path / "out"), "--profile", "full", "--timeout", "60"]
    assert execute.main([*out, "--jobs", "2"], tmp_path) == 0
    for name in names:
        (text,) = cells(tmp_path, name)
        assert text.split()[0] == "1" and int(text.split()[1]) >= 1


def test_a_copy_beside_the_original_is_not_taken_for_it(tmp_path, capsys):
    for name in ("1_one.ipynb", "1_one-Copy1.ipynb", "2_two.ipynb"):
        write_notebook(tmp_path / name, "1")
    with pytest.raises(ValueError, match=r"1_one-Copy1\.ipynb, 1_one\.ipynb"):
        execute.find_notebooks(tmp_path, ["1"])


@pytest.mark.parametrize("argument", ["--jobs", "--timeout"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_numbers_that_are_no_whole_ones_are_refused(argument, value, capsys):
    with pytest.raises(SystemExit):
        execute.main([argument, value])
    assert f"argument {argument}: {value!r}, expected a whole number" in capsys.readouterr().err


def test_signs_that_the_output_cannot_encode_are_replaced(tmp_path):
    source = "print('★ λ')\nraise ValueError('★ λ is wrong')"
    write_notebook(tmp_path / "1_one.ipynb", source)
    program = (
        "import sys; from tools import execute; "
        f"sys.exit(execute.main(['--output', {str(tmp_path / 'out')!r}], {str(tmp_path)!r}))"
    )
    setting = {"PYTHONIOENCODING": "cp1252", "DLAPPS_PROFILE": "quick"}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env={**os.environ, **setting, **path}, capture_output=True)
    output = run.stdout.decode("cp1252")
    assert run.returncode == 1, run.stderr.decode("cp1252")
    assert "is wrong" in output and "Encode" not in output


def test_dead_kernel_is_a_failure_of_its_cell(tmp_path):
    path = write_notebook(tmp_path / "1_one.ipynb", "1", "import os\nos._exit(1)")
    with pytest.raises(execute.NotebookFailure, match=r"cell 3 (?s:.*)_exit(?s:.*)Kernel died"):
        execute.execute(path, tmp_path / "out", execute.Options("quick"), stream=io.StringIO())


def test_kernel_that_does_not_start_is_quoted(tmp_path, monkeypatch):
    argv = [sys.executable, "-c", "raise SystemExit('a broken installation')"]
    broken = KernelSpec(argv=argv, language="python", display_name="broken")
    monkeypatch.setattr(execute.ThisPython, "get_kernel_spec", lambda *_: broken)
    path = write_notebook(tmp_path / "1_one.ipynb", "1")
    with pytest.raises(execute.NotebookFailure, match=r"did not start(?s:.*)broken installation"):
        execute.execute(path, tmp_path / "out", execute.Options("quick"), stream=io.StringIO())


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send on Windows")
@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_interrupt_ends_the_kernel(tmp_path, kind):
    mark = tmp_path / "kernel"
    source = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    write_notebook(tmp_path / "1_one.ipynb", source)
    # A process started in the background inherits that interrupts are ignored.
    program = (
        "import signal, sys; from tools import execute; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.exit(execute.main(['--output', {str(tmp_path / 'out')!r}], {str(tmp_path)!r}))"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: mark.exists() and mark.read_text())
    runner.send_signal(getattr(signal, kind))
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "1_one: interrupted" in out
    assert err == ""
    kernel = int(mark.read_text())
    wait_until(lambda: not is_running(kernel))


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
