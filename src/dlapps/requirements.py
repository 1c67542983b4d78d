"""Install what a machine lacks and leave the rest as it is. Runs before anything is installed."""

import importlib
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def install_missing(file):
    """Install those requirements of `file` that are missing or too old, and print one line.

    Whatever is already there and new enough keeps its version, so that nothing changes under a
    kernel that runs, least of all Colab's own torch and NumPy. Where nothing is missing, pip is not
    called. Raises RuntimeError, with pip's own words, if pip fails.
    """
    lines = (line.partition("#")[0].strip() for line in Path(file).read_text("utf-8").splitlines())
    missing, kept = [], []
    for requirement in map(Requirement, filter(None, lines)):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = _installed_version(requirement.name)
        if version and requirement.specifier.contains(version, prereleases=True):
            kept.append(f"{requirement.name}=={version}")
        else:
            missing.append(str(requirement))
    if not missing:
        print("Requirements: all there.")
        return
    print(f"Requirements: installing {', '.join(missing)} ...")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(kept), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input"]
        pip += ["--disable-pip-version-check", "--constraint", str(constraints), *missing]
        done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install {', '.join(missing)}:\n{done.stderr.strip()}")
    importlib.invalidate_caches()


def _installed_version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
