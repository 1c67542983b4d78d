"""Execute the notebooks anew and compare every number: `python -m tools.grade`.

Results, checkpoints too, go to build/grade/, which is emptied first: nothing committed is touched,
and no finished training is read. Expected numbers are those of figures/full/ and, for the quick
profile, of figures/expected/quick/. With the same versions on the same processor they must be the
same to the bit. Elsewhere each may be off by as much as it was seen to move when it was recorded:
`--record` executes the notebooks several times, with weights that differ in the seventh digit and
with other instructions and threads, and keeps the largest difference as the number's spread.
"""

import argparse
import json
import math
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat

from dlapps import runtime
from dlapps.artifacts import CLAIM
from dlapps.files import write_json
from tools import execute, perturbation

MARGIN = 2  # times the largest of a few differences: the next one may be larger
VARIES = 0.5  # a spread of so much of the number's size says nothing any more
# How the expected numbers are repeated: environment variables of each repetition.
REPETITIONS = (
    *({perturbation.SEED: str(seed)} for seed in (1, 2, 3)),
    {perturbation.SEED: "4", "OMP_NUM_THREADS": "2"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
)


@dataclass(frozen=True)
class Rule:
    """How far a number may be from the expected one: `within`, inf where it is not compared."""

    text: str
    within: float = 0.0


EXACT = Rule("exact")
TIMING = Rule("timing", math.inf)
CHAOTIC = Rule("varies by itself", math.inf)
# Smaller differences cannot be told from none: one image of a few, a rounded number.
FLOORS = {  # a pattern in "<unit> | <data>": the least that a number may be off
    r"(share|accuracy).*(of \d classes|\| \d\d? (photographs of|ImageNet))": 0.15,
    r"share|accuracy|probability|area|correlation|coverage": 0.005,
}
LEAST = 0.01  # of any other number, relative


def rule_of(entry, value, spread, exact):
    """Return the Rule for a number of an entry: `spread` as recorded, or None if that was not."""
    if re.search(r"second|/s\b|ratio of times", entry["unit"]):
        return TIMING
    if (
        exact
        or entry["unit"] == CLAIM
        or re.match(r"(parameters|images|iterations)$", entry["unit"])
    ):
        return EXACT
    subject = f"{entry['unit']} | {entry['data']}"
    floor = next((f for p, f in FLOORS.items() if re.search(p, subject)), LEAST * abs(value))
    if spread is None:
        return Rule("not measured: ± 10 %", max(floor, 0.1 * abs(value)))
    if spread > max(VARIES * abs(value), floor):
        return CHAOTIC
    within = max(floor, MARGIN * spread)
    return Rule(f"± {within:.2g}", within)


@dataclass
class Results:
    """What a notebook left: its numbers, what made them, the names of its figures."""

    numbers: dict
    versions: dict
    figures: list


@dataclass
class Line:
    """One number, expected beside obtained; `verdict` is a key of VERDICTS."""

    key: str
    expected: float | None
    obtained: float | None
    rule: str
    verdict: str


VERDICTS = {  # verdict: whether it is an agreement
    "agrees": True,
    "not compared": True,
    "extra": True,
    "DIFFERS": False,
    "MISSING": False,
    "NOT A NUMBER": False,
    "OTHER QUANTITY": False,
}


def compare(expected, obtained, exact):
    """Return a Line for each number of two records, those of lists one by one.

    exact: whether both were made with the same versions on the same processor. Numbers that were
    not available (None) in the expected record are extra, and so are new keys.
    """
    lines = []
    for key in sorted({*expected, *obtained}):
        entry = expected.get(key) or obtained[key]
        old, new = (_values(record.get(key)) for record in (expected, obtained))
        spreads = _values(entry, "spread")
        for i in range(max(len(old), len(new))):
            a, b, spread = (v[i] if i < len(v) else None for v in (old, new, spreads))
            name = f"{key}[{i}]" if max(len(old), len(new)) > 1 else key
            rule = rule_of(entry, a or 0.0, spread, exact)
            if old and new and _subject(expected[key]) != _subject(obtained[key]):
                verdict = "OTHER QUANTITY"
            elif i >= len(new):
                verdict = "MISSING"
            elif a is None:
                verdict = "agrees" if b is None else "extra"
            elif not isinstance(b, int | float) or not math.isfinite(b):
                verdict = "NOT A NUMBER"
            elif rule.within == math.inf:
                verdict = "not compared"
            else:
                verdict = "agrees" if abs(a - b) <= rule.within else "DIFFERS"
            lines.append(Line(name, a, b, rule.text, verdict))
    return lines


def spreads(expected, repetitions):
    """Return `expected` with "spread" in each entry: how far its numbers moved in any repetition.

    A number that a repetition lacks, or that is None there, moved without a limit.
    """
    result = {}
    for key, entry in expected.items():
        values = _values(entry)
        others = [_values(repetition.get(key)) for repetition in repetitions]
        moved = [
            max((_distance(v, o[i] if i < len(o) else None) for o in others), default=0.0)
            for i, v in enumerate(values)
        ]
        moved = [min(m, sys.float_info.max) for m in moved]  # JSON knows no infinity
        result[key] = entry | {"spread": moved if isinstance(entry["value"], list) else moved[0]}
    return result


def _distance(a, b):
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(a - b)


def _values(entry, name="value"):
    if entry is None or name not in entry:
        return []
    return entry[name] if isinstance(entry[name], list) else [entry[name]]


def _subject(entry):
    # Not the model: it may name the choice that a notebook made by validation.
    return entry["unit"], entry["data"], entry["seed"]


def unanswered(notebook):
    """Return the headings of an executed notebook's questions that have no answer.

    A question is a heading such as "### Question 3 · Why?" or "### Questions 7 and 8". Its answer
    is what `answer(...)` displayed, or Markdown that begins with "**Answer.**", before the next
    question, or under another heading that names its number.
    """
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        texts += [out.get("data", {}).get("text/markdown", "") for out in cell.get("outputs", [])]
    question = r"^(#+ Questions? (?:\d+(?:, | and )?)+.*)$"
    _, *parts = re.split(question, "\n".join(texts), flags=re.MULTILINE)
    headings, answered = {}, set()
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        numbers = [
            int(n) for n in re.findall(r"\d+", re.match(r"#+ Questions? [\d, and]+", heading)[0])
        ]
        for number in numbers:
            headings.setdefault(number, heading.lstrip("# "))
        if re.search(r"^\*\*Answer\.\*\*.*\w", text, flags=re.MULTILINE):
            answered.update(numbers)
    return [heading for number, heading in headings.items() if number not in answered]


def failed(notebook):
    """Say whether a cell of an executed notebook failed."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return any(output.output_type == "error" for output in outputs)


def read_results(folder, name):
    """Return the Results of a notebook in a folder such as figures/full, or None."""
    numbers, versions = folder / f"{name}.json", folder / f"{name}.versions.json"
    if not numbers.exists():
        return None
    figures = folder.glob(f"{name.split('_')[0]}_*")
    return Results(
        json.loads(numbers.read_text("utf-8")),
        json.loads(versions.read_text("utf-8")) if versions.exists() else {},
        sorted(path.name for path in figures if path.suffix in (".svg", ".gif")),
    )


def read_expected(profile, name):
    """Return the committed Results of a notebook, or None."""
    folder = runtime.project_root() / "figures"
    if profile == "full":
        return read_results(folder / "full", name)
    path = folder / "expected" / profile / f"{name}.json"
    return Results(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def grade(name, expected, obtained, questions):
    """Print the comparison of a notebook and return whether all agrees.

    questions: the headings of those without an answer.
    """
    print(f"\n{name}")
    if not expected:
        print("  There are no expected numbers. If this run is right, record it: make expected")
        return False
    if not obtained:
        print("  It left no numbers.")
        return False
    other = [
        f"{key} {expected.versions.get(key)}, here {value}"
        for key, value in obtained.versions.items()
        if expected.versions.get(key) != value
    ]
    if not expected.versions:
        other = ["it is not recorded what the expected numbers were made with"]
    exact = not other and not obtained.versions["GPU"]
    lines = compare(expected.numbers, obtained.numbers, exact)
    if exact:
        print("  Same versions and processor as expected: numbers must be the same to the bit.")
    else:
        print("  Other versions or processor than expected: numbers must lie within their spread.")
        for difference in other:
            print(f"    {difference}")
    width = max((len(line.key) for line in lines), default=0)
    print(f"  {'verdict':14} {'number':{width}} {'expected':>12} {'obtained':>12}  tolerance")
    for line in lines:
        digits = ".17g" if line.verdict == "DIFFERS" and exact else ".6g"
        a, b = (_shown(value, digits) for value in (line.expected, line.obtained))
        print(f"  {line.verdict:14} {line.key:{width}} {a:>12} {b:>12}  {line.rule}")
    counts = Counter(line.verdict for line in lines)
    print(
        "  " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    )
    missing = sorted({*expected.figures} - {*obtained.figures})
    print(f"  Figures: {len(obtained.figures)}; missing: {', '.join(missing) or 'none'}")
    print(f"  Questions without an answer: {'; '.join(questions) or 'none'}")
    return not missing and not questions and all(VERDICTS[line.verdict] for line in lines)


def _shown(value, digits):
    return format(value, digits) if isinstance(value, int | float) else "none"


def main(arguments=None, folder=None):
    """Run the command line; return 0 if all agrees, 1 if not, 130 after an interrupt."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.grade", description=__doc__.partition("\n")[0]
    )
    execute.add_arguments(parser)
    parser.add_argument(
        "--record",
        action="store_true",
        help="execute several times; make the numbers and their spreads the expected ones of quick",
    )
    parsed, paths = execute.chosen(parser, arguments, folder)
    if parsed.record and parsed.profile == "full":
        parser.error("figures/full/ is what full is compared with: make notebooks PROFILE=full")
    try:
        return _record(paths, parsed) if parsed.record else _grade(paths, parsed)
    except KeyboardInterrupt:
        execute.say("Interrupted.")
        return 130


