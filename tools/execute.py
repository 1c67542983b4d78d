"""Run the notebooks from top to bottom, each in a kernel of its own: `python -m tools.execute`."""

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
import psutil
import torch
from ipykernel.kernelspec import get_kernel_dict
from joblib import cpu_count
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
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


@dataclass(frozen=True)
class Options:
    """How notebooks are executed.

    profile: "quick" or "full"; timeout: the seconds that a cell may take, None for any time;
    before: code that the kernel runs before the first cell; settings: environment variables that
    differ from this process's.
    """

    profile: str
    timeout: int | None = None
    before: str = ""
    settings: dict = field(default_factory=dict)


class Client(NotebookClient):
    """Runs a notebook's cells and passes on what they print.

    `on_line(text)` is called with the last line of everything a cell prints, as it is printed. Of
    a tqdm bar that is the numbers without the bar.
    """

    def __init__(self, notebook, options, on_line=lambda line: None):
        manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
        super().__init__(notebook, km=manager, timeout=options.timeout, record_timing=False)
        self.extra_arguments = ["--log-level=ERROR"]  # it warns that local sockets are plain text
        if options.before:
            self.extra_arguments.append(f"--IPKernelApp.exec_lines={options.before}")
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
    one and for two notebooks of one number, FileNotFoundError if there is no notebook at all.
    """
    paths = sorted(Path(folder).glob("[0-9]*_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebook such as 1_name.ipynb in {folder}")
    numbers = [path.stem.split("_")[0] for path in paths]
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        both = ", ".join(path.name for path in paths if path.stem.split("_")[0] in twice)
        raise ValueError(f"two notebooks have one number: {both}. Move the copy elsewhere.")
    known = {key: path for path in paths for key in (path.stem, path.stem.split("_")[0])}
    for choice in choices:
        if choice not in known:
            names = ", ".join(path.stem for path in paths)
            raise ValueError(f"notebook {choice!r} is unknown, expected a number or name: {names}")
    return [path for path in paths if not choices or path in {known[c] for c in choices}]


def kernel_environment(options):
    """Return this process's environment with the settings and the DLAPPS_ folders absolute.

    A kernel runs in the notebook's folder, but a relative path means the caller's.
    """
    settings = {**os.environ, **options.settings}
    folders = {
        name: str(Path(settings[name]).expanduser().resolve())
        for name in runtime.FOLDERS
        if settings.get(name)
    }
    return {**settings, **folders, "DLAPPS_PROFILE": options.profile}


def execute(path, output, options, stream=None):
    """Execute one notebook, see `execute_async`."""
    asyncio.run(execute_async(path, output, options, stream))


async def execute_async(path, output, options, stream=None, position=0):
    """Execute one notebook and write <output>/<its name>.ipynb and .html, both whole or not at all.

    A progress bar on `stream` (standard output), in its line `position`, counts the code cells and
    shows what the running one prints. Raises NotebookFailure at the first cell that fails or takes
    too long, after the copies, which then end at that cell, are written.
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
        position=position,
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
            await _execute_cells(notebook, code, path, options, show, bar.update)
        except NotebookFailure as error:
            failure = error
        write_copies(notebook, output / path.name)
    if failure:
        raise failure


async def _execute_cells(notebook, code, path, options, on_line, on_cell):
    client = Client(notebook, options, on_line)
    where = f"{path.name}: the kernel did not start"
    # What a kernel writes past the notebook is of interest only if the kernel dies.
    with tempfile.TemporaryFile() as log:
        start = {"cwd": str(path.parent), "env": kernel_environment(options)}
        try:
            async with client.async_setup_kernel(**start, stdout=log, stderr=log):
                _cancel_on_interrupt()
                for number, index in enumerate(code, start=1):
                    cell = notebook.cells[index]
                    where = f"{path.name}: cell {index + 1} (code cell {number}) failed\n\n"
                    where += textwrap.indent(cell.source, "    ") + "\n"
                    on_line("")
                    await client.async_execute_cell(cell, index)
                    on_cell()
        except CellExecutionError as error:
            outputs = [output for output in cell.outputs if output.output_type == "error"]
            reason = "\n".join(outputs[-1].traceback) if outputs else str(error)
        except CellTimeoutError:
            reason = f"it took more than {options.timeout} seconds, the limit that --timeout sets"
        except RuntimeError as error:  # the kernel died, or never lived
            log.seek(0)
            reason = f"{error} (out of memory?)\n{log.read().decode(errors='replace')}".rstrip()
        else:
            return
    raise NotebookFailure(f"{where}\n{reason}")


