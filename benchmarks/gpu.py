"""Learn all that is to be known on a machine with a GPU: benchmarks, tests and notebooks.

    python benchmarks/gpu.py [--minutes 10] [--only NAME ...]

NAME is benchmarks, tests, notebooks, or one stage: a benchmark or a notebook by its name. Each is a
process of its own with a log in build/gpu/, one after the other. What the minutes do not suffice
for is stopped and listed as not finished; a notebook that is called again goes on from the
checkpoints of its trainings. At the end stands build/gpu/summary.json. Notebooks run in the full
profile, and their numbers are put beside those of figures/full.

Needs `pip install --editable '.[dev,benchmarks]'`, and the data of the full profile.

Estimates, not measured yet, for 16 cores and an H100 or H200: benchmarks 7 minutes, of which
training takes 3, and tests 2, so that 10 minutes suffice for both; `--only notebooks` 25 minutes,
or three calls of 10.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

import compare
import nbformat
import run
import torch

from dlapps import runtime
from dlapps.files import write_json
from tools import execute, grade

FOLDER = runtime.project_root() / "build" / "gpu"
GROUPS = "benchmarks", "tests", "notebooks"
GRACE = 15  # seconds in which a stage that is stopped may say what it has


@dataclass(frozen=True)
class Stage:
    """A process, and how to learn what failed in it.

    in_log(text of the log) is always asked, in_results() if the process succeeded; both return
    lists of words. `environment` is what is added to this process's.
    """

    name: str
    group: str
    command: tuple
    in_log: Callable = lambda text: []
    in_results: Callable = list
    environment: dict = field(default_factory=dict)


def stages():
    """Return all stages, the last those for which the minutes may be too few."""
    script = str(Path(run.__file__).resolve())
    benchmarks = [
        Stage(
            name,
            "benchmarks",
            (sys.executable, script, "--only", name),
            in_results=lambda name=name: below_target(name),
        )
        for name in run.TITLES
    ]
    pytest = ["-m", "pytest", "-q", "-n", "logical", "--maxprocesses", "8", "--dist", "worksteal"]
    tests = Stage(
        "tests",
        "tests",
        (sys.executable, *pytest, "-m", "not slow and not notebooks"),
        in_log=failed_tests,
        environment={"OMP_NUM_THREADS": "1"},
    )
    *others, growth = benchmarks
    paths = execute.find_notebooks(runtime.project_root() / "notebooks")
    return [*others, tests, growth, *map(_notebook, paths)]


def _notebook(path):
    options = ["--profile", "full", "--notebook", path.stem, "--output", str(FOLDER)]
    return Stage(
        path.stem,
        "notebooks",
        (sys.executable, "-m", "tools.execute", *options),
        in_results=lambda: differing(path.stem),
        environment={"DLAPPS_FIGURES": str(FOLDER / "figures")},
    )


def below_target(name):
    """Return the rows of a benchmark on this machine that do not reach their target."""
    path = compare.folder() / f"{name}.json"
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return [
        f"{row['task']}, beside {row['peer']}: {row['ratio']:.2f}, expected {row['target']:g}"
        for row in (rows if name not in run.ALONE else ())
        if row["target"] is not None and row["ratio"] < row["target"]
    ]


def failed_tests(text):
    """Return the names that pytest's summary lists as failed, or as errors."""
    return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, flags=re.MULTILINE)


def differing(name):
    """Return the numbers of a notebook that differ from figures/full; compare all in a file."""
    obtained = grade.read_results(FOLDER / "figures" / "full", name)
    expected = grade.read_expected("full", name)
    questions = grade.unanswered(nbformat.read(FOLDER / "full" / f"{name}.ipynb", as_version=4))
    path = FOLDER / f"{name}.numbers.txt"
    with path.open("w", encoding="utf-8") as file, redirect_stdout(file):
        if grade.grade(name, expected, obtained, questions):
            return []
    if not obtained:
        return ["it left no numbers"]
    lines = grade.compare(expected.numbers, obtained.numbers, exact=False)
    found = [
        f"{line.key}: {line.obtained}, expected {line.expected} ({line.rule})"
        for line in lines
        if not grade.VERDICTS[line.verdict]
    ]
    return found or [f"figures or answers are missing: {path.name}"]


def run_stage(stage, seconds):
    """Run a stage for so many seconds at most; return what became of it."""
    result = {"stage": stage.name, "status": "not finished", "seconds": 0.0, "failed": []}
    if seconds <= GRACE:
        return result
    path, begin = FOLDER / f"{stage.name}.log", time.monotonic()
    with path.open("w", encoding="utf-8") as log:
        code = _call(stage, log, seconds - GRACE)
    text = path.read_text("utf-8", errors="replace")
    result["seconds"] = round(time.monotonic() - begin, 1)
    result["failed"] = stage.in_log(text)
    if code is not None:
        result["status"] = "failed" if code else "done"
        # What no summary names, the end of the log may: an error that nobody expected.
        last = text.strip().splitlines()[-1:]
        result["failed"] += stage.in_results() if code == 0 else last * (not result["failed"])
    return result


def _call(stage, log, seconds):
    """Return the exit status of a stage, or None if it had to be stopped after `seconds`."""
    process = subprocess.Popen(
        stage.command,
        cwd=runtime.project_root(),
        env={**os.environ, **stage.environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that all that it started can be ended with it
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then still lists what failed
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(arguments=None, known=None):
    """Run the command line; return 0 if all is done and well, 1 if not, 2 without a GPU."""
    known = stages() if known is None else known
    names = [*GROUPS, *(stage.name for stage in known if stage.name not in GROUPS)]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", nargs="+", choices=names, default=GROUPS, metavar="NAME")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("PyTorch finds no GPU on this machine: there is nothing to learn here.")
        return 2
    # Begun in the background, this process ignores interrupts, and so would those that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end = time.monotonic() + 60 * options.minutes
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = []
    for stage in known:
        if stage.name in options.only or stage.group in options.only:
            results.append(run_stage(stage, end - time.monotonic()))
            _show(results[-1])
            write_json(FOLDER / "summary.json", {"machine": compare.machine(), "stages": results})
    left = [result["stage"] for result in results if result["status"] == "not finished"]
    if left:
        print(f"To go on: python benchmarks/gpu.py --only {' '.join(left)}")
    print(f"Logs and summary.json in {FOLDER}")
    return int(any(result["status"] != "done" or result["failed"] for result in results))


def _show(result):
    print(f"{result['stage']}: {result['status']}, {result['seconds']:.0f} s", flush=True)
    for one in result["failed"]:
        print(f"    {one}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