def _grade(paths, parsed):
    failed, results, copies = _execute(paths, parsed)
    agree = [
        grade(
            path.stem,
            read_expected(parsed.profile, path.stem),
            read_results(results, path.stem),
            unanswered(nbformat.read(copies / path.name, as_version=4)),
        )
        for path in paths
    ]
    print(
        f"\n{sum(agree)} of {len(paths)} notebooks agree; figures, numbers and copies in "
        f"{copies.parent}"
    )
    return 0 if all(agree) and not failed else 1


def _execute(paths, parsed, name="", settings=()):
    """Execute into an empty build/grade/<name>; return (the failed, folders of results, copies)."""
    output = runtime.project_root() / "build" / "grade" / name
    for part in ("figures", "checkpoints", parsed.profile):
        shutil.rmtree(output / part, ignore_errors=True)
    settings = dict(settings) | {
        "DLAPPS_FIGURES": str(output / "figures"),
        "DLAPPS_CHECKPOINTS": str(output / "checkpoints"),
    }
    before = ""
    if perturbation.SEED in settings:
        before = "from tools import perturbation; perturbation.install()"
        paths_of_python = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths_of_python))
    options = execute.Options(parsed.profile, parsed.timeout, before, settings)
    copies = output / parsed.profile
    failed = execute.execute_all(paths, copies, options, parsed.jobs)
    return failed, output / "figures" / parsed.profile, copies


def _record(paths, parsed):
    """Execute as it is and as REPETITIONS say; write numbers and spreads if nothing failed."""
    failed, results, _ = _execute(paths, parsed)
    repeated = []
    for number, settings in enumerate(REPETITIONS, start=1):
        if failed:
            break
        words = ", ".join(f"{name} = {value}" for name, value in settings.items())
        print(f"Repetition {number} of {len(REPETITIONS)}: {words}", flush=True)
        failed, folder, _ = _execute(paths, parsed, f"repetition-{number}", settings)
        repeated.append(folder)
    if failed:
        print(f"Nothing is recorded: {', '.join(failed)} failed.")
        return 1
    for path in paths:
        obtained = read_results(results, path.stem)
        others = [read_results(folder, path.stem).numbers for folder in repeated]
        obtained.numbers = spreads(obtained.numbers, others)
        target = runtime.project_root() / "figures/expected" / parsed.profile / f"{path.stem}.json"
        write_json(target, asdict(obtained))
        print(f"{path.stem}: {len(obtained.numbers)} numbers expected from now on, in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
