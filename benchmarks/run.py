"""Run the benchmarks and write their results and benchmarks/RESULTS.md.

    python benchmarks/run.py [--only NAME ...]

Needs the peers: `pip install --editable '.[benchmarks]'`. DLAPPS_PROFILE chooses the data sets and
their sizes as in the notebooks. Results are benchmarks/results/*.json, those of a GPU
benchmarks/results/gpu/*.json.
"""

import argparse
import importlib
import json
from collections import Counter
from contextlib import nullcontext

import compare

from dlapps import runtime
from dlapps.files import atomic_path

TITLES = {
    "extraction": "Features",
    "maps": "Saliency maps",
    "attacks": "Attacks",
    "images_of_classes": "Class images",
    "training": "Training",
    "limits": "The machine's limit",
    "growth": "Growth",
}
ALONE = "limits", "growth"  # which have no peers, and a table for each machine

INTRODUCTION = (
    "Written by `make bench`. Each row does the same work twice, in turns: by this package and, in "
    "a second process that waits meanwhile, by a peer. The number in bold is the median of the "
    "peer's time divided by ours, followed by the lowest, the highest and what is aimed at. The "
    "seconds are ours. A GPU is given more work where a training has to prepare its steps."
)
NOT_RECORDED = (
    "To record what is not recorded here: `python benchmarks/gpu.py --only benchmarks` on a "
    "machine with a GPU."
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES))
    for name in parser.parse_args().only:
        runtime.seed_everything(0)
        module = importlib.import_module(name)
        with nullcontext() if name in ALONE else compare.peer_of(name):
            compare.save(name, module.rows())
    write_page()


def write_page():
    """Write RESULTS.md from all results that are there, of both machines."""
    recorded = {machine: _read(machine) for machine in compare.MACHINES}
    titles = [name for name in TITLES if any(name in found for found in recorded.values())]
    said = {machine: _machines(found) for machine, found in recorded.items()}
    top = [f"- {machine}: {next(iter(said[machine]), 'not recorded')}" for machine in said]
    parts = ["# Benchmarks", INTRODUCTION, "\n".join(top)]
    if any(name not in recorded["GPU"] for name in titles):
        parts.append(NOT_RECORDED)
    for name in titles:
        found = {machine: of[name] for machine, of in recorded.items() if name in of}
        parts.append(f"## {TITLES[name]}")
        for machine, result in found.items():
            if _said(result) != next(iter(said[machine])):
                parts.append(f"{machine}: {_said(result)}")
        parts += _tables(name, {machine: result["rows"] for machine, result in found.items()})
    with atomic_path(compare.FOLDER.parent / "RESULTS.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _read(machine):
    """Return {name of TITLES: what is recorded} of a machine."""
    paths = {name: compare.folder(machine) / f"{name}.json" for name in TITLES}
    return {
        name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()
    }


def _said(result):
    machine = result["machine"]
    rest = f"threads {machine['threads']}, torch {machine['torch']}, profile {machine['profile']}"
    return f"{machine['device']}, {rest}."


def _machines(found):
    """Return what results say of the machine that they are from, the most frequent first."""
    return [text for text, _ in Counter(map(_said, found.values())).most_common()]


def _tables(name, rows):
    """Return the paragraphs of a benchmark, from its rows on each machine that has some."""
    if name not in ALONE:
        return [compare.table(rows)]
    table = importlib.import_module(name).table
    parts = []
    for machine in compare.MACHINES:
        parts.append(f"On the {machine}:" + ("" if machine in rows else " not recorded."))
        parts += [table(rows[machine])] if machine in rows else []
    return parts


if __name__ == "__main__":
    main()
