"""Execute the notebooks anew and compare every number: `python -m tools.grade`.

Results go to build/grade/, so that nothing committed is touched. Expected numbers are those of
figures/full/ and, for the quick profile, of figures/expected/quick/. Trainings that are finished
are taken from build/checkpoints/, as always; without that folder they run again.
"""

import argparse
import json
import math
import os
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass

import nbformat

from dlapps import runtime
from dlapps.files import write_json
from tools import execute


@dataclass(frozen=True)
class Rule:
    """How far a number may be from the expected one where versions or processor differ."""

    text: str
    pattern: str  # searched in "<unit> | <data>"
    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, expected, obtained):
        return abs(obtained - expected) <= max(self.absolute, self.relative * abs(expected))


EXACT = Rule("exact", "")
RULES = (  # the first whose pattern is found counts
    Rule("timing: not compared", r"second|/s\b|ratio of times", absolute=math.inf),
    Rule("count: exact", r"^(parameters|images|iterations) \|"),
    # One image of 7 is 0.14.
    Rule(
        "share of few: ± 0.15",
        r"(share|accuracy).*(of \d classes|\| \d\d? (photographs of|ImageNet))",
        absolute=0.15,
    ),
    Rule(
        "share: ± 0.03",
        r"share|accuracy|probability|area|correlation|coverage",
        absolute=0.03,
    ),
    Rule("other: ± 10 %", "", relative=0.1),
)
TIMING = RULES[0]


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
        subject = f"{entry['unit']} | {entry['data']}"
        rule = next(rule for rule in RULES if re.search(rule.pattern, subject))
        if exact and rule is not TIMING:
            rule = EXACT
        old, new = (_values(record.get(key)) for record in (expected, obtained))
        for i in range(max(len(old), len(new))):
            a, b = (values[i] if i < len(values) else None for values in (old, new))
            name = f"{key}[{i}]" if max(len(old), len(new)) > 1 else key
            if old and new and _subject(expected[key]) != _subject(obtained[key]):
                verdict = "OTHER QUANTITY"
            elif i >= len(new):
                verdict = "MISSING"
            elif a is None:
                verdict = "agrees" if b is None else "extra"
            elif not isinstance(b, int | float) or not math.isfinite(b):
                verdict = "NOT A NUMBER"
            elif rule is TIMING:
                verdict = "not compared"
            else:
                verdict = "agrees" if rule.allows(a, b) else "DIFFERS"
            lines.append(Line(name, a, b, rule.text, verdict))
    return lines


def _values(entry):
    if entry is None:
        return []
    return entry["value"] if isinstance(entry["value"], list) else [entry["value"]]


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
        sorted(path.name for path in figures if path.suffix in (".png", ".gif")),
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
        print("  Other versions or processor than expected: numbers must lie within a range.")
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
    parser.add_argument("--profile", choices=runtime.PROFILES)
    parser.add_argument("--notebook", nargs="+", default=(), metavar="N", help="default: all")
    parser.add_argument(
        "--accept",
        action="store_true",
        help="execute nothing: make what the last run obtained in the quick profile the expected",
    )
    options = parser.parse_args(arguments)
    root = runtime.project_root()
    folder, output = folder or root / "notebooks", root / "build" / "grade"
    try:
        profile = options.profile or runtime.profile()
        paths = execute.find_notebooks(folder, options.notebook)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    results, copies = output / "figures" / profile, output / profile
    if options.accept:
        if profile == "full":
            parser.error("figures/full/ is what full is compared with: make notebooks PROFILE=full")
        return _accept(paths, profile, results, copies)

    for path in paths:
        for old in results.glob(f"{path.stem.split('_')[0]}_*"):
            old.unlink()
    os.environ["DLAPPS_FIGURES"] = str(results.parent)  # for the kernels
    chosen = ["--notebook", *(path.stem for path in paths)]
    done = execute.main(["--profile", profile, "--output", str(output), *chosen], folder)
    if done == 130:
        return done
    agree = [
        grade(
            path.stem,
            read_expected(profile, path.stem),
            read_results(results, path.stem),
            unanswered(nbformat.read(copies / path.name, as_version=4)),
        )
        for path in paths
    ]
    print(
        f"\n{sum(agree)} of {len(paths)} notebooks agree; figures, numbers and copies in {output}"
    )
    return 0 if all(agree) and not done else 1


def _accept(paths, profile, results, copies):
    for path in paths:
        obtained, copy = read_results(results, path.stem), copies / path.name
        if not obtained or failed(nbformat.read(copy, as_version=4)):
            print(f"{path.stem}: no whole run in {results}: make grade NOTEBOOK={path.stem[0]}")
            return 1
        target = runtime.project_root() / "figures" / "expected" / profile / f"{path.stem}.json"
        write_json(target, asdict(obtained))
        print(f"{path.stem}: {len(obtained.numbers)} numbers expected from now on, in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
