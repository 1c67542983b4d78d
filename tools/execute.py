"""Run the notebooks from top to bottom, each in a kernel of its own: `python -m tools.execute`."""

import argparse
import logging
import os
import re
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from tqdm import tqdm

from dlapps import runtime
from dlapps.files import atomic_path


class ThisPython(KernelSpecManager):
    """Knows one kernel, the running interpreter, whatever else is registered on this machine."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(**get_kernel_dict())


class Client(NotebookClient):
    """Runs a notebook's cells without a time limit and passes on what they print.

    `on_line(text)` is called with the last line of everything a cell prints, as it is printed. Of
    a tqdm bar that is the numbers without the bar.
    """

    def __init__(self, notebook, on_line=lambda line: None):
        manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
        super().__init__(notebook, km=manager, timeout=None, record_timing=False)
        self.extra_arguments = ["--log-level=ERROR"]  # it warns that local sockets are plain text
        self.owns_km = True  # so that the kernel ends with the run
        self.on_line = on_line

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            lines = re.split(r"[\r\n]+", strip_ansi(msg["content"]["text"]).strip())
            if lines[-1]:
                self.on_line(re.sub(r"(?<=%)\|.*?\|", "", lines[-1]))
        return super().process_message(msg, cell, cell_index)


class NotebookFailure(RuntimeError):
    """A cell failed: the message has the notebook, the cell's number, its source and traceback."""


def find_notebooks(folder, choices=()):
    """Return the paths of the notebooks in `folder` by the number or name they were chosen by.

    `choices` such as ["3", "1_transfer_learning"]; none means all. Raises ValueError for an unknown
    one, and FileNotFoundError if there is no notebook at all.
    """
    paths = sorted(Path(folder).glob("[0-9]*_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebook such as 1_name.ipynb in {folder}")
    known = {key: path for path in paths for key in (path.stem, path.stem.split("_")[0])}
    for choice in choices:
        if choice not in known:
            names = ", ".join(path.stem for path in paths)
            raise ValueError(f"notebook {choice!r} is unknown, expected a number or name: {names}")
    return [path for path in paths if not choices or path in {known[c] for c in choices}]


def kernel_environment(profile):
    """Return this process's environment with the profile set and the DLAPPS_ folders absolute.

    A kernel runs in the notebook's folder, but a relative path means the caller's.
    """
    folders = {
        name: str(Path(os.environ[name]).expanduser().resolve())
        for name in ("DLAPPS_DATA", "DLAPPS_ARCHIVES", "DLAPPS_WEIGHTS", "DLAPPS_FIGURES")
        if os.environ.get(name)
    }
    return {**os.environ, **folders, "DLAPPS_PROFILE": profile}


def execute(path, output, profile, stream=None):
    """Execute one notebook and write <output>/<its name>.ipynb and .html, both whole or not at all.

    A progress bar on `stream` (standard output) counts the code cells and shows what the running
    one prints. Raises NotebookFailure at the first cell that fails, after the copies, which then
    end at that cell, are written.
    """
    stream = stream or sys.stdout
    notebook = nbformat.read(path, as_version=4)
    code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    failure = None
    with tqdm(
        desc=path.stem,
        total=len(code),
        file=stream,
        leave=False,
        miniters=0,
        mininterval=0.1 if stream.isatty() else 10,  # seconds; a log file needs few lines
        dynamic_ncols=stream.isatty(),
        ncols=None if stream.isatty() else 100,
        bar_format="{desc} {percentage:3.0f}% |{bar:20}| {n}/{total} cells, {elapsed}{postfix}",
    ) as bar:

        def show(line):
            bar.set_postfix_str(line, refresh=False)
            bar.update(0)

        try:
            _execute_cells(notebook, code, path, profile, show, bar.update)
        except NotebookFailure as error:
            failure = error
        write_copies(notebook, output / path.name)
    if failure:
        raise failure


def _execute_cells(notebook, code, path, profile, on_line, on_cell):
    client = Client(notebook, on_line)
    where = f"{path.name}: the kernel did not start"
    # What a kernel writes past the notebook is of interest only if the kernel dies.
    with tempfile.TemporaryFile() as log:
        options = {"cwd": str(path.parent), "env": kernel_environment(profile)}
        try:
            with client.setup_kernel(**options, stdout=log, stderr=log):
                for number, index in enumerate(code, start=1):
                    cell = notebook.cells[index]
                    where = f"{path.name}: cell {index + 1} (code cell {number}) failed\n\n"
                    where += textwrap.indent(cell.source, "    ") + "\n"
                    on_line("")
                    client.execute_cell(cell, index)
                    on_cell()
        except CellExecutionError as error:
            outputs = [output for output in cell.outputs if output.output_type == "error"]
            reason = "\n".join(outputs[-1].traceback) if outputs else str(error)
        except RuntimeError as error:  # the kernel died, or never lived
            log.seek(0)
            reason = f"{error} (out of memory?)\n{log.read().decode(errors='replace')}".rstrip()
        else:
            return
    raise NotebookFailure(f"{where}\n{reason}")


def write_copies(notebook, path):
    """Write an executed notebook to `path` and, as HTML, beside it.

    Progress that redrew its line is left at its last state.
    """
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)
    with atomic_path(path.with_suffix(".html")) as temporary:
        temporary.write_text(html, encoding="utf-8")


def main(arguments=None, folder=None):
    """Run the command line; return 0, or 1 if a notebook failed, or 130 after an interrupt."""
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    parser.add_argument("--profile", choices=runtime.PROFILES)
    parser.add_argument("--notebook", nargs="+", default=(), metavar="N", help="default: all")
    parser.add_argument("--output", type=Path, default=runtime.project_root() / "build")
    options = parser.parse_args(arguments)
    try:
        profile = options.profile or runtime.profile()
        paths = find_notebooks(folder or runtime.project_root() / "notebooks", options.notebook)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))

    output, failed, start = options.output / profile, [], time.monotonic()
    for path in paths:
        begin, outcome = time.monotonic(), "done"
        try:
            execute(path, output, profile)
        except KeyboardInterrupt:
            # The event loop would report the cell that it was waiting for as a forgotten task.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            print(f"{path.stem}: interrupted")
            return 130
        except NotebookFailure as failure:
            failed.append(path.stem)
            outcome = "FAILED"
            print(failure if sys.stdout.isatty() else strip_ansi(str(failure)))
        seconds = time.monotonic() - begin
        print(f"{path.stem}: {outcome}, {profile} profile, {seconds:.0f} s", flush=True)
    if failed:
        print(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}")
        return 1
    seconds = time.monotonic() - start
    print(f"Executed {len(paths)} in {seconds:.0f} s{_peak_memory()}; copies and HTML in {output}")
    return 0


def _peak_memory():
    """Say how much memory the largest of the ended kernels took, where that is known."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return ""
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    kilobytes /= 1024 if sys.platform == "darwin" else 1
    return f" with at most {kilobytes / 2**20:.1f} GiB of memory"


if __name__ == "__main__":
    sys.exit(main())
