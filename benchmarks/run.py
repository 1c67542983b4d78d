"""Run the benchmarks and write benchmarks/results/*.json and benchmarks/RESULTS.md.

    python benchmarks/run.py [--only NAME ...]

Needs the peers: `pip install --editable '.[benchmarks]'`. DLAPPS_PROFILE chooses the data sets and
their sizes as in the notebooks.
"""

import argparse
import importlib
import json
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES))
    for name in parser.parse_args().only:
        runtime.seed_everything(0)
        module = importlib.import_module(name)
        with compare.peer_of(name) if hasattr(module, "compare") else nullcontext():
            compare.save(name, module.rows())
    write_page()


def write_page():
    """Write RESULTS.md from all results that are there."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`. Each row does the same work twice, in turns: by this package "
        "and, in a second process that waits meanwhile, by a peer. The number in bold is the "
        "median of the peer's time divided by ours.",
    ]
    for name, title in TITLES.items():
        path = compare.FOLDER / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        module = importlib.import_module(name)
        said = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
        table = getattr(module, "table", compare.table)
        parts += [f"## {title}", f"{said}.", table(result["rows"])]
    with atomic_path(compare.FOLDER.parent / "RESULTS.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
