"""Write the executed notebooks, README and report as a static site: `python -m tools.site`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

from dlapps import runtime
from tools import execute

PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md")
REPORT = "report/report.pdf"
INDEX = """
```{include} README.md
```

```{toctree}
:hidden:
:caption: Notebooks
:glob:
notebooks/*
```

```{toctree}
:hidden:
:caption: More
CONTRIBUTING
data/README
```
"""


def build(notebooks, output):
    """Write the site with the executed notebooks in the folder `notebooks` to the folder `output`.

    Its front page is README.md; the report is linked there if report/report.pdf exists.
    Raises FileNotFoundError if there is no notebook, RuntimeError if Sphinx fails.
    """
    root = runtime.project_root()
    with tempfile.TemporaryDirectory() as folder:
        source, site = Path(folder, "source"), Path(folder, "site")
        shutil.copytree(root / "site", source)
        shutil.copytree(root / "figures" / "full", source / "figures" / "full")
        report = (REPORT,) if (root / REPORT).exists() else ()
        copies = {root / name: name for name in (*PAGES, *report)}
        copies |= {path: f"notebooks/{path.name}" for path in execute.find_notebooks(notebooks)}
        for path, name in copies.items():
            (source / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, source / name)
        link = f"\n[The report, with all questions and answers (PDF)]({REPORT})\n" if report else ""
        (source / "index.md").write_text(INDEX + link, encoding="utf-8")
        if build_main(["-q", str(source), str(site)]):
            raise RuntimeError(f"Sphinx could not write the site of {notebooks}")
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(site, output, ignore=shutil.ignore_patterns(".doctrees", ".buildinfo"))


def main(arguments=None):
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description=__doc__)
    parser.add_argument("--profile", choices=runtime.PROFILES)
    options = parser.parse_args(arguments)
    build_folder = runtime.project_root() / "build"
    try:
        notebooks = build_folder / (options.profile or runtime.profile())
        build(notebooks, build_folder / "site")
    except (ValueError, FileNotFoundError) as error:
        parser.error(f"{error}: make notebooks executes them")
    print(f"Open {build_folder / 'site' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