def _cancel_on_interrupt():
    """Let Ctrl-C, or a request to end, end all notebooks.

    nbclient's own handlers end the last kernel that started, and fail over its remains.
    """
    loop = asyncio.get_running_loop()
    with suppress(RuntimeError):  # on Windows, or in another thread
        for kind in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(kind, lambda: [t.cancel() for t in asyncio.all_tasks()])


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


def add_arguments(parser):
    """Add to a parser the arguments that say which notebooks are executed, and how."""
    parser.add_argument("--profile", choices=runtime.PROFILES)
    parser.add_argument("--notebook", nargs="+", default=(), metavar="N", help="default: all")
    parser.add_argument(
        "--jobs",
        type=_positive,
        help="how many notebooks run side by side, each with one thread; "
        "default: one per core in the quick profile, else 1, with all cores",
    )
    parser.add_argument(
        "--timeout", type=_positive, metavar="SECONDS", help="what a cell may take; default: any"
    )


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 1 on")
    return int(text)


def chosen(parser, arguments, folder):
    """Return (the parsed arguments, with the profile in force; the paths of the notebooks)."""
    parsed = parser.parse_args(arguments)
    try:
        parsed.profile = parsed.profile or runtime.profile()
        paths = find_notebooks(folder or runtime.project_root() / "notebooks", parsed.notebook)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    parsed.jobs = min(len(paths), parsed.jobs or _jobs(parsed.profile))
    return parsed, paths


def _jobs(profile):
    return cpu_count() if profile == "quick" and not torch.cuda.is_available() else 1


def execute_all(paths, output, options, jobs=1):
    """Execute notebooks, `jobs` at a time; say what became of each; return the failed ones' names.

    Side by side each has one thread, and a share of the cores for work that it passes on to other
    processes. Raises KeyboardInterrupt after the kernels have ended.
    """
    if jobs > 1:
        share = {"OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": str(max(1, cpu_count() // jobs))}
        own = {name: os.environ[name] for name in share if name in os.environ}
        options = replace(options, settings={**share, **own, **options.settings})
    try:
        return asyncio.run(_execute_all(paths, output, options, jobs))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _execute_all(paths, output, options, jobs):
    positions = asyncio.Queue()  # lines for bars that are free: as many as may run
    for position in range(jobs):
        positions.put_nowait(position)

    async def run(path):
        position = await positions.get()
        begin, outcome = time.monotonic(), "done"
        try:
            await execute_async(path, output, options, position=position)
        except NotebookFailure as failure:
            outcome = "FAILED"
            say(failure if sys.stdout.isatty() else strip_ansi(str(failure)))
        seconds = time.monotonic() - begin
        say(f"{path.stem}: {outcome}, {options.profile} profile, {seconds:.0f} s")
        positions.put_nowait(position)
        return path.stem if outcome == "FAILED" else None

    outcomes = await asyncio.gather(*map(run, paths))
    return [name for name in outcomes if name]


def say(text):
    """Print a text above the bars; what the terminal or file cannot encode is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    tqdm.write(str(text).encode(encoding, "replace").decode(encoding), file=sys.stdout)
    sys.stdout.flush()


class Memory:
    """Measures how much memory all processes below this one hold together, at most."""

    def __init__(self, interval=0.5):
        self.interval, self.most, self.over = interval, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _watch(self):
        while not self.over.wait(self.interval):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    total += process.memory_info().rss
            self.most = max(self.most, total)

    @property
    def gibibytes(self):
        return self.most / 2**30


def main(arguments=None, folder=None):
    """Run the command line; return 0, or 1 if a notebook failed, or 130 after an interrupt."""
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--output", type=Path, default=runtime.project_root() / "build")
    parsed, paths = chosen(parser, arguments, folder)
    output, start = parsed.output / parsed.profile, time.monotonic()
    options = Options(parsed.profile, parsed.timeout)
    try:
        with Memory() as memory:
            failed = execute_all(paths, output, options, parsed.jobs)
    except KeyboardInterrupt:
        say(f"{', '.join(path.stem for path in paths)}: interrupted")
        return 130
    if failed:
        say(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}")
        return 1
    seconds = time.monotonic() - start
    say(
        f"Executed {len(paths)} in {seconds:.0f} s with at most {memory.gibibytes:.1f} GiB of "
        f"memory; copies and HTML in {output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
