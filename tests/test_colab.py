"""The set-up cell: the same in every notebook, and at work where the notebook is alone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import numpy
import pytest
import torch
import torchvision
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETTING = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["dlapps"]
PLACE = f"{SETTING['repository']}@{SETTING['revision']}"
VERSIONS = (
    "import torch, torchvision, numpy, dlapps\n"
    "print(torch.__version__, torchvision.__version__, numpy.__version__, dlapps.__file__)"
)


def set_up_cell(path=NOTEBOOKS[0], place=PLACE):
    """Return the set-up cell of a notebook, with another address and revision to install from."""
    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if cell.cell_type == "code")
    assert source.count(f"git+{PLACE}\n") == 1
    return source.replace(PLACE, place)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cell_is_short_and_differs_in_the_notebooks_name_only(path):
    source = set_up_cell(path)
    assert len(source.splitlines()) <= 12
    assert source.startswith("# @title")
    assert '\nKEEP_ON_DRIVE = False  # @param {type: "boolean"}\n' in source
    assert source.endswith(f'runtime.start("{path.stem}", KEEP_ON_DRIVE)')
    assert source.replace(path.stem, NOTEBOOKS[0].stem) == set_up_cell()


def clean_environment():
    """Return the environment without what would make dlapps importable or redirect git or pip."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "GIT_", "DLAPPS_", "PIP_")
    return {k: v for k, v in os.environ.items() if not k.startswith(hidden)}


def git(*arguments, folder):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    command = ["git", *identity, "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Return the address of a repository that is this one on `main`, and another one elsewhere.

    Files that git would ignore are not in it.
    """
    folder = tmp_path_factory.mktemp("origin")
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    for name in ("requirements.txt", "pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    git("init", "--quiet", "--initial-branch=main", folder=folder)
    git("add", ".", folder=folder)
    git("commit", "--quiet", "-m", "What the notebook is made for", folder=folder)
    git("checkout", "--quiet", "-b", "later", folder=folder)
    git("rm", "--quiet", "-r", "src", folder=folder)
    git("commit", "--quiet", "-m", "Something else", folder=folder)
    return folder.as_uri()


@pytest.fixture
def fresh_python(tmp_path_factory):
    """Return a new environment's Python that has PyTorch and the rest, like Colab's, not dlapps.

    As on Colab, `google.colab` is imported before the first cell.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    show = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    shown = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True)
    packages, others = Path(shown.stdout.strip()), folder / "others"
    colab = packages / "google" / "colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").touch()
    others.mkdir()
    for found in {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}:
        for path in Path(found).iterdir():
            if "dlapps" not in path.name and path.suffix != ".pth":
                (others / path.name).symlink_to(path)
    (packages / "like_colab.pth").write_text(f"{others}\nimport google.colab")
    return python


def run_cells(python, folder, *sources, **settings):
    """Run cells in a kernel of `python` in `folder`; return what each of them printed.

    pip takes nothing from an index there: what it must not touch, it cannot replace.
    """

    class Fresh(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            argv = make_ipkernel_cmd(executable=str(python))
            return KernelSpec(argv=argv, language="python", display_name=kernel_name)

    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, km=AsyncKernelManager(kernel_spec_manager=Fresh()))
    client.extra_arguments = ["--log-level=ERROR"]
    client.owns_km = True
    # For pip, 0 is "no": it builds with the setuptools that is there.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    client.execute(cwd=str(folder), env={**clean_environment(), **offline, **settings})
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in notebook.cells]


def installed_folder(python):
    return python.parents[1] / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"


def test_alone_it_installs_the_revision_and_changes_no_version(fresh_python, origin, tmp_path):
    (tmp_path / "dlapps").mkdir()  # a folder of that name is importable, but is not the package
    before = sorted(p.name for p in installed_folder(fresh_python).iterdir())
    set_up = set_up_cell(place=f"{origin}@main")
    first, versions, again = run_cells(fresh_python, tmp_path, set_up, VERSIONS, set_up)

    *found, file = versions.split()
    assert found == [torch.__version__, torchvision.__version__, numpy.__version__]
    packages = installed_folder(fresh_python)
    assert Path(file) == packages / "dlapps" / "__init__.py"
    after = sorted(path.name for path in packages.iterdir())
    assert [name for name in after if name not in before] == ["dlapps", "dlapps-0.1.0.dist-info"]
    modules = {path.relative_to(ROOT / "src") for path in (ROOT / "src/dlapps").rglob("*.py")}
    assert modules == {path.relative_to(packages) for path in Path(file).parent.rglob("*.py")}
    assert f"{NOTEBOOKS[0].stem}: profile" in again and f"torch {torch.__version__}" in again
    if not torch.cuda.is_available():
        assert "No GPU is attached" in again and "Change runtime type" in again
    assert first.endswith(again)

    # After a restart of the kernel it is there, and the network is not needed.
    set_up = set_up_cell(place=(tmp_path / "nowhere").as_uri() + "@main")
    assert run_cells(fresh_python, tmp_path, set_up) == [again]


def test_pip_is_told_to_keep_pytorch_and_numpy(fresh_python, tmp_path):
    """Even a package that asks for other versions gets none: pip says so instead."""
    package = tmp_path / "greedy"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[project]\nname = "dlapps"\nversion = "9"\ndependencies = ["numpy<1.0"]\n'
    )
    git("init", "--quiet", "--initial-branch=main", folder=package)
    git("add", ".", folder=package)
    git("commit", "--quiet", "-m", "It wants another NumPy", folder=package)
    with pytest.raises(CellExecutionError, match=r"conflict(?s:.*)No module named 'dlapps'"):
        run_cells(fresh_python, tmp_path, set_up_cell(place=f"{package.as_uri()}@main"))


def test_an_install_that_fails_says_why(fresh_python, tmp_path):
    set_up = set_up_cell(place=(tmp_path / "nowhere").as_uri() + "@main")
    with pytest.raises(CellExecutionError, match=r"nowhere(?s:.*)No module named 'dlapps'"):
        run_cells(fresh_python, tmp_path, set_up)


def test_in_the_repository_nothing_need_be_installed(fresh_python):
    folder = ROOT / "notebooks"
    before = set(folder.iterdir())
    printed, versions = run_cells(fresh_python, folder, set_up_cell(), VERSIONS)
    assert printed.startswith(NOTEBOOKS[0].stem)
    assert Path(versions.split()[-1]).resolve() == ROOT / "src" / "dlapps" / "__init__.py"
    assert set(folder.iterdir()) == before


def test_outside_with_dlapps_installed(fresh_python, tmp_path):
    path = str(ROOT / "src")
    printed, versions = run_cells(fresh_python, tmp_path, set_up_cell(), VERSIONS, PYTHONPATH=path)
    assert printed.startswith(NOTEBOOKS[0].stem)
    assert versions.split()[-1] == str(ROOT / "src" / "dlapps" / "__init__.py")
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_that_is_required_asks_for_a_version_of_torchvision():
    """So it is enough that the cell keeps torch and NumPy: pip leaves torchvision as it is."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    names = [re.split("[ <>=]", line)[0] for line in lines if line and not line.startswith("#")]
    for name in names:
        required = [r for r in metadata.requires(name) or [] if "extra ==" not in r]
        assert not any(r.startswith("torchvision") for r in required), name
