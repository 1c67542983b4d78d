"""Typeset the report with a profile's figures and numbers: `python -m tools.report`."""

import argparse
import json
from pathlib import Path

import matplotlib
import typst

from dlapps import runtime
from dlapps.files import atomic_path


def typeset(profile):
    """Write report/report.pdf from report/report.typ and figures/<profile>/; return its path.

    What is missing in figures/<profile>/ says so in the report, with the command that computes it.
    """
    root = runtime.project_root()
    present = [path.name for path in (root / "figures" / profile).glob("*.*")]
    pdf = root / "report" / "report.pdf"
    with atomic_path(pdf) as temporary:
        typst.compile(
            root / "report" / "report.typ",
            output=temporary,
            root=root,
            # Fonts that look the same everywhere: Matplotlib's, of the figures, and typst's own.
            ignore_system_fonts=True,
            font_paths=[Path(matplotlib.get_data_path(), "fonts", "ttf")],
            sys_inputs={"profile": profile, "files": json.dumps(sorted(present))},
        )
    return pdf


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.report", description=__doc__)
    parser.add_argument("--profile", choices=runtime.PROFILES)
    profile = parser.parse_args(arguments).profile or runtime.profile()
    pdf = typeset(profile)
    if not list((runtime.project_root() / "figures" / profile).glob("*.json")):
        print(f"figures/{profile} has no numbers: first make notebooks PROFILE={profile}")
    print(f"{pdf}: {profile} profile")


if __name__ == "__main__":
    main()
